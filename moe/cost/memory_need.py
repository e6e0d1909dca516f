"""Memory that a run will need: what is sure, to the byte, and what is modelled."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from moe.config.experiment import Experiment
from moe.cost.model_shape import batch_of, shape_of
from parallel.layout.placement import Placement
from parallel.planner.device_memory import device_memory
from parallel.planner.memory import stage_memory
from parallel.planner.software import OUR_STATE, OURS
from parallel.planner.state import rank_state
from parallel.planner.workload import Workload
from parallel.precision.recipes import Precision


@dataclass(frozen=True, kw_only=True)
class MemoryNeed:
    """Bytes that a rank, or several of one machine together, will hold."""

    sure: dict[str, int]
    """What is allocated whatever the batch is, by term."""
    modelled_bytes: int | None
    """All terms at their peak; None where that is not modelled."""

    @property
    def sure_bytes(self) -> int:
        """The sum of what is sure."""
        return sum(self.sure.values())


def workload_of(experiment: Experiment, placement: Placement) -> Workload:
    """Return a run as the planner takes it."""
    return Workload(
        shape=shape_of(experiment.model),
        placement=placement,
        batch=batch_of(experiment.train),
        precision=experiment.precision,
    )


def stage_needs(experiment: Experiment, placement: Placement, *, on_gpu: bool) -> list[MemoryNeed]:
    """Return what each rank of each pipeline stage needs; on a GPU with what is beside tensors."""
    work = workload_of(experiment, placement)
    return [
        _need(experiment, work, stage, on_gpu=on_gpu) for stage in range(experiment.parallel.pp)
    ]


def summed(needs: Iterable[MemoryNeed]) -> MemoryNeed:
    """Return what ranks need together."""
    needs = list(needs)
    modelled = [need.modelled_bytes for need in needs]
    return MemoryNeed(
        sure={name: sum(need.sure[name] for need in needs) for name in needs[0].sure},
        modelled_bytes=None if None in modelled else sum(each or 0 for each in modelled),
    )


def fullest(stages: Iterable[MemoryNeed]) -> MemoryNeed:
    """Return the most state of any stage and the highest peak of any, which may be two stages."""
    stages = list(stages)
    modelled = [need.modelled_bytes for need in stages]
    return MemoryNeed(
        sure=max(stages, key=lambda need: need.sure_bytes).sure,
        modelled_bytes=None if None in modelled else max(each or 0 for each in modelled),
    )


def learns_whole(experiment: Experiment) -> bool:
    """Return whether no parameter is frozen, as far as patterns tell without the model."""
    return "*" in experiment.train.trainable


def reference_bytes(experiment: Experiment, work: Workload, stage: int) -> int:
    """Return the weights of the frozen reference on each rank of a stage: mode dpo has one."""
    if experiment.train.mode != "dpo":
        return 0
    precision = Precision(kernels=work.precision.kernels, dtype=work.precision.dtype)
    # Outside the optimizer's buffers nothing is padded.
    layout = work.layout.model_copy(
        update={"distributed_optimizer": False, "overlap_param_gather": False}
    )
    alone = replace(work, precision=precision, placement=replace(work.placement, layout=layout))
    return rank_state(alone, stage, OUR_STATE, OURS).parameter_bytes


def _need(experiment: Experiment, work: Workload, stage: int, *, on_gpu: bool) -> MemoryNeed:
    memory = stage_memory(work, stage)
    reference = reference_bytes(experiment, work, stage)
    sure = {"parameters": memory.parameter_bytes}
    if reference:
        sure["the reference"] = reference
    if not learns_whole(experiment):
        # Frozen parameters have neither gradients nor states; how many are frozen is not known.
        return MemoryNeed(sure=sure, modelled_bytes=None)
    total = device_memory(work, memory).total_bytes if on_gpu else memory.total_bytes
    return MemoryNeed(
        sure=sure | {"gradients": memory.gradient_bytes, "optimizer": memory.optimizer_bytes},
        modelled_bytes=total + reference,
    )
