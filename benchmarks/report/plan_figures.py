"""Figures of a plan's page: plotly traces, with the roles by which its script colors them.

Colors, fonts and sizes belong to the script (`templates/plan.js`).
"""

from collections.abc import Sequence

from benchmarks.planning.answer import PlanAnswer
from benchmarks.planning.layout_text import layout_text
from benchmarks.planning.limits import memory_terms
from benchmarks.planning.planner import Planner
from benchmarks.planning.scaling import ScalingCurve
from benchmarks.report.plotly_figure import MAX_POINTS, Axis, Figure, Trace, figure, thinned
from parallel.measurement.number_text import significant
from parallel.planner.device_memory import device_memory
from parallel.planner.energy import Estimate
from parallel.planner.memory import stage_memory
from parallel.planner.prediction import LayoutPrediction
from parallel.planner.schedule.order import PassKind
from parallel.planner.workload import Workload

GIB = 2**30
GROUPS_SHOWN = 3
"""Groups of `pp` micro-batches on the timeline, after which a schedule repeats itself."""
PASSES_SHOWN = 3000
STAGES_SHOWN = 32


def plan_figures(planner: Planner, answer: PlanAnswer) -> list[Figure]:
    """Return the figures that have something to show, in the page's order."""
    best = answer.best
    figures = [
        _front(answer),
        _time(best),
        _memory(planner, best.work),
        _timeline(planner, best.work),
        *([] if best.energy is None else [_energy(best)]),
        *([] if not answer.scaling else [_scaling(answer.scaling)]),
    ]
    return [one for one in figures if one is not None]


def _front(answer: PlanAnswer) -> Figure | None:
    if answer.found is None:
        return None
    front = set(map(id, answer.front))
    others = [one for one in answer.found.fitting if id(one) not in front]
    traces = [
        _layouts(thinned(others, MAX_POINTS), "other", "fits"),
        _layouts(list(answer.front), "front", "Pareto front"),
        _layouts([answer.best], "best", "fastest"),
    ]
    return figure(
        "front",
        "Speed against memory",
        f"{len(answer.found.fitting):,} layouts that were predicted in full and fit. On the front"
        " nothing is better in speed, memory and joules at once. Bars: 80% interval.",
        [trace for trace in traces if trace["x"]],
        x=Axis(title="Memory of the fullest card, GiB"),
        y=Axis(title="Tokens/s/GPU", si=True),
    )


def _layouts(layouts: Sequence[LayoutPrediction], role: str, name: str) -> Trace:
    speeds = [one.tokens_per_second for one in layouts]
    trace: Trace = {
        "type": "scatter",
        "mode": "lines+markers" if role == "front" else "markers",
        "name": name,
        "meta": {"role": role},
        "x": [one.memory.total_bytes / GIB for one in layouts],
        "y": speeds,
        "text": [layout_text(one.work).replace(",", " ") for one in layouts],
        "hovertemplate": "%{text}<br>%{y:,.0f} tokens/s/GPU, %{x:.1f} GiB<extra></extra>",
    }
    if role == "best":
        above = [s * (one.step_seconds / one.interval[0] - 1) for s, one in _with(speeds, layouts)]
        below = [s * (1 - one.step_seconds / one.interval[1]) for s, one in _with(speeds, layouts)]
        trace["error_y"] = {
            "type": "data", "symmetric": False, "array": above, "arrayminus": below
        }  # fmt: skip
    return trace


def _with(
    speeds: Sequence[float], layouts: Sequence[LayoutPrediction]
) -> list[tuple[float, LayoutPrediction]]:
    return list(zip(speeds, layouts, strict=True))


def _time(best: LayoutPrediction) -> Figure:
    terms = sorted(((s, term) for term, s in best.terms.items() if s > 0), reverse=True)
    low, high = (bound / best.step_seconds for bound in best.interval)
    trace: Trace = {
        "type": "bar",
        "orientation": "h",
        "meta": {"role": "best"},
        "x": [seconds for seconds, _ in terms],
        "y": [term.replace("_", " ") for _, term in terms],
        "text": [f"{seconds / best.step_seconds:.1%}" for seconds, _ in terms],
        "hovertemplate": "%{y}: %{x:.3g} s<extra></extra>",
    }
    return figure(
        "time",
        "Where a step's time goes",
        "Seconds of the busiest stage by term; communication is what compute does not hide. The"
        f" whole step takes {significant(low)} to {significant(high)} times the sum (80%).",
        [trace],
        x=Axis(title="s"),
        bars=True,
    )


def _memory(planner: Planner, work: Workload) -> Figure:
    stages = thinned(list(range(work.layout.pp)), STAGES_SHOWN)
    memories = [memory_terms(device_memory(work, stage_memory(work, stage))) for stage in stages]
    names = [name for name in memories[0] if any(one[name] > GIB / 100 for one in memories)]
    traces: list[Trace] = [
        {
            "type": "bar",
            "name": name,
            "meta": {"role": "part", "part": number},
            "x": [str(stage) for stage in stages],
            "y": [one[name] / GIB for one in memories],
            "hovertemplate": f"stage %{{x}}, {name}: %{{y:.2f}} GiB<extra></extra>",
        }
        for number, name in enumerate(names)
    ]
    card = planner.job.card
    limit: Trace = {
        "type": "scatter",
        "mode": "lines",
        "name": card.name,
        "meta": {"role": "limit"},
        "x": [str(stage) for stage in stages],
        "y": [card.memory_bytes / GIB] * len(stages),
        "hovertemplate": f"the card: {card.memory_bytes / GIB:.1f} GiB<extra></extra>",
    }
    return figure(
        "memory",
        "Memory by stage",
        "Peak bytes of a card of each pipeline stage, by what uses them.",
        [*traces, limit],
        x=Axis(title="stage"),
        y=Axis(title="GiB"),
        stacked=True,
    )


def _timeline(planner: Planner, work: Workload) -> Figure | None:
    """Return the passes of the first micro-batches as bars on a line for each stage."""
    layout = work.layout
    count = work.batch.global_batch_size // (work.batch.micro_batch_size * work.placement.dp)
    shown = count
    if count > GROUPS_SHOWN * layout.pp:
        shown = GROUPS_SHOWN * layout.pp + (count % layout.pp if layout.vpp == 1 else 0)
    if 2 * layout.pp * layout.vpp * shown > PASSES_SHOWN:
        shown = layout.pp
    step = planner.timeline(work, shown)
    passes = list(step.passes())
    if len(passes) > 2 * PASSES_SHOWN:
        return None
    kinds: tuple[PassKind, ...] = ("forward", "backward")
    traces: list[Trace] = []
    for kind in kinds:
        mine = [one for one in passes if one.kind == kind]
        traces.append(
            {
                "type": "bar",
                "orientation": "h",
                "name": kind,
                "meta": {"role": kind},
                "base": [one.start_s for one in mine],
                "x": [one.end_s - one.start_s for one in mine],
                "y": [f"stage {one.stage}" for one in mine],
                "text": [f"micro-batch {one.micro_batch}, chunk {one.chunk}" for one in mine],
                "hovertemplate": f"{kind}, %{{text}}<br>%{{base:.4f}} s, %{{x:.4f}} s long"
                "<extra></extra>",
            }
        )
    part = f"The first {shown:,} of {count:,} micro-batches" if shown < count else "One step"
    return figure(
        "timeline",
        "Timeline of the pipeline",
        f"{part} of a data-parallel rank, simulated pass by pass; white is waiting."
        " moe plan --trace FILE writes all of it for Perfetto.",
        traces,
        x=Axis(title="s"),
        bars=True,
    )


def _energy(best: LayoutPrediction) -> Figure:
    assert best.energy is not None
    named: dict[str, Estimate] = best.energy.per_token()
    order = [name for name in ("facility", "nodes", "boards", "network") if named[name].value]
    limit = best.energy.limit_joules / best.energy.tokens
    trace: Trace = {
        "type": "bar",
        "orientation": "h",
        "meta": {"role": "best"},
        "y": [*order, "power limit x time"],
        "x": [*(named[name].value for name in order), limit],
        "text": [f"{significant(named[name].value)} J" for name in order]
        + [f"{significant(limit)} J"],
        "error_x": {
            "type": "data",
            "symmetric": False,
            "array": [*(named[name].high - named[name].value for name in order), 0],
            "arrayminus": [*(named[name].value - named[name].low for name in order), 0],
        },
        "hovertemplate": "%{y}: %{x:.3g} J/token<extra></extra>",
    }
    return figure(
        "energy",
        "Joules a token",
        "By boundary, with 80% intervals of the power; the last is what the boards' limit times"
        " GPU-hours would say.",
        [trace],
        x=Axis(title="J/token"),
        bars=True,
    )


def _scaling(curves: Sequence[ScalingCurve]) -> Figure:
    traces: list[Trace] = []
    for curve in curves:
        points = [point for point in curve.points if point.best is not None]
        bests = [point.best for point in points if point.best is not None]
        speeds = [one.tokens_per_second for one in bests]
        traces.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": f"{curve.kind}; pays up to {curve.pays_up_to or 0:,}",
                "meta": {"role": curve.kind},
                "x": [point.gpus for point in points],
                "y": speeds,
                "text": [layout_text(one.work).replace(",", " ") for one in bests],
                "error_y": {
                    "type": "data",
                    "symmetric": False,
                    "array": [
                        s * (one.step_seconds / one.interval[0] - 1)
                        for s, one in _with(speeds, bests)
                    ],
                    "arrayminus": [
                        s * (1 - one.step_seconds / one.interval[1])
                        for s, one in _with(speeds, bests)
                    ],
                },
                "hovertemplate": "%{x:,} cards: %{y:,.0f} tokens/s/GPU<br>%{text}<extra></extra>",
            }
        )
    return figure(
        "scaling",
        "Scaling",
        "Tokens a second and card of the best layout: with the same batch (strong), and with one"
        " that grows (weak). Bars: 80% intervals, which all points share.",
        traces,
        x=Axis(title="cards"),
        y=Axis(title="Tokens/s/GPU", si=True),
        log_x=True,
    )
