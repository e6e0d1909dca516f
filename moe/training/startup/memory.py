"""Whether a run fits in the memory of this machine, before it takes any."""

import os
import sys
from typing import Literal

from moe.config.experiment import Experiment
from moe.cost.memory_fit import refusal, warning
from moe.cost.memory_need import MemoryNeed, fullest, stage_needs, summed
from moe.errors import ConfigError
from parallel.hardware.host_memory import MemoryRoom, host_memory
from parallel.layout.placement import Placement
from parallel.planner.device_memory import CUDA_CONTEXT_BYTES

Starter = Literal["launcher", "rank"]
"""Who asks: what starts all ranks of this machine, or one of the ranks."""


def check_memory(experiment: Experiment, placement: Placement, starter: Starter) -> None:
    """Refuse a run whose state alone exceeds the memory here; rank 0 warns of what may not fit.

    Raises:
        ConfigError: It does not fit, and `parallel.memory_check` is "refuse".
    """
    from parallel.engine.start import choose_device

    on_gpu = choose_device(experiment.parallel.device) == "cuda"
    stages = stage_needs(experiment, placement, on_gpu=on_gpu)
    if on_gpu:
        place, room = _card(experiment, starter)
        need = fullest(stages)  # all ranks decide alike
    else:
        place, room = "this machine", host_memory()
        need = summed(_ranks_here(stages, placement, starter))
    fault = refusal(need, place, room.total_bytes)
    if fault and experiment.parallel.memory_check == "refuse":
        raise ConfigError(f'{fault}; parallel.memory_check = "warn" starts all the same')
    if starter == "rank" and os.environ.get("RANK", "0") == "0":
        doubt = fault or warning(need, place, room.total_bytes, room.free_bytes)
        if doubt:
            print(f"moe: warning: {doubt}", file=sys.stderr, flush=True)


def _card(experiment: Experiment, starter: Starter) -> tuple[str, MemoryRoom]:
    """Return the name and memory of this rank's GPU; a launcher's is the first, and untouched."""
    import torch

    from parallel.engine.start import card_of_rank, set_queues

    if starter == "launcher":
        properties = torch.cuda.get_device_properties(0)
        total = free = properties.total_memory
    else:
        card = card_of_rank(int(os.environ.get("LOCAL_RANK", "0")))
        properties = torch.cuda.get_device_properties(card)
        # Asking takes the card into use, for which the number of queues has to be set.
        set_queues(experiment.parallel)
        free, total = torch.cuda.mem_get_info(card)
        # This process's context is there by now, and the run's need counts it.
        free = min(total, free + CUDA_CONTEXT_BYTES)
    return properties.name, MemoryRoom(total_bytes=total, free_bytes=free)


def _ranks_here(
    stages: list[MemoryNeed], placement: Placement, starter: Starter
) -> list[MemoryNeed]:
    """Return the needs of all ranks of this machine, as far as the environment tells."""
    ranks = range(placement.num_ranks)
    if starter == "rank":
        rank, local = (int(os.environ.get(name, "0")) for name in ("RANK", "LOCAL_RANK"))
        # Only torchrun and our batch scripts say how many there are: this one is sure.
        count = os.environ.get("LOCAL_WORLD_SIZE")
        ranks = ranks[rank : rank + 1] if count is None else ranks[rank - local :][: int(count)]
    per_stage = placement.num_ranks // len(stages)
    return [stages[rank // per_stage] for rank in ranks]
