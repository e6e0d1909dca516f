"""What a run has trained on adds up over its starts, and is unknown where it was not counted."""

from typing import Any

import pytest

from tests.support.distributed import run_ranks


def _totals() -> list[Any]:
    """Return totals after a restart, the same from an older checkpoint, and two rates."""
    from moe.training.logs.totals import RunTotals
    from moe.training.startup.conditions import RunConditions
    from moe.training.step import StepResult

    step = StepResult(
        loss=2.0, tokens=10, flops=5e6, extras={}, checksum=7, grad_norm=1.0, learning_rate=1e-3,
        stop=False,
    )  # fmt: skip
    first = RunTotals().after(step, 0.5)
    state: dict[str, Any] = {"step": first.step, **first.as_checkpoint_state()}
    older = {key: value for key, value in state.items() if key != "training_flops"}
    resumed = [RunTotals.from_checkpoint(each).after(step, 0.5) for each in (state, older)]
    peak = {"flops_per_s": 1e6}
    conditions = RunConditions(num_ranks=2, ledger=None, peak=peak, execution={})  # type: ignore[arg-type]
    return [
        *((totals.step, totals.tokens, totals.training_flops) for totals in resumed),
        *(conditions.speed(flops, 3.0) for flops in (3e6, None)),
    ]


@pytest.mark.engine
def test_flops_add_up_over_starts_and_are_unknown_where_a_start_did_not_count() -> None:
    resumed, older, counted, unknown = run_ranks(1, _totals)[0]
    assert resumed == (2, 20, 1e7)
    assert older == (2, 20, None)
    assert counted == {"flops_per_s": 5e5, "mfu": 0.5}
    assert unknown == {"flops_per_s": None, "mfu": None}
