"""`make gpu`: gather evidence on this machine's card, or rehearse it on a CPU."""

import signal
import sys
import tempfile
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.gpu_evidence.gather import RESULTS, gather
from benchmarks.gpu_evidence.process import run_process
from benchmarks.gpu_evidence.tasks import Device, tasks_of
from data.errors import InputError
from moe.errors import StorageError

app = typer.Typer(pretty_exceptions_enable=False)


class DeviceName(StrEnum):
    """Where it runs."""

    CUDA = "cuda"
    CPU = "cpu"


@app.command()
def main(
    *,
    part: Annotated[list[int] | None, typer.Option(help="Only this part; several.")] = None,
    device: Annotated[DeviceName, typer.Option(help="cpu: a rehearsal.")] = DeviceName.CUDA,
    results: Annotated[
        Path | None,
        typer.Option(help="Folder.  [default: benchmarks/results; a temporary one on a CPU]"),
    ] = None,
) -> None:
    """Run the tests marked gpu and the benchmarks on a card; what has passed is not run again."""
    is_rehearsal = device is DeviceName.CPU
    name: Device = "cpu" if is_rehearsal else "cuda"
    if results is None:
        results = Path(tempfile.mkdtemp(prefix="moescale-rehearsal-")) if is_rehearsal else RESULTS
    failed = gather(
        tasks_of(part or []), name, results, lambda line: print(line, flush=True), run_process
    )
    if failed:
        raise typer.Exit(1)


if __name__ == "__main__":
    # Else what was started would go on.
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    try:
        app()
    except (InputError, StorageError) as fault:
        print(f"moe: {fault}", file=sys.stderr)
        sys.exit(fault.exit_code)
