"""What ranks do under overlapped expert communication: the order of parts, and faults of it."""

from typing import Any

from moe.config.experiment import Experiment
from tests.support.layout_equivalence import Curve, started, train_curve

COMMUNICATING = ("moe_dispatch", "mlp", "moe_combine")


def parts_in_order(experiment: Experiment) -> list[str]:
    """Return the parts of layers' plans behind attention that a step runs, in order."""
    from megatron.core.pipeline_parallel.utils import ScheduleNode

    from moe.training.step import train_step

    order: list[str] = []
    for way in ("forward", "backward"):
        run = getattr(ScheduleNode, way)

        def recorded(node: Any, *args: Any, run: Any = run, way: str = way) -> Any:
            if node.name in COMMUNICATING:
                order.append(f"{node.name} {way}")
            return run(node, *args)

        setattr(ScheduleNode, way, recorded)
    with started(experiment) as trainer:
        train_step(trainer, 0)
    return order


def without_padding_for_routers(experiment: Experiment) -> Curve:
    """Train where a plan's parts tell routers of no padding, as megatron-core's do not."""
    from moe.model import schedule_plan

    schedule_plan._with_padding = lambda part, _router, node, *inputs: part(node, *inputs)
    return train_curve(experiment)
