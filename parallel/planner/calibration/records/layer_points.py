"""Measured over modelled seconds of routed experts, from records of `moe bench layer`.

The record has the whole layer. Router and shared experts are taken as modelled, as is what the host
loses between products in a loop; the rest of the time is the experts'.
"""

from collections.abc import Mapping
from functools import cache

from parallel.hardware.card import Card
from parallel.layout.layout import Layout
from parallel.layout.model_shape import BatchSize, ModelShape, Weights
from parallel.layout.placement import place
from parallel.planner.calibration.records.bench_records import BenchRecord
from parallel.planner.calibration.records.bench_schema import LayerCase, LayerResult
from parallel.planner.calibration.records.unused import MOST_HOST, UnusedError
from parallel.planner.compute_time.expert_block import expert_kind
from parallel.planner.execution import Execution
from parallel.planner.step.clock import Clock
from parallel.planner.step.feed_forward_block import sparse_block
from parallel.planner.step.host import both_passes, forward_kernels
from parallel.planner.step.parameters import StepParameters, step_parameters
from parallel.planner.step.seconds import TermSeconds
from parallel.planner.workload import Workload

SIZES = ("tp", "cp", "pp", "ep", "etp")
_ALONE = Execution(cuda_graphs=("attn",))
"""A layer without attention has no launches of attention."""


def layer_ratios(card: Card, record: BenchRecord) -> Mapping[str, float]:
    """Return the ratios of both passes, with tokens spread evenly.

    Raises:
        UnusedError: The layer lies on several ranks, or is not measured evenly, or too small.
    """
    case, result = record.read(LayerCase, "case"), record.read(LayerResult, "result")
    if any(case.parallel.get(name) not in (None, 1) for name in SIZES):
        raise UnusedError("layers over several ranks, with their exchange")
    if case.precision.fp8 != "none":
        raise UnusedError("layers with FP8")
    even = [row for row in result.routing if row.routing == "forced"]
    if not even:
        raise UnusedError("layers without --routing forced")
    work = _workload(case)
    kernels = _parts(card, work, launches=False)
    gaps = _parts(card, work, launches=True)["experts"]
    launch_seconds = Clock(card, case.precision).parameters.launch_seconds
    launched = forward_kernels(work, sparse=True).launched
    floors = both_passes(launched * launch_seconds, recomputed=False)
    ratios = {}
    for index, measured in enumerate((even[0].forward_s.median, even[0].backward_s.median)):
        alone = _pass(kernels["experts"], index)
        rest = _pass(kernels["moe_router"], index) + _pass(kernels["shared_experts"], index)
        rest += _pass(gaps, index) - alone
        if floors[index] > MOST_HOST * measured:
            raise UnusedError("layers so small that launching them takes as long")
        if measured <= rest:
            raise UnusedError("layers faster than their router alone is modelled")
        precision = Clock(card, case.precision).matrix
        ratios[expert_kind(precision, backward=index == 1)] = (measured - rest) / alone
    return ratios


def _pass(seconds: TermSeconds, index: int) -> float:
    return (seconds.forward_seconds, seconds.backward_seconds)[index]


def _parts(card: Card, work: Workload, *, launches: bool) -> Mapping[str, TermSeconds]:
    """Return the seconds of a layer's parts alone, as no step stretches them."""
    return sparse_block(Clock(card, work.precision, _alone(launches)), work)


@cache
def _alone(launches: bool) -> StepParameters:
    fitted = step_parameters()
    ones = dict.fromkeys((name for name in vars(fitted) if name.endswith("_stretch")), 1.0)
    gaps = {} if launches else {"expert_gap_seconds": 0.0}
    return fitted.model_copy(update=ones | gaps)


def _workload(case: LayerCase) -> Workload:
    shape = ModelShape(
        hidden_size=case.hidden_size,
        vocab_size=1,
        num_heads=1,
        num_kv_heads=1,
        qk_head_dim=1,
        v_head_dim=1,
        sparse_layers=(True,),
        num_experts=case.num_experts,
        top_k=case.top_k,
        expert_ffn_hidden_size=case.expert_ffn_hidden_size,
        shared_expert_ffn_hidden_size=case.shared_expert_ffn_hidden_size,
        attention=Weights(),
    )
    return Workload(
        shape=shape,
        placement=place(Layout(), 1),
        batch=BatchSize(seq_len=case.tokens, micro_batch_size=1, global_batch_size=1),
        precision=case.precision,
        execution=_ALONE,
    )
