"""Weights & Biases and MLflow beside TensorBoard, offline, for those who install them."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.errors import BenchmarkError
from data.dotted_keys import flatten
from moe.config.experiment import Experiment
from moe.runs.callbacks import Logger

FLUSH_S = 10.0
FLUSH_METRICS = 500
_MODULES = {"wandb": ("wandb",), "mlflow": ("mlflow", "sqlalchemy", "alembic")}


def open_loggers(experiment: Experiment) -> list[Logger]:
    """Return the loggers that `[track]` names; they begin when training does.

    Raises:
        BenchmarkError: One is not installed; names its extra.
    """
    makers: dict[str, Callable[[Experiment], Logger]] = {
        "wandb": WandbLogger,
        "mlflow": MlflowLogger,
    }
    for name in experiment.track.use:
        missing = [module for module in _MODULES[name] if find_spec(module) is None]
        if missing:
            raise BenchmarkError(
                f"track.use names {name}: {', '.join(missing)} is not installed: pip install"
                f" 'moescale[{name}]'"
            )
    return [makers[name](experiment) for name in dict.fromkeys(experiment.track.use)]


class WandbLogger:
    """Weights & Biases in offline mode, under `RUN/wandb`; all starts of a run have one id."""

    def __init__(self, experiment: Experiment) -> None:
        """Track `experiment`."""
        self._experiment = experiment

    def begin(self, run_dir: Path, record: Mapping[str, Any], step: int) -> None:
        """Open the run."""
        import wandb

        self._module = wandb
        self._run: Any = wandb.init(
            mode="offline",
            project=self._experiment.track.project,
            id=str(record["run_id"]),
            name=str(record["run_id"]),
            dir=str(run_dir),
            config=self._experiment.model_dump(mode="json"),
            settings=wandb.Settings(console="off", silent=True),
        )

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Log numbers; those of one step share a row."""
        self._run.log(dict(values), step=step)

    def expert_load(self, step: int, layer: int, tokens: Sequence[float]) -> None:
        """Log a layer's load as a histogram with a bin for each expert."""
        edges = list(range(len(tokens) + 1))
        histogram = self._module.Histogram(np_histogram=(list(tokens), edges))
        self._run.log({f"expert_load/layer_{layer}": histogram}, step=step)

    def end(self, record: Mapping[str, Any]) -> None:
        """Write the final figures to the summary and close."""
        self._run.summary.update(final_figures(record))
        self._run.finish(exit_code=0 if record.get("status") == "finished" else 1)


class MlflowLogger:
    """MLflow in `RUN/mlflow.db` (SQLite); a resumed run goes on in the same MLflow run."""

    def __init__(self, experiment: Experiment) -> None:
        """Track `experiment`."""
        self._experiment = experiment
        self._waiting: list[Any] = []

    def begin(self, run_dir: Path, record: Mapping[str, Any], step: int) -> None:
        """Open or create the run; numbers after `step` will be logged again, as later ones."""
        from mlflow import MlflowClient
        from mlflow.entities import Metric, Param

        self._metric = Metric
        for chatty in ("mlflow", "alembic"):
            logging.getLogger(chatty).setLevel(logging.WARNING)
        self._client = MlflowClient(f"sqlite:///{(run_dir / 'mlflow.db').resolve()}")
        project = self._experiment.track.project
        experiment = self._client.get_experiment_by_name(project)
        artifacts = (run_dir / "mlflow").resolve().as_uri()
        number = experiment.experiment_id if experiment else self._client.create_experiment(
            project, artifact_location=artifacts
        )  # fmt: skip
        runs = self._client.search_runs([number], max_results=1)
        if runs:
            self._id = runs[0].info.run_id
            self._client.update_run(self._id, status="RUNNING")
        else:
            self._id = self._client.create_run(number, run_name=str(record["run_id"])).info.run_id
            flat = flatten(self._experiment.model_dump(mode="json", exclude_none=True))
            parameters = [Param(key, str(value)) for key, value in flat.items()]
            self._client.log_batch(self._id, params=parameters)
        self._flushed_s = time.monotonic()

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Queue numbers; they are written in batches."""
        now_ms = int(time.time() * 1000)
        self._waiting += [self._metric(k, float(v), now_ms, step) for k, v in values.items()]
        is_late = time.monotonic() - self._flushed_s > FLUSH_S
        if is_late or len(self._waiting) > FLUSH_METRICS:
            self._flush()

    def expert_load(self, step: int, layer: int, tokens: Sequence[float]) -> None:
        """Ignore the load of single experts: MLflow has no histograms."""

    def end(self, record: Mapping[str, Any]) -> None:
        """Write queued numbers and the final figures, and close."""
        self.scalars(int(record.get("steps") or 0), final_figures(record))
        self._flush()
        status = "FINISHED" if record.get("status") == "finished" else "KILLED"
        self._client.set_terminated(self._id, status=status)

    def _flush(self) -> None:
        for start in range(0, len(self._waiting), FLUSH_METRICS):
            batch = self._waiting[start : start + FLUSH_METRICS]
            self._client.log_batch(self._id, metrics=batch)
        self._waiting.clear()
        self._flushed_s = time.monotonic()


def final_figures(record: Mapping[str, Any]) -> dict[str, float]:
    """Return the record's headline numbers under `final/`; what is unknown is left out."""
    energy = record.get("energy") or {}
    values = {
        "loss": record.get("final_loss"),
        "tokens": record.get("tokens"),
        "tokens_per_s": record.get("tokens_per_s"),
        "mfu": record.get("mfu"),
        "energy_joules": (energy.get("total") or {}).get("value"),
        "energy_joules_per_token": (energy.get("per_token") or {}).get("value"),
    }
    return {f"final/{name}": float(v) for name, v in values.items() if v is not None}
