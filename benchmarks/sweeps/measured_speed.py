"""What runs will take, scaled from runs that were measured."""

import math
from collections.abc import Sequence
from pathlib import Path

from benchmarks.errors import BenchmarkError
from benchmarks.footprint.footprint import price, with_assumptions
from benchmarks.sweeps.folder import SWEEP_FILE
from benchmarks.sweeps.point import flops_per_token
from benchmarks.sweeps.speed import RunCost
from moe.config.experiment import Experiment
from moe.runs.progress import read_status
from moe.runs.reader import read_run
from moe.runs.run import Run


class MeasuredSpeed:
    """Takes a point to compute at the FLOP/s, and with the joules a FLOP, of the nearest run."""

    def __init__(self, paths: Sequence[Path]) -> None:
        """Read run directories, or the finished runs in a sweep's.

        Raises:
            ConfigError: One cannot be read.
            BenchmarkError: None has a speed.
        """
        folders = [inner for path in paths for inner in _run_folders(path)]
        self._runs = [run for run in map(read_run, folders) if run.tokens_per_s and run.tokens]
        if not self._runs:
            raise BenchmarkError(f"--measured {paths[0]}: no run with a measured speed")
        names = f"{len(self._runs)} runs" if len(self._runs) > 1 else str(self._runs[0].path)
        self.source = f"FLOP/s and joules a FLOP of {names}, the nearest in FLOPs a token"
        meters = {run.energy("total", "J").boundary for run in self._runs} - {None}
        if meters:
            self.source += f"; joules of {' or '.join(sorted(map(str, meters)))}"

    def cost(self, experiment: Experiment) -> RunCost:
        """Return what the nearest run says."""
        each = flops_per_token(experiment)
        run = min(self._runs, key=lambda run: abs(math.log(run.flops_per_trained_token / each)))
        train = experiment.train
        own = run.training_flops(run.counts)
        share = each * train.steps * train.positions_per_step / own
        seconds = run.tokens / (run.tokens_per_s or math.inf)
        joules = run.energy("total", "J").value
        money = price(_with_prices(run, experiment)).value
        return RunCost(
            seconds=share * seconds,
            joules=None if joules is None else share * joules,
            money=None if money is None else share * money,
            reason=_missing(run, joules, money),
        )


def _missing(run: Run, joules: float | None, money: float | None) -> str | None:
    """Return why joules or money are not known."""
    if joules is None:
        return f"joules: {run.path} had no meter"
    return "money: the base states no energy.price_per_..." if money is None else None


def _run_folders(path: Path) -> list[Path]:
    runs = path / "runs"
    if (path / SWEEP_FILE).is_file() and runs.is_dir():
        return sorted(one for one in runs.iterdir() if read_status(one) == "finished")
    return [path]


def _with_prices(run: Run, experiment: Experiment) -> Run:
    """Return a run at the prices of an experiment."""
    prices = ("price_per_device_hour", "price_per_kwh", "currency", "pue")
    return with_assumptions(run, {name: getattr(experiment.energy, name) for name in prices})
