"""A sweep's directory: its experiments and runs, held by one process, of one design.

sweep.json         the runs of the design, with their settings
experiments/       one TOML file a run
runs/              the run directories, as `moe slurm submit --runs-dir` names them too
logs/              what each run's process wrote
results.parquet    one row a run
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from errno import EISDIR
from pathlib import Path
from typing import Any

from benchmarks.errors import BenchmarkError
from benchmarks.laws.run_points import SWEEP_RESULTS
from benchmarks.sweeps.design import Design
from benchmarks.sweeps.point import Point
from data.storage.atomic import write_json, write_text
from data.storage.bounded_json import read_json
from data.storage.lock import FileLock, LocksUnsupportedError
from moe.config.experiment import load_experiment
from moe.runs.files import RECORD

FORMAT = "moescale sweep 1"
SWEEP_FILE = "sweep.json"
LOCK_FILE = ".lock"
SUBFOLDERS = ("experiments", "runs", "logs")


@dataclass(frozen=True)
class SweepFolder:
    """Where a sweep lies."""

    path: Path

    def experiment(self, point: Point) -> Path:
        """Return the experiment's file of a point."""
        return self.path / "experiments" / f"{point.run_name}.toml"

    def run_dir(self, point: Point) -> Path:
        """Return the run directory of a point."""
        return self.path / "runs" / point.run_name

    def log(self, point: Point) -> Path:
        """Return the file with what its process wrote."""
        return self.path / "logs" / f"{point.run_name}.log"

    @property
    def results(self) -> Path:
        """The table of all runs."""
        return self.path / SWEEP_RESULTS


@contextmanager
def open_folder(path: Path, design: Design, points: Sequence[Point]) -> Iterator[SweepFolder]:
    """Hold a sweep's directory while its experiments are written and run.

    Experiments of runs that have begun stay as they are.

    Raises:
        BenchmarkError: Another process holds it, it is no sweep's, or its design lost a run.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        strangers = [one.name for one in path.iterdir() if one.name != LOCK_FILE]
        if strangers and SWEEP_FILE not in strangers:
            raise BenchmarkError(f"{path}: holds other files and no {SWEEP_FILE}: choose another")
        lock = FileLock(path / LOCK_FILE, wait=False)
    except BlockingIOError:
        raise BenchmarkError(f"{path}: another moe sweep is at work there: let it finish") from None
    except LocksUnsupportedError as error:
        raise BenchmarkError(
            f"{path}: cannot be locked ({error.strerror}): choose another"
        ) from None
    except OSError as error:
        raise BenchmarkError(f"{path}: {error.strerror or error}: choose another") from None
    with lock:
        folder = SweepFolder(path)
        try:
            _prepare(folder, design, points)
        except OSError as error:
            where = error.filename or path
            raise BenchmarkError(
                f"{where}: {error.strerror or error}: remove it, or choose another directory"
            ) from None
        yield folder


def _prepare(folder: SweepFolder, design: Design, points: Sequence[Point]) -> None:
    """Make the directory's folders and files.

    Raises:
        BenchmarkError: It is of another design, or an experiment of a run that has begun changed.
        OSError: Something else stands where a file or a folder belongs.
    """
    path = folder.path
    _check_same(path / SWEEP_FILE, points)
    for name in SUBFOLDERS:
        (path / name).mkdir(exist_ok=True)
    for file in (folder.results, *(folder.log(point) for point in points)):
        if file.is_dir():
            raise IsADirectoryError(EISDIR, "is a folder, and a file belongs there", str(file))
    runs = {point.run_name: dict(point.settings) for point in points}
    write_json(path / SWEEP_FILE, {"format": FORMAT, "name": design.name, "runs": runs})
    for point in points:
        file = folder.experiment(point)
        # A run's name tells nothing of prices, job settings and tracking: they may be new.
        if not ((folder.run_dir(point) / RECORD).exists() and file.is_file()):
            write_text(file, point.experiment.to_toml())
        elif load_experiment(file).content_hash != point.experiment.content_hash:
            raise BenchmarkError(
                f"{file}: was changed, and its run has begun with what it said: remove it, and it"
                " is written again"
            )


def _check_same(file: Path, points: Sequence[Point]) -> None:
    """Refuse a design that no longer has a run which the directory has; new ones are welcome."""
    try:
        earlier: Any = read_json(file, BenchmarkError)
    except FileNotFoundError:
        return
    runs = earlier.get("runs") if isinstance(earlier, dict) else None
    if not isinstance(runs, dict) or earlier.get("format") != FORMAT:
        raise BenchmarkError(f"{file}: not of format {FORMAT!r}: choose another directory")
    lost = sorted(set(runs) - {point.run_name for point in points})
    if lost:
        settings = str(runs[lost[0]])[:100]
        raise BenchmarkError(
            f"{file.parent}: {len(lost)} of its {len(runs)} runs are not of this design any more"
            f" ({lost[0]}: {settings}): restore the design, or choose another directory"
        )
