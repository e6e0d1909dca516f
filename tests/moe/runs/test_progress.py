"""Progress of runs whose files are damaged: what cannot be read is not known."""

import json
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from moe.runs.progress import RunProgress, read_progress, read_status

VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3) | st.just(float("inf")),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["total", "value", "kind"]), inner, max_size=2)
    ),
    max_leaves=4,
)
RECORDS = st.dictionaries(st.sampled_from(["status", "energy", "final_loss"]), VALUES)
ROWS = st.dictionaries(
    st.sampled_from(["step", "tokens", "loss", "step_time_s", "energy_joules", "tokens_per_s"]),
    VALUES,
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(record=RECORDS | VALUES, rows=st.lists(ROWS, max_size=3))
def test_damaged_run_still_has_a_progress(
    tmp_path: Path, record: Any, rows: list[dict[str, Any]]
) -> None:
    """One such run must not disable every `moe slurm` command."""
    (tmp_path / "record.json").write_text(json.dumps(record))
    (tmp_path / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    progress = read_progress(tmp_path)
    assert isinstance(progress.status, str | None)
    assert read_status(tmp_path) == progress.status
    for value in (progress.loss, progress.energy_joules, progress.step_time_s, progress.step):
        assert value is None or isinstance(value, int | float)
    assert json.dumps(progress.__dict__, allow_nan=False)


def test_run_without_files_has_none(tmp_path: Path) -> None:
    assert read_progress(tmp_path) == RunProgress()
