"""What a job's GPUs may not hold, said when it is submitted: ranks would refuse it much later."""

from collections.abc import Iterator, Sequence

from moe.config.experiment import Experiment
from moe.config.slurm import SlurmConfig
from moe.cost.memory_fit import refusal, warning
from moe.cost.memory_need import fullest, stage_needs
from parallel.hardware.card import find_card
from parallel.layout.placement import place


def memory_warnings(experiments: Sequence[Experiment], config: SlurmConfig) -> Iterator[str]:
    """Yield a line for each experiment that may not fit in `slurm.gpu_type`, if that is known.

    Their layouts fit the job's ranks (`possible_node_counts`).
    """
    card = find_card(config.gpu_type or "")
    if card is None or not config.gpus_per_node:
        return
    num_ranks = config.nodes * config.num_processes_per_node
    for one in experiments:
        if one.parallel.device == "cpu":
            continue
        need = fullest(stage_needs(one, place(one.parallel, num_ranks), on_gpu=True))
        most = card.memory_bytes
        line = refusal(need, card.name, most) or warning(need, card.name, most, most)
        if line:
            yield f"{one.name}: {line}"
