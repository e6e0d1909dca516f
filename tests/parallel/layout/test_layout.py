"""Layout arithmetic: every rule of divisibility, the coordinates of ranks, and their groups."""

import warnings
from dataclasses import replace
from math import prod
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallel.errors import ParallelError
from parallel.layout.layout import Layout
from parallel.layout.model_shape import BatchSize
from parallel.layout.placement import ATTENTION_DIMENSIONS, EXPERT_DIMENSIONS, Placement, place
from parallel.layout.validation import checked_placement, layout_faults, num_micro_batches
from tests.support.model_shapes import BATCH, DENSE, SPARSE, coordinates


def faults(num_ranks: int = 8, shape: Any = SPARSE, batch: Any = BATCH, **layout: Any) -> str:
    return "\n".join(layout_faults(Layout(**layout), shape, batch, num_ranks))


@pytest.mark.parametrize(
    ("case", "message"),
    [
        (
            {"num_ranks": 6, "tp": 2, "pp": 2},
            "tp*cp*pp = 2*1*2 = 4 does not divide 6 ranks: run on a multiple of 4 ranks,"
            " or change tp, cp, pp",
        ),
        (
            {"num_ranks": 2, "ep": 4},
            "etp*ep*pp = 1*4*1 = 4 does not divide 2 ranks: run on a multiple of 4 ranks,"
            " or change etp, ep, pp",
        ),
        ({"num_ranks": 3, "tp": 3}, "tp=3 does not divide num_heads = 4: choose tp from 1, 2, 4"),
        (
            {"tp": 4, "shape": replace(SPARSE, num_heads=12, num_kv_heads=6)},
            "tp=4 neither divides num_kv_heads=6 nor is a multiple of it:"
            " choose tp from 1, 2, 3, 6, or a multiple of 6",
        ),
        (
            {"tp": 4, "shape": replace(SPARSE, ffn_hidden_size=6)},
            "tp=4 does not divide ffn_hidden_size = 6: choose tp from 1, 2, 3, 6",
        ),
        (
            {"tp": 2, "shape": replace(SPARSE, vocab_size=51)},
            "tp=2 does not divide vocab_size = 51: choose tp from 1, 3, 17, 51",
        ),
        (
            {"tp": 2, "shape": replace(SPARSE, shared_expert_ffn_hidden_size=5)},
            "tp=2 does not divide moe.shared_expert_ffn_hidden_size = 5: choose tp from 1, 5",
        ),
        (
            {"tp": 4, "shape": replace(SPARSE, q_lora_rank=6, kv_lora_rank=8)},
            "tp=4 does not divide mla.q_lora_rank = 6: choose tp from 1, 2, 3, 6",
        ),
        (
            {"cp": 2, "batch": replace(BATCH, seq_len=30)},
            "2*cp = 4 does not divide seq_len=30: make seq_len a multiple of 4, or lower cp",
        ),
        (
            {"cp": 2, "tp": 4, "batch": replace(BATCH, seq_len=20)},
            "sp=true: tp=4 does not divide the 10 tokens of seq_len=20 that each of cp=2 ranks"
            " holds: make seq_len a multiple of 8, or set sp=false",
        ),
        (
            {"cp": 2, "tp": 2, "context_exchange": "a2a", "shape": replace(SPARSE, num_kv_heads=2)},
            'context_exchange="a2a": cp=2 does not divide the 1 heads of num_kv_heads=2 over tp=2'
            " on each rank: lower cp or tp, or choose another exchange",
        ),
        (
            {"tp": 2, "sp": False},
            "sp=false with tp=2: routed experts train only with sequence parallelism beside"
            " tensor parallelism: set sp=true or tp=1",
        ),
        (
            {"num_ranks": 6, "pp": 3, "batch": replace(BATCH, global_batch_size=4)},
            "pp*vpp = 3*1 = 3 does not divide num_layers=4: choose pp*vpp from 1, 2, 4,"
            " or set ends_count_as_layers=true, or deal them unevenly with stage_layers"
            " (3 numbers)",
        ),
        (
            {"pp": 4, "ends_count_as_layers": True},
            "pp*vpp = 4*1 = 4 does not divide num_layers=4 + 2 ends: choose pp*vpp from 1, 2, 3, 6,"
            " or deal them unevenly with stage_layers (4 numbers)",
        ),
        (
            {"pp": 2, "stage_layers": (2, 3)},
            "stage_layers = [2, 3] adds up to 5, not to num_layers = 4: change one of its numbers",
        ),
        (
            {"shape": DENSE, "recompute": "selective", "recompute_modules": ("moe",)},
            'recompute_modules: the model has no "moe" to recompute: remove it',
        ),
        (
            {"pp": 2, "shape": replace(SPARSE, tie_embeddings=True, mtp_layers=1)},
            "pp=2: tie_embeddings=true and mtp_layers=1 together need one stage (megatron-core):"
            " set pp=1, or give up one of them",
        ),
        ({"ep": 8}, "ep=8 does not divide moe.num_experts = 4: choose ep from 1, 2, 4"),
        (
            {"etp": 4},
            "etp=4 does not divide moe.expert_ffn_hidden_size = 6: choose etp from 1, 2, 3, 6",
        ),
        (
            {"ep": 2, "shape": DENSE},
            "ep=2: a dense model has no experts to shard: set it to 1",
        ),
        (
            {"dispatcher": "flex"},
            'dispatcher="flex" needs ep*etp > 1: raise ep, or use "alltoall"',
        ),
        (
            {"batch": replace(BATCH, micro_batch_size=3)},
            "micro_batch_size*dp = 3*8 = 24 does not divide global_batch_size=16: make it a"
            " multiple of 24, or change micro_batch_size or the number of ranks",
        ),
        (
            {"pp": 2, "vpp": 2, "batch": replace(BATCH, global_batch_size=12)},
            "vpp=2: the interleaved schedule needs micro-batches in multiples of pp=2, and"
            " global_batch_size=12 / (micro_batch_size=1 * dp=4) = 3: make global_batch_size a"
            " multiple of 8, or set vpp=1",
        ),
    ],
)
def test_each_fault_names_the_rule_and_what_to_change(case: dict[str, Any], message: str) -> None:
    assert message in faults(**case).splitlines()


@pytest.mark.parametrize(
    "case",
    [
        {},
        {"tp": 2, "ep": 4},
        {"tp": 4, "etp": 2, "ep": 2},
        {"cp": 2, "ep": 4, "pp": 2},
        {"pp": 2, "vpp": 2, "ep": 4},
        {"num_ranks": 3, "pp": 3, "ends_count_as_layers": True},
        {"num_ranks": 3, "pp": 3, "stage_layers": (1, 1, 2)},
        {"recompute": "full"},
        {"tp": 2, "sp": False, "shape": DENSE},
        {"num_ranks": 2, "ep": 2, "dispatcher": "flex"},
        {"ep": 2, "pp": 2, "vpp": 2, "overlap_experts": True},
        {"ep": 2, "overlap_experts": True, "recompute": "selective"},
    ],
)
def test_layouts_that_fit(case: dict[str, Any]) -> None:
    assert faults(**case) == ""


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "overlap_experts=true with ep=1: .*: set ep >= 2 or overlap_experts=false"),
        ({"ep": 2, "pp": 2}, "with pp=2 and vpp=1: .*: set vpp >= 2 or pp=1"),
        (
            {"ep": 2, "dispatcher": "allgather"},
            'with dispatcher="allgather": .*"alltoall" or "flex"',
        ),
        ({"ep": 2, "recompute": "full"}, 'with recompute="full": .*: set recompute="selective"'),
        (
            {"ep": 2, "recompute": "selective", "recompute_modules": ("core_attn", "moe")},
            'with recompute_modules with "moe": .*: set recompute="selective" with other modules',
        ),
    ],
)
def test_overlapped_experts_need_parts_to_overlap(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Layout(overlap_experts=True, **values)


def test_first_fault_is_raised_and_the_rest_counted() -> None:
    with pytest.raises(ParallelError, match=r"does not divide 6 ranks.*\(and 1 more\)"):
        checked_placement(Layout(tp=4, ep=8), SPARSE, BATCH, 6)
    placement = checked_placement(Layout(tp=2, ep=4), SPARSE, BATCH, 8)
    assert (placement.dp, placement.edp) == (4, 2)


def test_micro_batches() -> None:
    assert num_micro_batches(place(Layout(tp=2), 8), BATCH) == 4
    odd = BatchSize(seq_len=8, micro_batch_size=3, global_batch_size=16)
    with pytest.raises(ParallelError, match=r"3\*4 = 12 does not divide global_batch_size=16"):
        num_micro_batches(place(Layout(tp=2), 8), odd)


def test_interleaved_chunks_alternate_between_stages() -> None:
    chunks = Layout(pp=2, vpp=2).chunk_layers(8)
    assert [[list(chunk) for chunk in stage] for stage in chunks] == [
        [[0, 1], [4, 5]],
        [[2, 3], [6, 7]],
    ]


def test_ends_make_the_first_and_last_chunk_shorter() -> None:
    chunks = Layout(pp=8, vpp=8, ends_count_as_layers=True).chunk_layers(126)
    sizes = [[len(chunk) for chunk in stage] for stage in chunks]
    assert sizes[0] == [1] + [2] * 7
    assert sizes[7] == [2] * 7 + [1]
    assert all(stage == [2] * 8 for stage in sizes[1:7])


def test_groups_worked_by_hand() -> None:
    # Eight ranks: tp fastest, then dp, then pp; experts fold the same ranks.
    placement = place(Layout(tp=2, pp=2, ep=2), 8)
    assert placement.groups("tp") == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert placement.groups("dp") == [[0, 2], [1, 3], [4, 6], [5, 7]]
    assert placement.groups("pp") == [[0, 4], [1, 5], [2, 6], [3, 7]]
    assert placement.groups("ep") == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert placement.groups("edp") == [[0, 2], [1, 3], [4, 6], [5, 7]]
    assert coordinates(placement, 6) == {
        "tp": 0, "cp": 0, "dp": 1, "pp": 1, "etp": 0, "ep": 0, "edp": 1,
    }  # fmt: skip
    with pytest.raises(ValueError, match="neither in"):
        placement.groups("tp", "ep")


small = st.integers(1, 4)


@st.composite
def placements(draw: st.DrawFn) -> Placement:
    """Layouts whose expert ranks fold into the attention ranks."""
    tp, cp, dp, pp = (draw(small) for _ in range(4))
    per_stage = tp * cp * dp
    etp = draw(st.sampled_from([n for n in range(1, 9) if per_stage % n == 0]))
    rest = per_stage // etp
    ep = draw(st.sampled_from([n for n in range(1, 17) if rest % n == 0]))
    return place(Layout(tp=tp, cp=cp, pp=pp, ep=ep, etp=etp), per_stage * pp)


@given(placement=placements())
def test_every_rank_has_its_own_coordinates(placement: Placement) -> None:
    ranks = range(placement.num_ranks)
    for dimensions in (ATTENTION_DIMENSIONS, EXPERT_DIMENSIONS):
        assert prod(placement.sizes[name] for name in dimensions) == placement.num_ranks
        places = {tuple(coordinates(placement, r)[name] for name in dimensions) for r in ranks}
        assert len(places) == placement.num_ranks


@given(placement=placements(), data=st.data())
def test_groups_partition_the_ranks(placement: Placement, data: st.DataObject) -> None:
    dimensions = data.draw(st.sampled_from([ATTENTION_DIMENSIONS, EXPERT_DIMENSIONS]))
    names = data.draw(st.sets(st.sampled_from(dimensions), min_size=1))
    groups = placement.groups(*names)
    assert sorted(rank for group in groups for rank in group) == list(range(placement.num_ranks))
    outside = [name for name in dimensions if name not in names]
    for group in groups:
        assert len(group) == prod(placement.sizes[name] for name in names)
        assert group == sorted(group)
        places = [coordinates(placement, rank) for rank in group]
        assert len({tuple(p[name] for name in outside) for p in places}) == 1


@given(placement=placements())
def test_pipeline_stages_of_attention_and_experts_are_the_same_ranks(
    placement: Placement,
) -> None:
    assert placement.groups("tp", "cp", "dp") == placement.groups("etp", "ep", "edp")


@given(pp=small, vpp=st.integers(1, 3), per_chunk=st.integers(1, 3), ends=st.booleans())
def test_chunks_hold_every_layer_once_in_order(
    pp: int, vpp: int, per_chunk: int, ends: bool
) -> None:
    vpp, ends = (1, False) if pp == 1 else (vpp, ends)
    num_layers = per_chunk * pp * vpp - 2 * ends
    layout = Layout(pp=pp, vpp=vpp, ends_count_as_layers=ends)
    stages = layout.chunk_layers(num_layers)
    in_order = [layer for c in range(vpp) for s in range(pp) for layer in stages[s][c]]
    assert in_order == list(range(num_layers))


@pytest.mark.engine
@pytest.mark.parametrize(("tp", "cp", "dp", "pp"), [(2, 2, 2, 2), (2, 1, 3, 2), (1, 3, 4, 1)])
def test_groups_are_megatron_cores(tp: int, cp: int, dp: int, pp: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from megatron.core.parallel_state import RankGenerator

    ep = cp * dp
    placement = place(Layout(tp=tp, cp=cp, pp=pp, ep=ep, etp=tp), tp * cp * dp * pp)
    attention = RankGenerator(tp=tp, ep=1, dp=dp, pp=pp, cp=cp, order="tp-cp-ep-dp-pp")
    experts = RankGenerator(tp=tp, ep=ep, dp=1, pp=pp, cp=1, order="tp-cp-ep-dp-pp")
    for names in (["tp"], ["cp"], ["dp"], ["pp"], ["dp", "cp"], ["tp", "pp"], ["tp", "dp", "cp"]):
        assert placement.groups(*names) == attention.get_ranks("-".join(names))
    named = {"etp": "tp", "ep": "ep", "edp": "dp", "pp": "pp"}
    for names in (["etp"], ["ep"], ["edp"], ["etp", "ep"], ["etp", "ep", "pp"]):
        assert placement.groups(*names) == experts.get_ranks("-".join(named[n] for n in names))
