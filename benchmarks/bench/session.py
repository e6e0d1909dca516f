"""What every `moe bench` command needs: an engine, the conditions of its results, progress."""

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from benchmarks.bench.cases import BenchOptions, Case, run_cases
from benchmarks.errors import BenchmarkError
from data.dotted_keys import apply_override
from moe.config.experiment import Experiment, make_experiment
from moe.runs.environment import environment
from moe.runs.record import utc_now
from moe.runs.source_state import source_state
from moe.training.startup.preflight import check_kernels
from parallel.engine.collectives import all_gather_objects
from parallel.engine.start import Engine, start_engine, stop_engine
from parallel.hardware.probe import describe_device

SECTIONS = ("parallel", "precision", "energy")


@dataclass(frozen=True)
class BenchSession:
    """A started engine and the settings of all cases of one command."""

    engine: Engine
    options: BenchOptions
    sections: Mapping[str, Any]
    """`[parallel]`, `[precision]` and `[energy]` as overridden."""
    probe: Experiment
    """A minimal experiment with those sections."""

    def run(self, bench: str, cases: Sequence[Case]) -> list[dict[str, Any]]:
        """Measure the cases on every rank; rank 0 saves and returns the records, others none."""
        main = self.engine.is_main
        records = run_cases(
            bench,
            cases,
            self.conditions(),
            out=self.options.out if main else None,
            on_status=print_line if main else lambda _line: None,
            broadcast=lambda value: all_gather_objects(value)[0],
        )
        if main and sys.stderr.isatty():
            print("\r\033[K", end="", file=sys.stderr, flush=True)
        return records if main else []

    def conditions(self) -> dict[str, Any]:
        """Return the conditions of a result: hardware, versions, commit, command, time, load."""
        software = environment()
        return {
            "hardware": describe_device(self.engine.device) | {"ranks": self.engine.world_size},
            "packages": software["packages"],
            "python": software["python"],
            "platform": software["platform"],
            "commit": source_state(),
            "command": " ".join(sys.argv),
            "measured_at": utc_now(),
            # A busy machine gives slow and scattered results; here it shows.
            "load_average": os.getloadavg()[0],
            "cores": os.cpu_count(),
        }


@contextmanager
def bench_session(options: BenchOptions) -> Iterator[BenchSession]:
    """Start the engine in the layout and precision that the options state; stop it at the end.

    Raises:
        BenchmarkError: An override of another section.
    """
    sections: dict[str, Any] = {}
    for override in options.overrides:
        apply_override(sections, override)
    unknown = [name for name in sections if name not in SECTIONS]
    if unknown:
        raise BenchmarkError(
            f"--set {unknown[0]}...: a benchmark takes keys of {', '.join(SECTIONS)} only; other"
            " things have options of their own"
        )
    probe = make_experiment(
        {
            **sections,
            "model": {"preset": "tiny"},
            "train": {"steps": 1, "seq_len": 16, "global_batch_size": 1024},
        },
        origin="moe bench",
    )
    check_kernels(probe)
    engine = start_engine(probe.parallel, seed=0)
    try:
        yield BenchSession(engine, options, sections, probe)
    finally:
        stop_engine()


def print_status(line: str) -> None:
    """Show what a case is doing on a line that the next one overwrites; terminals only."""
    if sys.stderr.isatty():
        print(f"\r\033[K{line}", end="", file=sys.stderr, flush=True)


def print_line(line: str) -> None:
    """Print a line that stays: a case that begins, or what was cut."""
    clear = "\r\033[K" if sys.stderr.isatty() else ""
    print(f"{clear}{line}", file=sys.stderr, flush=True)
