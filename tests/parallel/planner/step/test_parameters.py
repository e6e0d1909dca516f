"""What training adds to kernels: each parameter where it belongs, and nowhere else."""

from dataclasses import replace

import pytest

from parallel.hardware.card import load_card
from parallel.planner.compute_time.attention import AttentionShape, attention_seconds
from parallel.planner.compute_time.gemm import gemm_seconds
from parallel.planner.execution import ALL_PARTS, Execution
from parallel.planner.step.clock import Clock
from parallel.planner.step.host import both_passes, forward_kernels
from parallel.planner.step.parameters import StepParameters, step_parameters, training_card
from parallel.planner.step.phases import PHASE_OF_TERM, phase_seconds
from parallel.planner.step.step_time import StepBreakdown, StepTimes
from parallel.planner.workload import Workload
from tests.parallel.planner.step.test_step_time import BF16, OVERLAP, SHAPE, job

SHIPPED = step_parameters()


def step(work: Workload, gpu: str = "H100", **changes: float) -> StepBreakdown:
    parameters = SHIPPED.model_copy(update=changes)
    return StepTimes(Clock(load_card(gpu), work.precision, parameters)).step(work)


def test_the_shipped_numbers_are_plausible() -> None:
    for name in ("bf16", "fp8", "attention", "stream", "exchange", "chunk"):
        assert 1.0 <= getattr(SHIPPED, f"{name}_stretch") < 1.4, name
    assert 0.5 < SHIPPED.hidden_share < 1
    assert SHIPPED.gap_seconds < SHIPPED.expert_gap_seconds < SHIPPED.launch_seconds < 1e-4


@pytest.mark.parametrize(
    ("precision", "name"), [("bf16", "bf16"), ("fp8", "fp8"), ("fp8-blockwise", "fp8")]
)
def test_products_are_stretched_by_their_precision(precision: str, name: str) -> None:
    size = (4096, 8192, 4096, precision)
    for gpu in ("H100", "B200"):
        card = load_card(gpu)
        own = card.kernels.training_stretch.get(name, 1.0)
        stretch = getattr(SHIPPED, f"{name}_stretch") * own
        warm = gemm_seconds(training_card(card, SHIPPED), *size)
        assert warm == pytest.approx(stretch * gemm_seconds(card, *size))
    assert load_card("B300").kernels.training_stretch == {}, "B200's slow machine is not B300's"


def test_attention_is_stretched() -> None:
    card = load_card("H100")
    warm = training_card(card, SHIPPED.model_copy(update={"stream_stretch": 1.0}))
    shape = AttentionShape(batch=1, seq=4096, heads=16, kv_heads=16, qk_dim=128, v_dim=128)
    alone = attention_seconds(card, shape, backward=True)
    assert attention_seconds(warm, shape, backward=True) == pytest.approx(
        SHIPPED.attention_stretch * alone
    )


def test_a_cpu_has_no_gaps_and_no_launches() -> None:
    alone = SHIPPED.on(load_card("cpu"))
    assert alone.bf16_stretch == alone.exchange_stretch == 1.0
    assert alone.launch_seconds == alone.step_seconds == 0.0
    assert alone.hidden_share == SHIPPED.hidden_share
    assert SHIPPED.on(load_card("H100")) is SHIPPED


def test_experts_collectives_and_dispatchers_have_kernels_of_their_own() -> None:
    def kernels(**layout: object) -> int:
        return forward_kernels(job(**layout), sparse=True).all

    assert kernels(ep=8) - kernels(ep=16) == 4, "eight experts, or four"
    assert kernels(tp=2, ep=8) > kernels(ep=8)
    fused = {"dispatcher": "flex", "flex_backend": "hybridep"}
    assert kernels(ep=8, **fused) < kernels(ep=8, dispatcher="alltoall")
    shared = replace(SHAPE, shared_expert_ffn_hidden_size=1536)
    one = forward_kernels(replace(job(ep=8), shape=shared), sparse=True)
    assert one.all > kernels(ep=8)


def test_graphs_spare_the_host_and_not_the_card() -> None:
    plain = forward_kernels(job(ep=8), sparse=True)
    graphed = replace(job(ep=8), execution=Execution(cuda_graphs=ALL_PARTS))
    assert plain.launched == plain.all
    of_graph = forward_kernels(graphed, sparse=True)
    assert of_graph.all == plain.all
    assert of_graph.launched < 0.6 * plain.all
    forward, backward = both_passes(1.0, recomputed=False)
    assert both_passes(1.0, recomputed=True) == (forward, backward + forward)


def test_every_kernel_costs_the_card_its_gap() -> None:
    work = job(ep=8)
    graphed = replace(work, execution=Execution(cuda_graphs=ALL_PARTS))
    less, more = (step(graphed, launch_seconds=0.0, gap_seconds=gap) for gap in (0.0, 1e-5))
    counts = [
        count * sum(both_passes(forward_kernels(work, sparse=sparse).all, recomputed=False))
        for sparse, count in ((False, 1), (True, SHAPE.num_layers - 1))
    ]
    batches = work.batch.global_batch_size / work.placement.dp
    assert more.terms["memory_bound"] - less.terms["memory_bound"] == pytest.approx(
        1e-5 * sum(counts) * batches
    )


def test_a_card_without_measured_steps_has_a_wider_spread() -> None:
    inside = SHIPPED.spread_on(0.06, load_card("H100"))
    outside = SHIPPED.spread_on(0.06, load_card("A100"))
    assert inside == 0.06
    assert outside == pytest.approx((0.06**2 + SHIPPED.spread.card**2) ** 0.5)


def test_hidden_share_is_between_no_overlap_and_the_windows() -> None:
    apart = step(job(ep=16, dispatcher="alltoall")).terms["expert_exchange"]
    beside = job(ep=16, dispatcher="alltoall", overlap_experts=True)
    none, half, all_of_it = (
        step(beside, hidden_share=share, launch_seconds=0.0).terms["expert_exchange"]
        for share in (0.0, 0.5, 1.0)
    )
    assert none == pytest.approx(apart)
    assert half == pytest.approx((none + all_of_it) / 2)
    assert all_of_it < none


def test_once_a_step_means_once() -> None:
    work = job(ep=8)
    before = step(work, step_seconds=0.0, layer_step_seconds=0.0)
    after = step(work, step_seconds=0.5, layer_step_seconds=0.01)
    assert after.seconds - before.seconds == pytest.approx(0.5 + 0.01 * SHAPE.num_layers)
    assert sum(after.terms.values()) == pytest.approx(after.seconds)
    assert step(work).seconds == StepTimes(Clock(load_card("H100"), BF16)).step(work).seconds


def test_every_term_has_a_phase() -> None:
    breakdown = step(job(tp=2, ep=8, cp=2, recompute="full", **OVERLAP))
    assert set(breakdown.terms) <= set(PHASE_OF_TERM)
    assert sum(phase_seconds(breakdown.terms).values()) == pytest.approx(breakdown.seconds)


def test_parameters_are_strict() -> None:
    values = SHIPPED.model_dump()
    assert StepParameters.model_validate(values) == SHIPPED
    with pytest.raises(ValueError, match="hidden_share"):
        StepParameters.model_validate(values | {"hidden_share": 1.5})
