"""How many of a model's layers fit here: a large model is measured at full width, less deep."""

from collections.abc import Callable
from typing import Any

import torch

from benchmarks.bench.session import BenchSession, print_line
from benchmarks.errors import BenchmarkError
from moe.config.experiment import load_model
from moe.config.model import ModelConfig
from parallel.engine.collectives import all_gather_objects
from parallel.engine.start import Engine
from parallel.hardware.host_memory import host_memory

# Of free memory; the rest is for libraries, fragmentation and the error of the estimate.
USABLE_FRACTION = 0.8

MemoryEstimate = Callable[[ModelConfig], float]
"""Returns the estimated memory of one rank, bytes."""


def load_fitting_model(
    name: str,
    layers: int | None,
    session: BenchSession,
    estimate: MemoryEstimate,
    multiple: int = 1,
) -> tuple[ModelConfig, dict[str, Any]]:
    """Load a model, cut to `layers` layers or to as many as fit; prints what was cut.

    Every rank must call it.

    Returns:
        The model, and what its case is called: name, layers, and layers of the complete model.
    """
    full = load_model(name)
    model, note = fit_layers(
        name, full, layers, available_bytes(session.engine), estimate, multiple
    )
    if note is not None and session.engine.is_main:
        print_line(note)
    return model, {"model": name, "layers": model.num_layers, "of_layers": full.num_layers}


def available_bytes(engine: Engine) -> float:
    """Return the memory that each rank may use, bytes; the same on all ranks (a collective)."""
    if engine.device.type == "cuda":
        own = float(torch.cuda.mem_get_info(engine.device)[0])
    else:
        own = float(host_memory().free_bytes) / engine.world_size
    return USABLE_FRACTION * float(min(all_gather_objects(own)))


def cut_layers(model: ModelConfig, layers: int | None) -> ModelConfig:
    """Return the model with its first `layers` layers only; widths stay.

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
    """Return how many layers are enough to include a sparse one; 1 for a dense model."""
    return 1 + (list(model.sparse_layers).index(True) if any(model.sparse_layers) else 0)


def fit_layers(  # noqa: PLR0913 - a model, its limits, and how to estimate
    name: str,
    model: ModelConfig,
    layers: int | None,
    available: float,
    estimate: MemoryEstimate,
    multiple: int = 1,
) -> tuple[ModelConfig, str | None]:
    """Return the model, cut to `layers` or to what fits into `available` bytes, and a note on it.

    The number of layers that fit is rounded down to a multiple of `multiple` (pipeline stages).

    Raises:
        BenchmarkError: Not even the fewest layers fit.
    """
    if layers is not None or estimate(model) <= available:
        cut = cut_layers(model, layers)
        return cut, _cut_note(name, cut, model, None)
    fewest = -(-fewest_layers(model) // multiple) * multiple
    fitting = [n for n in range(fewest, model.num_layers, multiple)
               if estimate(cut_layers(model, n)) <= available]  # fmt: skip
    if not fitting:
        small = estimate(cut_layers(model, fewest))
        raise BenchmarkError(
            f"{name}: {fewest} of {model.num_layers} layers need {small / 1e9:.1f} GB, and"
            f" {available / 1e9:.1f} GB are to be had: take a smaller model, batch or sequence, or"
            " more ranks"
        )
    cut = cut_layers(model, fitting[-1])
    return cut, _cut_note(name, cut, model, (estimate(model), available))


def _cut_note(
    name: str, cut: ModelConfig, full: ModelConfig, needed_available: tuple[float, float] | None
) -> str | None:
    if cut.num_layers == full.num_layers:
        return None
    text = f"{name}: only the first {cut.num_layers} of {full.num_layers} layers are measured"
    if needed_available is None:
        return text
    needed, available = needed_available
    return (
        f"{text}: all would need {needed / 1e9:.1f} GB, and {available / 1e9:.1f} GB are to be had"
    )
