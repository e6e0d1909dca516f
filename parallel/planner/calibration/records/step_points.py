"""Measured over modelled seconds of bytes, from the optimizer's part of `moe bench step` records.

The optimizer only reads and writes: what nothing else here measures alone. The whole step is what a
plan predicts; one factor of it would hide which term is wrong, and hold for no other layout.
"""

from collections.abc import Mapping

from parallel.hardware.card import Card
from parallel.planner.calibration.records.bench_records import BenchRecord
from parallel.planner.calibration.records.bench_schema import StepCase, StepResult
from parallel.planner.calibration.records.unused import MOST_HOST, UnusedError
from parallel.planner.compute_time.memory_bound import STREAM, stream_seconds
from parallel.planner.step.data_parallel import UPDATE_BYTES
from parallel.planner.step.parameters import step_parameters, training_card


def step_ratios(card: Card, record: BenchRecord) -> Mapping[str, float]:
    """Return the ratio of the optimizer's seconds, less what the host takes.

    Raises:
        UnusedError: The step ran on several ranks, which share it, or the host decided.
    """
    case, result = record.read(StepCase, "case"), record.read(StepResult, "result")
    if record.hardware.ranks > 1:
        raise UnusedError("steps over several ranks")
    if case.precision.fp8_parameters:
        raise UnusedError("steps with parameters in FP8")
    parameters = step_parameters().on(card)
    host = parameters.step_seconds + parameters.layer_step_seconds * case.layers
    measured = result.split_s.optimizer
    if host > MOST_HOST * measured:
        raise UnusedError("steps so small that the host decides the optimizer's time")
    moved = UPDATE_BYTES * float(result.parameters.total_parameters)
    # Unlike kernels alone, it was measured inside a step.
    modelled = stream_seconds(training_card(card, parameters), moved)
    return {STREAM: (measured - host) / modelled}
