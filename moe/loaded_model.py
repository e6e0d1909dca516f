"""A trained model ready for use: read from a run's checkpoint, alone in this process."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from moe.checkpoint_weights import find_checkpoint, load_weights
from moe.config.experiment import Experiment, load_experiment
from moe.config.model import ModelConfig
from moe.errors import ConfigError
from moe.model import build_model
from parallel.engine import start_engine, stop_engine
from parallel.layout import Layout
from parallel.precision import Precision

DeviceChoice = Literal["auto", "cpu", "cuda"]


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """A model in evaluation mode, in one piece."""

    run: Path
    checkpoint: Path
    step: int
    """Optimizer steps behind the weights."""
    experiment: Experiment
    """The run's, as it was trained."""
    config: ModelConfig
    """The model as built here."""
    chunk: Any
    """megatron-core's GPTModel: tokens [B, S] to logits [B, S, V], or with labels to losses."""
    device: torch.device

    @property
    def dtype(self) -> str:
        """What the model computes in."""
        return str(next(self.chunk.parameters()).dtype).removeprefix("torch.")


@contextmanager
def loaded_model(
    run: Path, *, step: int | None = None, device: DeviceChoice = "auto", dropless: bool = False
) -> Iterator[LoadedModel]:
    """Build a run's model with the weights of its newest checkpoint (or that of `step`).

    Whatever layout, kernels and precision the run was trained with, the model is built in one
    piece from the torch kernel set: in FP32 on a CPU, in the run's number format on a GPU.
    Multi-token-prediction layers are left out. Starts the engine, and stops it on leaving.

    Args:
        run: Run directory.
        step: Step of the checkpoint. Default: the newest.
        device: Where to run.
        dropless: Ignore the expert capacity a model was trained with.

    Raises:
        ConfigError: Not a run directory, or no such or a damaged checkpoint.
    """
    experiment = load_run(run)
    checkpoint = find_checkpoint(run, step)
    config = _config_for_use(experiment.model, dropless=dropless)
    layout = Layout(device=device)
    engine = start_engine(layout, seed=experiment.train.seed)
    try:
        on_cpu = engine.device.type == "cpu"
        precision = Precision(dtype="fp32" if on_cpu else experiment.precision.dtype)
        chunk = build_model(config, layout, precision, seed=experiment.train.seed)[0]
        found = load_weights(checkpoint, [chunk])
        chunk.eval()
        yield LoadedModel(
            run=run,
            checkpoint=checkpoint,
            step=found,
            experiment=experiment,
            config=config,
            chunk=chunk,
            device=engine.device,
        )
    finally:
        stop_engine()


def load_run(run: Path) -> Experiment:
    """Return the experiment of a run directory.

    Raises:
        ConfigError: It is none.
    """
    file = run / "experiment.toml"
    if not file.is_file():
        raise ConfigError(
            f"{run}: not a run directory (no experiment.toml): give the directory that"
            " `moe train` printed"
        )
    return load_experiment(file)


def _config_for_use(model: ModelConfig, *, dropless: bool) -> ModelConfig:
    changes: dict[str, Any] = {"mtp_layers": 0}
    if dropless and model.moe is not None:
        changes["moe"] = model.moe.model_copy(update={"capacity_factor": None})
    return model.model_copy(update=changes)
