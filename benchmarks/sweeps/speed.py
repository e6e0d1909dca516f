"""What a run will take before it runs: scaled from measured runs, or planned for a card."""

import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import tomli_w

from benchmarks.errors import BenchmarkError
from benchmarks.footprint.footprint import price, with_assumptions
from benchmarks.planning.budget import RunRequest, run_plan
from benchmarks.planning.job import JobOptions, read_job
from benchmarks.planning.planner import Planner
from benchmarks.sweeps.folder import SWEEP_FILE
from benchmarks.sweeps.point import flops_per_token
from data.errors import FailedError, InputError
from data.storage.atomic import write_text
from moe.config.experiment import Experiment
from moe.runs.progress import read_status
from moe.runs.reader import read_run
from moe.runs.run import Run
from parallel.errors import ParallelError


@dataclass(frozen=True, kw_only=True)
class RunCost:
    """What one run takes; None is not known, and `reason` says why."""

    seconds: float | None = None
    """Of training; starting a process and evaluating are not counted."""
    joules: float | None = None
    money: float | None = None
    reason: str | None = None


class Speed(Protocol):
    """Tells what runs take."""

    @property
    def source(self) -> str | None:
        """Where the numbers come from; None: they are unknown."""

    def cost(self, experiment: Experiment) -> RunCost:
        """Return what an experiment takes for its steps."""


class UnknownSpeed:
    """Nothing was measured and no card is named."""

    source: str | None = None

    def cost(self, experiment: Experiment) -> RunCost:
        """Return nothing but the reason."""
        return RunCost(reason="no speed: give --measured RUN, or --gpu and --gpus to plan it")


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


class PlannedSpeed:
    """Plans the fastest layout of each model on some cards."""

    def __init__(self, gpu: str, gpus: int) -> None:
        """Take a card's name, or its file, and how many of them."""
        self._options = JobOptions(gpu=gpu, gpus=gpus)
        self.source = f"planned: fastest layouts on {gpus} x {gpu}, modelled"
        self._known: dict[str, RunCost] = {}

    def cost(self, experiment: Experiment) -> RunCost:
        """Return the costs of the planned layout; None and the reason where there is none.

        Raises:
            InputError: There is no such card.
        """
        train = experiment.train
        tokens = train.steps * train.positions_per_step
        one_step = _of_one_step(experiment)
        key = one_step.to_toml()
        if key not in self._known:
            self._known[key] = self._planned(one_step)
        share = tokens / train.positions_per_step
        known = self._known[key]
        values = (known.seconds, known.joules, known.money)
        seconds, joules, money = (None if each is None else share * each for each in values)
        return RunCost(seconds=seconds, joules=joules, money=money, reason=known.reason)

    def _planned(self, experiment: Experiment) -> RunCost:
        """Return the costs of one step."""
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "experiment.toml"
            # What it leaves open (overlap, for example) a plan may choose: only what is said.
            said = experiment.model_dump(mode="json", exclude_unset=True, exclude_none=True)
            write_text(file, tomli_w.dumps(said))
            job = read_job(str(file), self._options)
        try:
            best = Planner(job).search(1).best[0]
            tokens = experiment.train.positions_per_step
            plan = run_plan(RunRequest(target_tokens=tokens), best, job.energy, None)
        except (ParallelError, InputError, FailedError) as error:
            return RunCost(reason=str(error))
        known = {name: each.value for name, each in plan.quantities.items() if each is not None}
        missing = " and ".join(name for name in ("joules", "money") if name not in known)
        return RunCost(
            seconds=known.get("seconds"),
            joules=known.get("joules"),
            money=known.get("money"),
            reason=f"{missing}: no power of the card or no price is stated" if missing else None,
        )


def _of_one_step(experiment: Experiment) -> Experiment:
    """Return an experiment without what does not change the seconds of a step."""
    same = {
        "steps": 1, "seed": 0, "learning_rate": 1.0, "min_learning_rate": 0.0, "warmup_steps": 0,
        "schedule": "constant", "decay_steps": None,
    }  # fmt: skip
    train = experiment.train.model_copy(update=same)
    data = type(experiment.data)()
    return experiment.model_copy(update={"train": train, "data": data})
