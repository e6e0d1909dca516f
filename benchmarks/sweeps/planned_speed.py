"""What runs will take on some cards, by the planner."""

from benchmarks.planning.budget import RunRequest, run_plan
from benchmarks.planning.job import JobOptions, experiment_job
from benchmarks.planning.planner import Planner
from benchmarks.sweeps.speed import RunCost
from data.errors import FailedError, InputError
from moe.config.experiment import Experiment, make_experiment
from parallel.errors import ParallelError


class PlannedSpeed:
    """Plans the fastest layout of each model on some cards."""

    def __init__(self, gpu: str, gpus: int) -> None:
        """Take a card's name, or its file, and how many of them."""
        self._options = JobOptions(gpu=gpu, gpus=gpus)
        self.source = (
            f"planned: fastest layouts on {gpus} x {gpu}, modelled; joules of nodes and switches"
        )
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
        # What it leaves open (overlap, for example) a plan may choose: only what is said.
        said = experiment.model_dump(mode="json", exclude_unset=True, exclude_none=True)
        job = experiment_job(make_experiment(said, experiment.name), self._options)
        try:
            best = Planner(job).search(1).best[0]
            tokens = experiment.train.positions_per_step
            plan = run_plan(RunRequest(target_tokens=tokens), best, job.energy, None)
        except (ParallelError, InputError, FailedError) as error:
            return RunCost(reason=str(error))
        known = {name: each.value for name, each in plan.quantities.items() if each is not None}
        facility = known.get("joules")
        missing = " and ".join(name for name in ("joules", "money") if name not in known)
        return RunCost(
            seconds=known.get("seconds"),
            joules=None if facility is None else facility / job.site.pue.value,
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
    data = experiment.data.model_copy(update={"seed": 0})
    return experiment.model_copy(update={"train": train, "data": data})
