"""Seconds of steps: terms that add up, and what changes them."""

from dataclasses import replace

import pytest

from parallel.hardware.card import load_card
from parallel.layout.layout import Layout
from parallel.layout.model_shape import BatchSize, ModelShape, Weights
from parallel.layout.placement import place
from parallel.planner.execution import ALL_PARTS, Execution
from parallel.planner.flops import training_flops_per_token
from parallel.planner.step.clock import Clock
from parallel.planner.step.step_time import StepTimes
from parallel.planner.workload import Workload
from parallel.precision.recipes import Precision

HIDDEN, HEADS, FFN, EXPERT = 4096, 32, 12_288, 1536
SHAPE = ModelShape(
    hidden_size=HIDDEN, vocab_size=65_536, num_heads=HEADS, num_kv_heads=8, qk_head_dim=128,
    v_head_dim=128, sparse_layers=(False, *[True] * 7), ffn_hidden_size=FFN, num_experts=64,
    top_k=4, expert_ffn_hidden_size=EXPERT,
    attention=Weights(sharded=HIDDEN * 128 * (2 * HEADS + 16), replicated=2 * HIDDEN),
    dense_ffn=Weights(sharded=3 * HIDDEN * FFN), expert=Weights(sharded=3 * HIDDEN * EXPERT),
    router_and_shared=Weights(replicated=64 * HIDDEN),
)  # fmt: skip
BATCH = BatchSize(seq_len=4096, micro_batch_size=1, global_batch_size=256)
BF16 = Precision(kernels="te", dtype="bf16")
OVERLAP = {"overlap_grad_reduce": True, "overlap_param_gather": True}


def job(ranks: int = 16, precision: Precision = BF16, **layout: object) -> Workload:
    placed = place(Layout.model_validate(OVERLAP | layout), ranks)
    return Workload(shape=SHAPE, placement=placed, batch=BATCH, precision=precision)


def seconds(work: Workload, gpu: str = "H100") -> float:
    return StepTimes(Clock(load_card(gpu), work.precision)).step(work).seconds


@pytest.mark.parametrize(
    "layout",
    [
        {"ep": 8},
        {"tp": 2, "ep": 8, "dispatcher": "flex"},
        {"pp": 2, "vpp": 2, "ep": 8, "overlap_experts": True, "dispatcher": "flex"},
        {"pp": 4, "ep": 4, "recompute": "full"},
        {"cp": 2, "tp": 2, "ep": 8, "etp": 2},
    ],
)
def test_terms_add_up_and_no_card_is_faster_than_its_peak(layout: dict[str, object]) -> None:
    work = job(**layout)
    card = load_card("H100")
    step = StepTimes(Clock(card, BF16)).step(work)
    assert sum(step.terms.values()) == pytest.approx(step.seconds)
    assert min(step.terms.values()) >= -1e-9
    flops = training_flops_per_token(SHAPE, 4096) * 256 * 4096
    assert flops / (16 * step.seconds) < 0.8 * card.rates.bf16


def test_blocks_that_layouts_share_are_timed_once_and_alike() -> None:
    times = StepTimes(Clock(load_card("H100"), BF16))
    works = [job(ep=8), job(ep=8, pp=2), job(ep=8, recompute="full"), job(ep=8)]
    together = [times.step(work).seconds for work in works]
    assert together == pytest.approx([seconds(work) for work in works])
    assert together[0] == together[3]


def test_recomputation_costs_what_it_repeats() -> None:
    times = StepTimes(Clock(load_card("H100"), BF16))
    kinds = {"recompute": "none"}, {"recompute": "selective"}, {"recompute": "full"}
    none, some, full = (times.step(job(ep=8, **kind)) for kind in kinds)
    assert none.seconds < some.seconds < full.seconds
    assert some.terms["recomputation"] == pytest.approx(some.terms["attention"] / 4, rel=0.3)
    assert full.seconds < 4 / 3 * none.seconds * 1.05


def test_what_should_help_helps() -> None:
    slow = job(ep=16, dispatcher="alltoall")
    assert seconds(job(ep=16, dispatcher="flex", flex_backend="hybridep")) < seconds(slow)
    assert seconds(job(ep=16, dispatcher="alltoall", overlap_experts=True)) < seconds(slow)
    assert seconds(job(ep=8)) < seconds(slow), "experts of one node need no network"
    in_chunks = replace(job(tp=4, ep=4), execution=Execution(overlap_tp=True))
    assert seconds(in_chunks) < seconds(job(tp=4, ep=4))
    graphs = replace(job(tp=8, ep=2), execution=Execution(cuda_graphs=("attn", "moe_router")))
    assert seconds(graphs) <= seconds(job(tp=8, ep=2))
    in_fp8 = Precision(kernels="te", dtype="bf16", fp8="delayed")
    assert seconds(job(ep=8, precision=in_fp8)) < seconds(job(ep=8))
    graphed = replace(job(ep=8), execution=Execution(cuda_graphs=ALL_PARTS))
    assert seconds(graphed, "GB200") < 0.7 * seconds(graphed)
    assert seconds(job(ep=8), "GB200") > 0.7 * seconds(job(ep=8)), "the host is no faster"


def test_uneven_routing_waits_for_the_busiest_rank() -> None:
    natural = replace(job(ep=8), execution=Execution(routing="natural"))
    assert seconds(natural) > 1.02 * seconds(job(ep=8))


def test_a_step_in_fp32_runs_at_fp32s_rate() -> None:
    card, precision = load_card("H100"), Precision()
    rates = card.rates.model_copy(update={"bf16": 2 * card.rates.bf16})
    faster = card.model_copy(update={"rates": rates})
    work = job(precision=precision, ep=8)
    both = [StepTimes(Clock(one, precision)).step(work).terms for one in (card, faster)]
    assert both[0] == both[1]
    in_bf16 = [StepTimes(Clock(one, BF16)).step(job(ep=8)).seconds for one in (card, faster)]
    assert in_bf16[1] < in_bf16[0]
