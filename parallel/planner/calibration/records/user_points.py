"""Calibrates a card on what `moe bench gemm|attention|layer|step|collectives` measured.

A dozen points give one factor for each kind of kernel, the median of measured over modelled time,
and two for each kind of collective; shapes and sizes keep the model's form. Machines of one card
differ by 10 to 15 percent.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from parallel.errors import ParallelError
from parallel.hardware.card import Card
from parallel.planner.calibration.records.bench_records import BenchRecord
from parallel.planner.calibration.records.device_match import check_devices
from parallel.planner.calibration.records.kernel_points import RATIOS
from parallel.planner.calibration.records.kinds import KindCalibration, kernel_kind
from parallel.planner.calibration.records.link_points import (
    NETWORK,
    LinkPoint,
    calibrate_links,
    link_point,
)
from parallel.planner.calibration.records.unused import UnusedError, check_ratio

COLLECTIVES = "collectives"
BENCHES = (*RATIOS, COLLECTIVES)
"""Benchmarks whose records calibrate."""
GROUPS = ("gemm", "attention", "experts", "stream", COLLECTIVES)
"""First words of kinds."""
_STRETCH_OF = {"bf16": "gemm.bf16", "fp8": "gemm.fp8", "attention": "attention.forward"}
"""What a card's `training_stretch` stands for: one machine's kernels, which these replace."""
FEWEST = 3
"""Points of a kind that say how it scatters."""
_DEVIATION = 1.4826
"""A normal distribution's standard deviation over its median absolute value."""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """A card with the factors of one machine."""

    card: Card
    device: str
    """What the records say they were measured on."""
    kinds: Mapping[str, KindCalibration]
    unused: Mapping[str, int]
    """Records that calibrate nothing, counted by the reason."""
    notes: tuple[str, ...]
    """What the records do not reach."""
    spread: float | None
    """Standard deviation of ln(measured / modelled) after it, by the mean of the kinds' medians;
    only of kinds with `FEWEST` points or more. None: there is no such kind."""


def calibrate_card(card: Card, records: Sequence[BenchRecord]) -> Calibration:
    """Return the card with the factors that records give.

    Raises:
        ParallelError: A record is wrong, of another device, or there twice; none calibrates.
    """
    _refuse_repeated(records)
    device = check_devices(card, [one for one in records if one.bench in BENCHES])
    unused = Counter("other benchmarks" for one in records if one.bench not in BENCHES)
    kinds: dict[str, KindCalibration] = {}
    calibrated = card
    for bench in RATIOS:
        ratios = _ratios(calibrated, [one for one in records if one.bench == bench], unused)
        found = {kind: kernel_kind(values) for kind, values in sorted(ratios.items())}
        calibrated, kinds = _with_factors(calibrated, found), kinds | found
    points = _link_points(card, records, unused)
    if points and card.links is not None:
        links, found = calibrate_links(card.links, points)
        calibrated, kinds = calibrated.model_copy(update={"links": links}), kinds | found
    if not kinds:
        reasons = "; ".join(sorted(unused)) or "the file has no record"
        raise ParallelError(
            f"--calibrate: no record calibrates anything ({reasons}): measure some with moe bench"
            " gemm, attention, layer or collectives, each with --out FILE"
        )
    return Calibration(
        card=calibrated,
        device=device,
        kinds=kinds,
        unused=dict(sorted(unused.items())),
        notes=_notes(card, kinds),
        spread=_spread(kinds),
    )


def _refuse_repeated(records: Sequence[BenchRecord]) -> None:
    """Refuse a point that counts twice: a file given twice, or lines copied."""
    seen: dict[str, str] = {}
    for record in records:
        try:
            text = repr(sorted(record.values.items()))
        except RecursionError:
            raise ParallelError(f"{record.origin}: nested too deeply: remove the line") from None
        if text in seen:
            raise ParallelError(
                f"{record.origin}: the same record as {seen[text]}: give each point once"
            )
        seen[text] = record.origin


def _ratios(
    card: Card, records: Sequence[BenchRecord], unused: Counter[str]
) -> dict[str, list[float]]:
    ratios = defaultdict[str, list[float]](list)
    for record in records:
        try:
            found = RATIOS[record.bench](card, record)
            for kind, ratio in found.items():
                check_ratio(ratio, kind)
            for kind, ratio in found.items():
                ratios[kind].append(ratio)
        except UnusedError as reason:
            unused[str(reason)] += 1
    return ratios


def _link_points(
    card: Card, records: Sequence[BenchRecord], unused: Counter[str]
) -> list[LinkPoint]:
    points = []
    for record in records:
        if record.bench == COLLECTIVES:
            try:
                point = link_point(card, record)
                if card.links is not None:
                    check_ratio(point.seconds / point.predict(card.links), record.bench)
                points.append(point)
            except UnusedError as reason:
                unused[str(reason)] += 1
    return points


def _spread(kinds: Mapping[str, KindCalibration]) -> float | None:
    counted = [one for one in kinds.values() if one.points >= FEWEST]
    points = sum(one.points for one in counted)
    if not points:
        return None
    return _DEVIATION * sum(one.points * one.error_after for one in counted) / points


def _with_factors(card: Card, found: Mapping[str, KindCalibration]) -> Card:
    kernels = card.kernels
    factors = {kind: kernels.machine_factor(kind) * one.factor for kind, one in found.items()}
    stretch = {
        name: value
        for name, value in kernels.training_stretch.items()
        if _STRETCH_OF.get(name) not in found
    }
    changes = {
        "machine_factors": {**kernels.machine_factors, **factors},
        "training_stretch": stretch,
    }
    return card.model_copy(update={"kernels": kernels.model_copy(update=changes)})


def _notes(card: Card, kinds: Mapping[str, KindCalibration]) -> tuple[str, ...]:
    """Return what stays as the card's file says, of what a plan may need."""
    notes = []
    groups = {kind.partition(".")[0] for kind in kinds}
    if missing := [name for name in GROUPS if name not in groups]:
        notes.append(f"not measured, and as the card's file says: {', '.join(missing)}")
    if NETWORK not in kinds and card.links is not None and card.links.network_bytes_per_s:
        notes.append("measured on one node: the network between nodes is as the card's file says")
    return tuple(notes)
