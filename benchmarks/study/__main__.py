"""`make study`: run the study, or its short rehearsal, and say what it found."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.bench.results import check_results_writable
from benchmarks.standard_library import standard_library
from benchmarks.study.document import study_document
from benchmarks.study.page import write_study_page
from benchmarks.study.study import run_study
from data.errors import FailedError, InputError, StoppedError
from data.storage.atomic import write_json
from parallel.hardware.probe import describe_device

app = typer.Typer(pretty_exceptions_enable=False)


class Designs(StrEnum):
    """Which designs run."""

    FULL = "full"
    SHORT = "short"


@app.command()
def main(
    *,
    designs: Annotated[Designs, typer.Option(help="short: a rehearsal.")] = Designs.FULL,
    out: Annotated[Path, typer.Option("--out", "-o", help="Where it works.")] = Path("study"),
    jobs: Annotated[int, typer.Option(help="Runs at a time.", min=1, max=1024)] = 2,
    text: Annotated[
        list[Path] | None,
        typer.Option(help="Folder or file to learn from.  [default: Python's own library]"),
    ] = None,
    result: Annotated[
        Path | None, typer.Option(help="Also write the result here.", show_default=False)
    ] = None,
) -> None:
    """Train dense and sparse models at equal FLOPs, fit, predict the largest, and compare."""
    import torch

    written = [path for path in (out / "study.json", result) if path is not None]
    for path in written:
        check_results_writable(path)
    study = run_study(designs, text or standard_library(), out, jobs, _say)
    hardware = describe_device(torch.device("cpu")) | {"jobs": jobs}
    document = study_document(study, hardware, " ".join(sys.argv))
    for path in written:
        write_json(path, document)
    write_study_page(out / "study.html", study)
    print("\n".join(document["finding"]))
    print(f"result: {(out / 'study.json').resolve()}\npage: {(out / 'study.html').resolve()}")


def _say(line: str) -> None:
    print(f"moe: {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    try:
        app()
    except (InputError, FailedError, StoppedError) as fault:
        print(f"moe: {fault}", file=sys.stderr)
        sys.exit(fault.exit_code)
