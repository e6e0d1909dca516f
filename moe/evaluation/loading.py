"""Load a trained model for use: a run's or a converted one, without parallelism."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from data.config import DataConfig
from moe.checkpoint.directory import find_checkpoint, read_state, use_checkpoint
from moe.checkpoint.weights import load_weights
from moe.config.experiment import load_experiment, load_model
from moe.config.locating import MODEL_FILE, model_file
from moe.config.model import ModelConfig
from moe.errors import ConfigError
from moe.model.build import build_model
from moe.model.fp8.emulation import emulate_fp8
from parallel.engine.start import start_engine, stop_engine
from parallel.layout.layout import Layout
from parallel.precision.recipes import Precision

DeviceChoice = Literal["auto", "cpu", "cuda"]
CONVERTED_SEQ_LEN = 4096
"""Longest sequence a converted model is evaluated with, tokens."""


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """A model in evaluation mode, whole in this process."""

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
    precision: Precision
    """What it computes with here."""
    trained_precision: Precision

    @property
    def dtype(self) -> str:
        """What the model computes in."""
        return str(next(self.chunk.parameters()).dtype).removeprefix("torch.")

    def numerics(self) -> dict[str, str | None]:
        """Return number format and FP8 scaling (None: no FP8) of what is computed, for records."""
        return {
            "dtype": self.dtype,
            "fp8": self.precision.scaling,
            "trained_fp8": self.trained_precision.scaling,
        }


@contextmanager
def loaded_model(
    run: Path,
    *,
    step: int | None = None,
    device: DeviceChoice = "auto",
    batch_invariant: bool = False,
) -> Iterator[LoadedModel]:
    """Build the model of a run with the weights of its newest checkpoint (or that of `step`).

    Whatever layout and kernels the run was trained with, the model is built whole in this process
    from the torch kernel set: in FP32 on a CPU, in the run's number format on a GPU. Emulated FP8
    is emulated here too; that of Transformer Engine is left out, as are multi-token-prediction
    layers. Starts the engine, and stops it on leaving.

    Args:
        run: Run directory, a checkpoint in one, or what `moe convert` made.
        step: Step of the checkpoint. Default: the newest.
        device: Where to run.
        batch_invariant: Leave out what makes a sequence depend on others in its batch: the expert
            capacity a model was trained with, and FP8, whose scales look at all of them.

    Raises:
        ConfigError: Neither of these, or no such or a damaged checkpoint.
    """
    trained = _read(run)
    find_checkpoint(run, step)  # refuses before anything is built
    config = _config_for_use(trained.model, dropless=batch_invariant)
    layout = Layout(device=device)
    engine = start_engine(layout, seed=0)
    try:
        on_cpu = engine.device.type == "cpu"
        dtype: Literal["fp32", "bf16"] = "fp32" if on_cpu else trained.precision.dtype
        precision = _precision_for_use(trained.precision, dtype, with_fp8=not batch_invariant)
        chunk = build_model(config, layout, precision, seed=0)[0]
        checkpoint, state = use_checkpoint(run, step, lambda checkpoint: _loaded(checkpoint, chunk))
        if precision.fp8 == "emulated":
            emulate_fp8([chunk], precision).load(state.get("fp8") or [])
        chunk.eval()
        yield LoadedModel(
            run=run,
            checkpoint=checkpoint,
            step=int(state["step"]),
            config=config,
            data=trained.data,
            seq_len=trained.seq_len,
            micro_batch_size=trained.micro_batch_size,
            chunk=chunk,
            device=engine.device,
            precision=precision,
            trained_precision=trained.precision,
        )
    finally:
        stop_engine()


def _loaded(checkpoint: Path, chunk: Any) -> tuple[Path, dict[str, Any]]:
    load_weights(checkpoint, [chunk])
    return checkpoint, read_state(checkpoint)


@dataclass(frozen=True, kw_only=True)
class _Trained:
    """How a model was trained, or that it was converted."""

    model: ModelConfig
    data: DataConfig
    seq_len: int
    micro_batch_size: int
    precision: Precision


def _read(path: Path) -> _Trained:
    file = model_file(path)
    if file is None:
        raise ConfigError(
            f"{path}: not a run directory or a checkpoint (no experiment.toml, no model.toml):"
            " give the directory that `moe train` or `moe convert` printed"
        )
    if file.name == MODEL_FILE:
        model = load_model(str(file), follow_link=False)
        length = min(model.max_seq_len, CONVERTED_SEQ_LEN)
        return _Trained(
            model=model,
            data=DataConfig(),
            seq_len=length,
            micro_batch_size=1,
            precision=Precision(dtype="bf16"),
        )
    experiment = load_experiment(file, follow_link=False)
    return _Trained(
        model=experiment.model,
        data=experiment.data,
        seq_len=experiment.train.seq_len,
        micro_batch_size=experiment.train.micro_batch_size,
        precision=experiment.precision,
    )


def _config_for_use(model: ModelConfig, *, dropless: bool) -> ModelConfig:
    changes: dict[str, Any] = {"mtp_layers": 0}
    if dropless and model.moe is not None:
        changes["moe"] = model.moe.model_copy(update={"capacity_factor": None})
    return model.model_copy(update=changes)


def _precision_for_use(
    trained: Precision, dtype: Literal["fp32", "bf16"], *, with_fp8: bool
) -> Precision:
    if with_fp8 and trained.fp8 == "emulated":
        return trained.model_copy(update={"dtype": dtype})
    return Precision(dtype=dtype)
