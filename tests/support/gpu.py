"""What the tests marked `gpu` compute, on a card or, rehearsed, on a CPU."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from moe.config.experiment import Experiment
from tests.support.layout_equivalence import FullTensors, assemble, first_gradients, started

VARIABLE = "MOESCALE_TEST_DEVICE"
"""`cpu` or `cuda`, as `make gpu` sets it; without it, a card where torch finds one."""


def device_under_test() -> Literal["cpu", "cuda"]:
    """Return the device under test; the reference is always the CPU, in FP32."""
    import torch

    given = os.environ.get(VARIABLE) or ("cuda" if torch.cuda.is_available() else "cpu")
    assert given in ("cpu", "cuda"), f"{VARIABLE}={given}: cpu or cuda"
    return given  # type: ignore[return-value]


@dataclass(frozen=True)
class Computed:
    """What one device computes from the same weights and batches."""

    device: str
    """Where the parameters were."""
    logits: NDArray[np.float32]
    """Of the first batch, before any step."""
    gradients: FullTensors
    """Of the first step."""
    losses: list[float]
    """Of every step of training."""


def compute_all(experiments: Mapping[str, Experiment]) -> dict[str, Computed]:
    """Compute all experiments, one after another, as the only rank of one process."""
    return {name: _compute(experiment) for name, experiment in experiments.items()}


def _compute(experiment: Experiment) -> Computed:
    """Compute one experiment; it needs `distributed_optimizer = false`."""
    import torch

    from moe.training.step import train_step

    gradients = assemble([first_gradients(experiment)])
    with started(experiment) as trainer:
        module = trainer.chunks[0].module
        batch = trainer.loader.step(0)[0]
        place = next(module.parameters()).device
        with torch.no_grad():
            module.eval()
            logits = module(batch.tokens.to(place), batch.position_ids.to(place), None)
            module.train()
        losses = [train_step(trainer, step).loss for step in range(experiment.train.steps)]
    return Computed(place.type, logits.float().cpu().numpy(), gradients, losses)
