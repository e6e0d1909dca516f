"""README and evidence say of GPUs what lies in `benchmarks/results/`, and no more."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.errors import BenchmarkError
from benchmarks.gpu_evidence.gather import BENCH, RESULTS
from benchmarks.gpu_evidence.status import (
    CLAIMS,
    NOT_YET,
    PAGES,
    claim_state,
    read_evidence,
    updated_page,
)
from benchmarks.gpu_evidence.tasks import TASKS
from tests.support.paths import ROOT

BY_TASK = {task: claim for claim in CLAIMS for task in claim.tasks}
KERNELS, SPEED, ENERGY, FP8 = CLAIMS


def record(task: str, state: str = "passed", **changes: Any) -> dict[str, Any]:
    hardware = {"device": "cuda", "name": "NVIDIA H200"} | changes.pop("hardware", {})
    measured_at = changes.pop("measured_at", "2026-12-01T10:00:00+00:00")
    return {
        "format": 1,
        "bench": BENCH,
        "case": {"task": task, "part": 1},
        "conditions": {"hardware": hardware, "measured_at": measured_at},
        "result": {"state": state},
    } | changes


def planted(folder: Path, *records: dict[str, Any]) -> list[Any]:
    text = "".join(f"{json.dumps(one)}\n" for one in records)
    (folder / "nvidia-h200-2026-12-01.jsonl").write_text(text)
    return list(read_evidence(folder))


@pytest.mark.parametrize("page", PAGES)
def test_pages_say_what_the_results_say(page: str) -> None:
    """Otherwise: python -m benchmarks.gpu_evidence.status."""
    text = (ROOT / page).read_text(encoding="utf-8")
    assert updated_page(text, read_evidence(RESULTS)) == text


@pytest.mark.parametrize("page", PAGES)
def test_without_results_nothing_is_measured(page: str, tmp_path: Path) -> None:
    text = updated_page((ROOT / page).read_text(encoding="utf-8"), read_evidence(tmp_path))
    for claim in CLAIMS:
        [row] = [line for line in text.splitlines() if line.startswith(f"| {claim.what} | ")]
        assert row.split(" | ")[1].removesuffix(" |") == NOT_YET


@pytest.mark.parametrize("page", PAGES)
def test_a_result_is_said_with_card_and_day(page: str, tmp_path: Path) -> None:
    evidence = planted(tmp_path, record("tests"))
    before = (ROOT / page).read_text(encoding="utf-8")
    text = updated_page(before, evidence)
    [row] = [line for line in text.splitlines() if line.startswith(f"| {KERNELS.what} | ")]
    assert row.startswith(f"| {KERNELS.what} | measured on one NVIDIA H200, 2026-12-01 |")
    other = [line for line in text.splitlines() if line != row]
    assert other == [line for line in before.splitlines() if KERNELS.what not in line]
    # Nothing is lost by going there and back.
    assert updated_page(text, []) == updated_page(before, [])


def test_every_task_of_a_claim_exists_and_is_needed(tmp_path: Path) -> None:
    names = [task.name for task in TASKS]
    assert set(BY_TASK) | {"collectives"} == set(names)
    most = [record(task) for task in SPEED.tasks]
    assert claim_state(SPEED, planted(tmp_path, *most)).startswith("measured on one")
    for number in range(len(most)):
        fewer = most[:number] + most[number + 1 :]
        assert claim_state(SPEED, planted(tmp_path, *fewer)) == NOT_YET


def test_the_last_word_on_a_task_counts(tmp_path: Path) -> None:
    early, late = "2026-12-01T10:00:00+00:00", "2026-12-02T10:00:00+00:00"
    better = [record("tests", "failed", measured_at=early), record("tests", measured_at=late)]
    text = claim_state(KERNELS, planted(tmp_path, *reversed(better)))
    assert text == "measured on one NVIDIA H200, 2026-12-02"
    worse = [record("tests", measured_at=early), record("tests", "failed", measured_at=late)]
    text = claim_state(KERNELS, planted(tmp_path, *worse))
    assert text == "**failed** on one NVIDIA H200, 2026-12-02"
    left_out = [record(task, "left out") for task in FP8.tasks]
    assert claim_state(FP8, planted(tmp_path, *left_out)) == NOT_YET


def test_cards_are_not_mixed_and_processors_do_not_count(tmp_path: Path) -> None:
    h100 = {"name": "NVIDIA H100 80GB HBM3"}
    half = len(SPEED.tasks) // 2
    mixed = [record(task) for task in SPEED.tasks[:half]]
    mixed += [record(task, hardware=h100) for task in SPEED.tasks[half:]]
    assert claim_state(SPEED, planted(tmp_path, *mixed)) == NOT_YET
    both = [record("energy of a step"), record("energy of a step", hardware=h100)]
    assert claim_state(ENERGY, planted(tmp_path, *both)) == (
        "measured on one NVIDIA H100 80GB HBM3, 2026-12-01; measured on one NVIDIA H200, 2026-12-01"
    )
    processor = record("tests", hardware={"device": "cpu", "name": "AMD EPYC"})
    assert claim_state(KERNELS, planted(tmp_path, processor)) == NOT_YET


def test_damaged_evidence_and_a_missing_row_are_named(tmp_path: Path) -> None:
    broken = record("tests")
    del broken["result"]
    with pytest.raises(BenchmarkError, match=r"2026-12-01\.jsonl: line 2 lacks 'result'"):
        planted(tmp_path, {"bench": "gemm"}, broken)
    with pytest.raises(BenchmarkError, match="no row `| kernel set"):
        updated_page("# Status\n", [])
