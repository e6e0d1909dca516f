"""The timeline of a layout's step as a file that Perfetto opens (https://ui.perfetto.dev)."""

import json
from pathlib import Path

from benchmarks.errors import BenchmarkError
from benchmarks.planning.planner import Planner
from data.storage.atomic import write_text
from parallel.planner.schedule.trace import trace
from parallel.planner.workload import Workload

MOST_PASSES = 2_000_000
"""Of a trace; what has more, no viewer opens."""


def write_trace(path: Path, planner: Planner, work: Workload) -> None:
    """Write every pass of every stage of one step.

    Raises:
        BenchmarkError: There are too many, or the file cannot be written.
    """
    layout = work.layout
    micro_batches = work.batch.global_batch_size // (
        work.batch.micro_batch_size * work.placement.dp
    )
    passes = 2 * layout.pp * layout.vpp * micro_batches
    if passes > MOST_PASSES:
        raise BenchmarkError(
            f"--trace {path}: {passes:,} passes are more than {MOST_PASSES:,}: lower"
            " --global-batch-size"
        )
    text = json.dumps(trace(planner.timeline(work)), allow_nan=False)
    try:
        write_text(path, text + "\n")
    except OSError as error:
        raise BenchmarkError(f"--trace {path}: {error.strerror or error}") from None
