"""What `moe plan` answers: layouts, best first, and what the prediction rests on."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.errors import BenchmarkError
from benchmarks.planning.budget import RunPlan
from benchmarks.planning.front import pareto_front
from benchmarks.planning.interval import error_band
from benchmarks.planning.job import PlanJob, precision_name
from benchmarks.planning.layout_text import layout_text, parse_layout
from benchmarks.planning.planner import Planner
from benchmarks.planning.scaling import ScalingCurve
from parallel.planner.prediction import LayoutPrediction
from parallel.planner.search.search import Found

FRONT_HORIZON = 1.5
"""Over the fastest layout's seconds: up to there, layouts that need less memory are looked for."""
OWN_LAYOUT = "own"
"""`--layout` of an experiment's own `[parallel]` section."""


@dataclass(frozen=True, kw_only=True)
class Formats:
    """Number formats that were ranked together."""

    best: Mapping[str, LayoutPrediction]
    """The best layout of each."""
    left_out: Mapping[str, str]
    """Why others have none."""

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        best = {name: _brief(one) for name, one in self.best.items()}
        return {"best": best, "left_out": dict(self.left_out)}


@dataclass(frozen=True, kw_only=True)
class PlanAnswer:
    """Layouts of one job."""

    job: PlanJob
    layouts: tuple[LayoutPrediction, ...]
    """Best first."""
    found: Found | None
    """What the search looked at; None where one layout was asked for."""
    front: tuple[LayoutPrediction, ...]
    """Of those that were predicted and fit, fastest first."""
    formats: Formats | None = None
    """Number formats that were searched together; None where one was."""
    run: RunPlan | None = None
    """What the best would need for a target, or reach within a budget."""
    scaling: tuple[ScalingCurve, ...] = ()
    """Strong and weak, where asked for."""

    @property
    def best(self) -> LayoutPrediction:
        """The first."""
        return self.layouts[0]

    def near(self, one: LayoutPrediction) -> list[LayoutPrediction]:
        """Return what was found nearly like a layout (`Row`)."""
        rows = () if self.found is None else self.found.rows
        return next((row.near for row in rows if row.one is one), [])

    def is_on_front(self, one: LayoutPrediction) -> bool:
        """Whether a layout is on the Pareto front."""
        return any(other is one for other in self.front)

    def as_json(self) -> dict[str, Any]:
        """Return the document of `moe plan --json` (a stable contract)."""
        job, batch = self.job, self.job.batch
        document: dict[str, Any] = {
            "layouts": [
                self._entry(one) | {"near_equal": [_brief(each) for each in self.near(one)]}
                for one in self.layouts
            ],
            "model": {
                "name": job.name,
                "gpu": job.card.name,
                "gpus": job.num_gpus,
                "seq_len": batch.seq_len,
                "global_batch_size": batch.global_batch_size,
                "precision": job.precision.model_dump(mode="json", exclude_defaults=True),
                "precisions": None if self.formats is None else self.formats.as_json(),
                "routing": job.execution.routing,
                "kind": "modelled",
                "calibration": dict(job.card.sources),
                "calibrated": None if job.calibrated is None else job.calibrated.as_json(),
                "error": error_band(job.shape, job.card, job.calibrated).as_json(),
            },
            "search": None,
            "run": None if self.run is None else self.run.as_json(),
            "scaling": [curve.as_json() for curve in self.scaling],
        }
        if self.found is not None:
            document["search"] = {
                "candidates": self.found.candidates,
                "predicted": self.found.predicted,
                "too_large": self.found.too_large,
                "pareto_front": [self._entry(one) for one in self.front],
            }
        return document

    def _entry(self, one: LayoutPrediction) -> dict[str, Any]:
        return {
            "text": layout_text(one.work),
            "precision": precision_name(one.work.precision),
            **one.as_json(),
            "pareto": self.is_on_front(one),
        }


def _brief(one: LayoutPrediction) -> dict[str, Any]:
    return {
        "text": layout_text(one.work),
        "step_time_s": one.step_seconds,
        "memory_bytes": one.memory.total_bytes,
    }


def answer(planner: Planner, layout: str | None, top: int) -> PlanAnswer:
    """Evaluate one layout, or search the `top` fastest.

    Raises:
        ParallelError: It is not legal; none is; none fits.
        InputError: The layout's text is wrong.
    """
    if layout is None:
        found = planner.search(top, FRONT_HORIZON)
        fitting = tuple(pareto_front(found.fitting))
        return PlanAnswer(job=planner.job, layouts=tuple(found.best), found=found, front=fitting)
    if layout == OWN_LAYOUT and planner.job.path is None:
        raise BenchmarkError(
            f"--layout own: {planner.job.name} is no experiment with a [parallel] section: name the"
            " sizes"
        )
    is_own = layout == OWN_LAYOUT
    one = planner.predict(planner.own() if is_own else planner.workload(parse_layout(layout)))
    return PlanAnswer(job=planner.job, layouts=(one,), found=None, front=(one,) if one.fits else ())
