"""moescale: plan, train, measure and compare sparse Mixture-of-Experts language models.

The command line: mounts each room's commands without importing what only they need.
"""

import errno
import sys
from importlib import util
from pathlib import Path
from typing import Annotated

ROOMS = ("moe", "parallel", "data", "benchmarks", "slurm")
DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EACCES}
HERE = Path(__file__).resolve().parent


def guard_rooms(here: Path = HERE) -> None:
    """Refuse to run where another distribution's `data`, `moe`, ... would be imported.

    Raises:
        ImportError: Names the intruder and the remedy.
    """
    for room in ROOMS:
        spec = util.find_spec(room)
        origin = Path(spec.origin).resolve() if spec and spec.origin else None
        if origin != here / room / "__init__.py":
            raise ImportError(
                f"package {room!r} is taken from {origin or 'nowhere'} instead of {here / room}:"
                f" set PYTHONPATH={here}"
            )


guard_rooms()

import typer  # noqa: E402

from benchmarks.cli import mount as benchmarks_cli  # noqa: E402
from data.cli import commands as data_cli  # noqa: E402
from moe.cli import mount as moe_cli  # noqa: E402
from slurm import cli as slurm_cli  # noqa: E402

app = typer.Typer(
    name="moe",
    help="Plan, train, measure and compare sparse Mixture-of-Experts language models.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",  # rich's own markup would swallow [model] and [default: ...]
    context_settings={"help_option_names": ["-h", "--help"]},
)
for room_cli in (benchmarks_cli, moe_cli):
    room_cli.mount(app)
app.add_typer(data_cli.app, name="data")
app.add_typer(slurm_cli.app, name="slurm")


def _print_version(requested: bool) -> None:
    if requested:
        from importlib import metadata

        typer.echo(f"moescale {metadata.version('moescale')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Plan, train, measure and compare sparse Mixture-of-Experts language models."""


def main() -> None:
    """Run the command line; errors meant for users become one line and their exit code."""
    try:
        app()
    except Exception as error:
        code, text = getattr(error, "exit_code", None), str(error)
        if isinstance(error, OSError) and (error.filename or error.errno in DISK_ERRORS):
            code, text = 1, f"{error.filename or 'disk'}: {error.strerror}"
        if not isinstance(code, int):
            raise
        print(f"moe: {text}", file=sys.stderr)
        sys.exit(code)


if __name__ == "__main__":
    main()
