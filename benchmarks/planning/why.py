"""Why a layout lost against the best: a rule that it breaks, a memory term, or its time by term."""

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Literal

from benchmarks.planning.layout_text import LayoutRequest, layout_text
from benchmarks.planning.limits import gibibytes, memory_terms
from benchmarks.planning.planner import Planner
from parallel.errors import ParallelError
from parallel.measurement.number_text import readable
from parallel.planner.prediction import LayoutPrediction
from parallel.planner.search.candidates import candidates
from parallel.planner.search.choices import Choice, recomputations
from parallel.planner.search.least_memory import LeastMemory
from parallel.planner.search.stages import Stages

OF_CANDIDATE = ("tp", "cp", "ep", "etp", *Stages._fields)
OF_RECOMPUTATION = ("recompute", "recompute_modules")
OF_EXCHANGE = {"dispatcher", "flex_backend"}
SEARCHED = {
    *OF_CANDIDATE, *OF_RECOMPUTATION, *OF_EXCHANGE, "overlap_experts",
}  # fmt: skip
"""Fields of `Layout` that the search chooses."""
LEAST_DIFFERENCE = 0.01
"""Of the best step's seconds: a term that differs by less is not told."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Why a layout is not the one to take."""

    reason: Literal["illegal", "memory", "time", "best"]
    sentences: tuple[str, ...]
    prediction: LayoutPrediction | None
    """The best of the layouts that were asked about; None where none is legal."""

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        entry = None if self.prediction is None else self.prediction.as_json()
        return {"reason": self.reason, "sentences": list(self.sentences), "layout": entry}


def why(planner: Planner, request: LayoutRequest, best: LayoutPrediction) -> Verdict:
    """Say why the best layout of those that a text leaves open lost against `best`.

    Where none of them is run in a way that the search tries, the layout whose other sizes are 1 is
    judged alone, or the one with the least memory where that is illegal or does not fit.

    Raises:
        InputError: The text contradicts itself.
    """
    exchanged = sorted(OF_EXCHANGE & set(request.fields))
    if exchanged and not any(planner.job.shape.sparse_layers):
        fault = f"{planner.job.name} is dense: no token is sent to experts, so it has no dispatcher"
        return Verdict(reason="illegal", sentences=(fault,), prediction=None)
    return _judged(planner, request, best)


def _judged(planner: Planner, request: LayoutRequest, best: LayoutPrediction) -> Verdict:
    """Return the verdict on a text whose keys the model knows."""
    smallest = None
    if set(request.fields) <= SEARCHED:
        found = planner.try_search(
            1, only=_sizes(request), keep=lambda choice: _has_choice(request, choice)
        )
        if found.best:
            looked_at = int(found.candidates * _share_of_ways(planner, request))
            return _slower(found.best[0], best, looked_at)
        smallest = _smallest(planner, request)
        if smallest is not None and not smallest.fits:
            return _too_large(planner, smallest)
    job, layout = planner.job, request.layout(planner.job.layout)
    size = request.micro_batch_size or job.batch.micro_batch_size
    faults = planner.faults(layout, size)
    if not faults:
        exact = planner.predict(planner.workload(request))
        if exact.fits:
            return _slower(exact, best, 1)
        return _too_large(planner, exact) if smallest is None else _slower(smallest, best, 1)
    if smallest is not None:
        return _slower(smallest, best, 1)
    return Verdict(reason="illegal", sentences=tuple(faults), prediction=None)


def _sizes(request: LayoutRequest) -> dict[str, Any]:
    """Return what a text says of a candidate, as `Bounds.only`."""
    stated = {name: value for name, value in request.fields.items() if name in OF_CANDIDATE}
    named = {"micro_batch_size": request.micro_batch_size, "dp": request.dp}
    return stated | {name: value for name, value in named.items() if value is not None}


def _has_choice(request: LayoutRequest, choice: Choice) -> bool:
    """Whether a text does not exclude a way to run a candidate."""
    return all(
        choice.get(name) == value
        for name, value in request.fields.items()
        if name not in OF_CANDIDATE
    )


def _share_of_ways(planner: Planner, request: LayoutRequest) -> Fraction:
    """Return the share of all ways to recompute that a text does not exclude."""
    recompute = {name: value for name, value in request.fields.items() if name in OF_RECOMPUTATION}
    has_te = planner.job.precision.kernels == "te"
    ways = recomputations(planner.job.shape, has_te=has_te)
    able = [way for way in ways if recompute.items() <= way.items()]
    return Fraction(len(able), len(ways))


def _smallest(planner: Planner, request: LayoutRequest) -> LayoutPrediction | None:
    """Return the legal layout that a text allows with the least states, all recomputed."""
    shape = planner.job.shape
    least = LeastMemory(planner.template())
    way = {name: value for name, value in request.fields.items() if name not in OF_CANDIDATE}
    legal = list(candidates(shape, replace(planner.bounds(), only=_sizes(request))))
    if not legal:
        return None
    smallest = min(
        legal,
        key=lambda one: (least.state_bytes(one), one.sizes.micro_batch_size, one.stages.vpp),
    )
    exact = replace(
        request,
        fields=smallest.fields() | {"recompute": "full"} | way,
        micro_batch_size=smallest.sizes.micro_batch_size,
        dp=None,
    )
    try:
        return planner.predict(planner.workload(exact))
    except ParallelError:  # kernels or number format cannot run it: judged alone
        return None


def _too_large(planner: Planner, prediction: LayoutPrediction) -> Verdict:
    memory, room = prediction.memory, planner.job.card.memory_bytes
    terms = sorted(memory_terms(memory).items(), key=lambda item: -item[1])
    parts = ", ".join(f"{name} {gibibytes(size)}" for name, size in terms if size > room / 100)
    over = memory.total_bytes - room
    sentences = [
        f"needs {gibibytes(memory.total_bytes)} on stage {memory.allocated.stage}, and"
        f" {planner.job.card.name} has {gibibytes(room)}: {gibibytes(over)} too much even as"
        f" {layout_text(prediction.work)}",
        f"its largest term is {terms[0][0]}; by term: {parts}",
    ]
    return Verdict(reason="memory", sentences=tuple(sentences), prediction=prediction)


def _slower(one: LayoutPrediction, best: LayoutPrediction, looked_at: int) -> Verdict:
    of_how_many = f", the fastest of {looked_at:,} such," if looked_at > 1 else ""
    head = f"{layout_text(one.work)}{of_how_many} takes {readable(one.step_seconds, 's')} a step"
    if one.step_seconds <= best.step_seconds:
        return Verdict(reason="best", sentences=(f"{head}: nothing is faster",), prediction=one)
    slower = one.step_seconds / best.step_seconds - 1
    sentences = [f"{head}, {slower:.1%} more than the best, {layout_text(best.work)}"]
    differences = sorted(
        (
            (one.terms.get(term, 0.0) - best.terms.get(term, 0.0), term)
            for term in {*one.terms, *best.terms}
        ),
        key=lambda item: -abs(item[0]),
    )
    sentences += [
        f"{term.replace('_', ' ')}: {readable(one.terms.get(term, 0.0), 's')} against"
        f" {readable(best.terms.get(term, 0.0), 's')} ({difference / best.step_seconds:+.1%} of"
        " the best step)"
        for difference, term in differences
        if abs(difference) >= LEAST_DIFFERENCE * best.step_seconds
    ]
    return Verdict(reason="time", sentences=tuple(sentences), prediction=one)
