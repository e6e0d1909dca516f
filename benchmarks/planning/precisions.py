"""The number formats of a plan: one, or several whose layouts are ranked together.

Formats are the user's choice, since they change what is learned: several are searched only where
they are asked for.
"""

from dataclasses import replace

from benchmarks.errors import BenchmarkError
from benchmarks.planning.answer import Formats, PlanAnswer, answer
from benchmarks.planning.front import pareto_front
from benchmarks.planning.job import PRECISIONS, JobOptions, read_job
from benchmarks.planning.planner import Planner
from parallel.errors import ParallelError
from parallel.planner.search.search import Found

ANY = "any"
"""`--precision` of all formats that the card's matrix units were made for."""
OF_ANY = tuple(name for name in PRECISIONS if name != "fp32")


def parse_precisions(text: str | None) -> tuple[str | None, ...]:
    """Return the formats that a text names; None leaves the experiment's own.

    Raises:
        BenchmarkError: One is unknown, or named twice.
    """
    if text is None:
        return (None,)
    if text == ANY:
        return OF_ANY
    names = tuple(name.strip() for name in text.split(","))
    for name in names:
        if name not in PRECISIONS:
            raise BenchmarkError(
                f"--precision {name[:40]!r}: choose {', '.join(PRECISIONS)}, several of them joined"
                f" by commas, or {ANY}"
            )
        if names.count(name) > 1:
            raise BenchmarkError(f"--precision {text[:80]}: {name} is given twice: leave one")
    return names


def answer_in(
    target: str, options: JobOptions, layout: str | None, top: int
) -> tuple[Planner, PlanAnswer]:
    """Return the answer over the formats of `options.precision`, and the planner of its best.

    Of several, those that the card, the kernels or the memory rule out are left out.

    Raises:
        BenchmarkError, ParallelError: None remains: what the first said; or as `answer`.
    """
    names = parse_precisions(options.precision)
    answers: dict[str, tuple[Planner, PlanAnswer]] = {}
    faults: dict[str, ValueError] = {}
    for name in names:
        try:
            planner = Planner(read_job(target, replace(options, precision=name)))
            answers[str(name)] = planner, answer(planner, layout, top)
        except (BenchmarkError, ParallelError) as error:
            faults[str(name)] = error
    if not answers:
        raise next(iter(faults.values()))
    best = min(answers, key=lambda name: _rank(answers[name][1]))
    planner, found = answers[best]
    if len(names) == 1:
        return planner, found
    formats = Formats(
        best={name: one.best for name, (_, one) in answers.items()},
        left_out={name: str(fault) for name, fault in faults.items()},
    )
    together = _together([one for _, one in answers.values()], top)
    return planner, replace(together, job=planner.job, formats=formats)


def _rank(one: PlanAnswer) -> tuple[bool, float]:
    return not one.best.fits, one.best.step_seconds


def _together(answers: list[PlanAnswer], top: int) -> PlanAnswer:
    """Return the answers of several formats as one."""
    ordered = sorted(answers, key=_rank)
    found = [one.found for one in ordered if one.found is not None]
    if not found:
        layouts = tuple(one.best for one in ordered)
        front = pareto_front(one for one in layouts if one.fits)
        return replace(ordered[0], layouts=layouts, front=tuple(front))
    rows = sorted((row for one in found for row in one.rows), key=lambda row: row.one.step_seconds)
    merged = Found(
        rows=tuple(rows[:top]),
        fitting=tuple(each for one in found for each in one.fitting),
        candidates=sum(one.candidates for one in found),
        predicted=sum(one.predicted for one in found),
        too_large=sum(one.too_large for one in found),
    )
    front = pareto_front(merged.fitting)
    return replace(ordered[0], layouts=tuple(merged.best), found=merged, front=tuple(front))
