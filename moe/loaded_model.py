"""A trained model ready for use: of a run or converted, alone in this process."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from data.config import DataConfig
from moe.checkpoint_store import find_checkpoint
from moe.checkpoint_weights import load_weights
from moe.config.experiment import load_experiment, load_model, model_file
from moe.config.model import ModelConfig
from moe.errors import ConfigError
from moe.model import build_model
from parallel.engine import start_engine, stop_engine
from parallel.layout import Layout
from parallel.precision import Precision

DeviceChoice = Literal["auto", "cpu", "cuda"]
CONVERTED_SEQ_LEN = 4096
"""Longest sequence a converted model is evaluated with, tokens."""


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """A model in evaluation mode, in one piece."""

    run: Path
    """The run's directory, or the checkpoint's."""
    checkpoint: Path
    step: int
    """Optimizer steps behind the weights."""
    config: ModelConfig
    """The model as built here."""
    data: DataConfig
    """What it was trained on; no store where it was converted."""
    seq_len: int
    """Tokens of a sequence it was trained with, or is made for."""
    micro_batch_size: int
    """Sequences of one forward pass."""
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
    """Build the model of a run with the weights of its newest checkpoint (or that of `step`).

    Whatever layout, kernels and precision the run was trained with, the model is built in one
    piece from the torch kernel set: in FP32 on a CPU, in the run's number format on a GPU.
    Multi-token-prediction layers are left out. Starts the engine, and stops it on leaving.

    Args:
        run: Run directory, a checkpoint in one, or what `moe convert` made.
        step: Step of the checkpoint. Default: the newest.
        device: Where to run.
        dropless: Ignore the expert capacity a model was trained with.

    Raises:
        ConfigError: Neither of these, or no such or a damaged checkpoint.
    """
    trained = _read(run)
    checkpoint = find_checkpoint(run, step)
    config = _config_for_use(trained.model, dropless=dropless)
    layout = Layout(device=device)
    engine = start_engine(layout, seed=0)
    try:
        on_cpu = engine.device.type == "cpu"
        precision = Precision(dtype="fp32" if on_cpu else trained.dtype)
        chunk = build_model(config, layout, precision, seed=0)[0]
        found = load_weights(checkpoint, [chunk])
        chunk.eval()
        yield LoadedModel(
            run=run,
            checkpoint=checkpoint,
            step=found,
            config=config,
            data=trained.data,
            seq_len=trained.seq_len,
            micro_batch_size=trained.micro_batch_size,
            chunk=chunk,
            device=engine.device,
        )
    finally:
        stop_engine()


@dataclass(frozen=True, kw_only=True)
class _Trained:
    """What is known of how a model came about."""

    model: ModelConfig
    data: DataConfig
    seq_len: int
    micro_batch_size: int
    dtype: Literal["fp32", "bf16"]


def _read(place: Path) -> _Trained:
    file = model_file(place)
    if file is None:
        raise ConfigError(
            f"{place}: not a run directory or a checkpoint (no experiment.toml, no model.toml):"
            " give the directory that `moe train` or `moe convert` printed"
        )
    if file.name == "model.toml":
        model = load_model(str(file))
        length = min(model.max_seq_len, CONVERTED_SEQ_LEN)
        return _Trained(
            model=model, data=DataConfig(), seq_len=length, micro_batch_size=1, dtype="bf16"
        )
    experiment = load_experiment(file)
    return _Trained(
        model=experiment.model,
        data=experiment.data,
        seq_len=experiment.train.seq_len,
        micro_batch_size=experiment.train.micro_batch_size,
        dtype=experiment.precision.dtype,
    )


def _config_for_use(model: ModelConfig, *, dropless: bool) -> ModelConfig:
    changes: dict[str, Any] = {"mtp_layers": 0}
    if dropless and model.moe is not None:
        changes["moe"] = model.moe.model_copy(update={"capacity_factor": None})
    return model.model_copy(update=changes)
