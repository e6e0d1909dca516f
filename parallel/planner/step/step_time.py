"""Seconds of one optimizer step of a job, by term."""

from dataclasses import dataclass

from parallel.layout.validation import num_micro_batches
from parallel.planner.rank_parameters import rank_parameters
from parallel.planner.step.clock import Clock
from parallel.planner.step.data_parallel import step_ends
from parallel.planner.step.ends import embedding, head
from parallel.planner.step.layer import layer_seconds
from parallel.planner.step.seconds import PassSeconds
from parallel.planner.workload import Workload


@dataclass(frozen=True)
class StepTime:
    seconds: float
    terms: dict[str, float]


def step_time(clock: Clock, work: Workload) -> StepTime:
    shape, layout = work.shape, work.layout
    kinds = {
        key: layer_seconds(clock, work, sparse=key[0], window=key[1])
        for key in set(zip(shape.sparse_layers, shape.windows, strict=True))
    }
    keys = list(zip(shape.sparse_layers, shape.windows, strict=True))
    stages = []
    for stage, chunks in enumerate(layout.chunk_layers(shape.num_layers)):
        total = PassSeconds()
        for chunk in chunks:
            for layer in chunk:
                total.add_all(kinds[keys[layer]])
        if stage == 0:
            total.add_all(embedding(clock, work))
        if stage == layout.pp - 1:
            total.add_all(head(clock, work), 1 + shape.mtp_layers)
            total.add_all(kinds[keys[-1]], shape.mtp_layers)
        stages.append(total)
    m = num_micro_batches(work.placement, work.batch)
    busy = [s.forward_seconds + s.backward_seconds for s in stages]
    slow = max(range(len(stages)), key=lambda i: busy[i])
    mean = sum(busy) / len(busy)
    bubble = (layout.pp - 1) / layout.vpp * mean
    p2p = 0.0
    if layout.pp > 1:
        send = clock.send(work)
        p2p = 2 * send * layout.vpp * m * (0.3 if layout.vpp > 1 else 1.0)
    pars = rank_parameters(shape, layout, work.precision, slow)
    ends = step_ends(clock, work, pars, hidden_behind=stages[slow].backward_seconds)
    terms = {k: v * m for k, v in stages[slow].by_term().items()}
    terms |= {"bubble": bubble, "p2p": p2p, "gradients": ends.gradients, "weights": ends.weights, "optimizer": ends.optimizer}
    return StepTime(sum(terms.values()), terms)
