"""How many of a model's layers fit here: a benchmark of a large model keeps its widths, says so."""

from collections.abc import Callable

import psutil
import torch

from benchmarks.errors import BenchmarkError
from moe.config.model import ModelConfig
from parallel.engine.collectives import all_gather_objects
from parallel.engine.start import Engine

# Of what is free; the rest is for libraries, fragmentation and the error of the estimate.
USABLE_SHARE = 0.8

Bytes = Callable[[ModelConfig], float]
"""Estimated memory of one rank, in bytes."""


def free_bytes(engine: Engine) -> float:
    """Return the memory that each rank may take, bytes; a collective call, for all must agree."""
    if engine.device.type == "cuda":
        own = float(torch.cuda.mem_get_info(engine.device)[0])
    else:
        own = float(psutil.virtual_memory().available) / engine.world_size
    return USABLE_SHARE * float(min(all_gather_objects(own)))


def cut_layers(model: ModelConfig, layers: int | None) -> ModelConfig:
    """Return the model with its first `layers` layers: all widths stay, the depth does not.

    Raises:
        BenchmarkError: A sparse model would be left without a sparse layer.
    """
    if layers is None or layers >= model.num_layers:
        return model
    if layers < fewest_layers(model):
        raise BenchmarkError(
            f"--layers {layers}: this model's first sparse layer is number {fewest_layers(model)}"
        )
    values = model.model_dump(exclude_none=True)
    return ModelConfig.model_validate({**values, "num_layers": layers})


def fewest_layers(model: ModelConfig) -> int:
    """Return the fewest first layers that show what the model is: one sparse one, if any."""
    return 1 + (list(model.sparse_layers).index(True) if any(model.sparse_layers) else 0)


def fitted(
    name: str,
    model: ModelConfig,
    layers: int | None,
    available: float,
    needed: Bytes,
    step: int = 1,
) -> tuple[ModelConfig, str | None]:
    """Return the model, cut to `layers` or to what fits into `available` bytes, and a word on it.

    `step` is what the number of layers must be a multiple of (pipeline stages).

    Raises:
        BenchmarkError: Not even the fewest layers fit.
    """
    if layers is not None or needed(model) <= available:
        cut = cut_layers(model, layers)
        return cut, _word(name, cut, model, None)
    fewest = -(-fewest_layers(model) // step) * step
    fitting = [n for n in range(fewest, model.num_layers, step)
               if needed(cut_layers(model, n)) <= available]  # fmt: skip
    if not fitting:
        small = needed(cut_layers(model, fewest))
        raise BenchmarkError(
            f"{name}: {fewest} of {model.num_layers} layers need {small / 1e9:.1f} GB, and"
            f" {available / 1e9:.1f} GB are to be had: take a smaller model, batch or sequence, or"
            " more ranks"
        )
    cut = cut_layers(model, fitting[-1])
    return cut, _word(name, cut, model, (needed(model), available))


def _word(
    name: str, cut: ModelConfig, whole: ModelConfig, why: tuple[float, float] | None
) -> str | None:
    if cut.num_layers == whole.num_layers:
        return None
    text = f"{name}: only the first {cut.num_layers} of {whole.num_layers} layers are measured"
    if why is None:
        return text
    return f"{text}: all would need {why[0] / 1e9:.1f} GB, and {why[1] / 1e9:.1f} GB are to be had"
