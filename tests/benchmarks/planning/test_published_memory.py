"""Peaks that others measured and published, against the memory model."""

from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from statistics import median

import pytest

from benchmarks.planning.published_recipes import BRIDGE, recipe_of
from benchmarks.planning.published_shapes import shape_of_row
from benchmarks.planning.validate import GIB, StepPredictor
from parallel.planner.validation.jobs import UnusableRowError, jobs_of
from parallel.planner.validation.rows import PublishedRow, read_rows

STEPS = Path(str(resources.files("benchmarks") / "published" / "training_steps.csv"))


@dataclass(frozen=True)
class Peak:
    """One row: its error, or why it has none."""

    line: int
    is_nvidias: bool
    """Of Megatron-Bridge; the others are all one program's."""
    reason: str | None
    error: float = 0.0


@cache
def peaks() -> tuple[Peak, ...]:
    """Return all rows that print a peak."""
    predictor, found = StepPredictor(), []
    for row in read_rows(STEPS):
        published = row.number("peak_memory_gib")
        if published is None:
            continue
        is_nvidias = (row.text("framework") or "").startswith(BRIDGE)
        try:
            jobs = jobs_of(row, shape_of_row(row), predictor.fits)
        except UnusableRowError as error:
            found.append(Peak(row.line, is_nvidias, str(error)))
            continue
        modelled = max(predictor.memory_bytes(job) for job in jobs) / GIB
        found.append(Peak(row.line, is_nvidias, None, modelled / published - 1))
    return tuple(found)


@pytest.mark.parametrize(("nvidias", "rows", "most"), [(True, 4, 0.06), (False, 22, 0.005)])
def test_modelled_peaks_are_near_published_ones(nvidias: bool, rows: int, most: float) -> None:
    errors = [abs(p.error) for p in peaks() if p.reason is None and p.is_nvidias == nvidias]
    assert len(errors) == rows
    assert median(errors) < most
    assert max(errors) < 0.1


def test_every_other_row_says_why_it_is_not_predicted() -> None:
    reasons = [peak.reason or "" for peak in peaks() if peak.reason is not None]
    assert len(reasons) == 12
    assert sum("fsdp" in reason for reason in reasons) == 8


def test_what_a_program_keeps_follows_from_its_name_alone() -> None:
    """And not from what it published."""
    rows = read_rows(STEPS)
    kept = {
        (row.text("framework"), row.text("model"), row.text("task")): recipe_of(row) for row in rows
    }
    names = ("framework", "model", "task")
    for key, recipe in kept.items():
        cells = {name: text or "" for name, text in zip(names, key, strict=True)}
        assert recipe_of(PublishedRow(1, cells)) == recipe
