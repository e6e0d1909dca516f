"""Whether records are of the card that is planned for, and all of one machine."""

from collections.abc import Sequence

from parallel.errors import ParallelError
from parallel.hardware.card import Card, find_card, is_named
from parallel.planner.calibration.records.bench_records import BenchRecord
from parallel.planner.calibration.records.bench_schema import Hardware

KERNELS = ("gemm", "attention", "step", "layer")
"""Benchmarks of one process's own work."""


def check_devices(card: Card, records: Sequence[BenchRecord]) -> str:
    """Return the device that all records are of; empty without records.

    Raises:
        ParallelError: A record is of another device than the card, than another record, or of
            other threads: which of both a plan is for is not known.
    """
    first: tuple[Hardware, str] | None = None
    threads: tuple[int | None, str] | None = None
    for record in records:
        found = record.hardware
        _check_device(card, found, record.origin)
        if first is None:
            first = found, record.origin
        elif found.name != first[0].name:
            raise ParallelError(
                f"{record.origin}: measured on {found.name!r}, and {first[1]} on {first[0].name!r}:"
                " give records of one machine"
            )
        if record.bench in KERNELS:
            if found.device == "cpu" and found.threads is None:
                raise ParallelError(
                    f"{record.origin}: conditions.hardware.threads is not there: which machine it"
                    " is of is not known: measure it again with this moescale"
                )
            if threads is None:
                threads = found.threads, record.origin
            elif found.threads != threads[0]:
                raise ParallelError(
                    f"{record.origin}: measured with {found.threads} threads, and {threads[1]} with"
                    f" {threads[0]}: give records of as many as each process will have"
                )
    return "" if first is None else first[0].name or ""


def _check_device(card: Card, found: Hardware, origin: str) -> None:
    if (found.device == "cpu") != (card.architecture == "cpu"):
        raise ParallelError(
            f"{origin}: measured on a {found.device} device, {found.name!r}, which calibrates no"
            f" {card.name}: give records of {card.name}, or --gpu of that device"
        )
    if not found.name:
        raise ParallelError(
            f"{origin}: conditions.hardware.name is null: which machine it is of is not known:"
            " measure it again with this moescale"
        )
    name = found.name
    if found.device == "cpu" or is_named(card, name):
        return
    other = find_card(name)
    remedy = (
        f"say --gpu {other.name.lower()}"
        if other is not None
        else f"give records of {card.name}, or add the name to aliases in the card's file"
    )
    raise ParallelError(f"{origin}: measured on {found.name!r}, not {card.name}: {remedy}")
