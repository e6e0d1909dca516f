"""Memory of a rank: counted terms by hand, schedules by simulation, activations by invariants."""

from dataclasses import replace
from math import lcm
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallel.layout.layout import Layout
from parallel.layout.model_shape import ModelShape, Weights
from parallel.layout.placement import place
from parallel.planner.activations import layer_bytes, layer_gradient_bytes, recomputed_bytes
from parallel.planner.memory import RankMemory, peak_memory, stage_memory
from parallel.planner.rank_parameters import rank_parameters
from parallel.planner.schedule.order import chunks_in_flight, schedule_of
from parallel.planner.software import MEGATRON, Software, StateBytes
from parallel.planner.workload import Workload
from parallel.precision.recipes import Precision
from tests.support.model_shapes import BATCH, DENSE, SPARSE

BF16, FP32 = Precision(dtype="bf16"), Precision()
TABLE = 48 * 8


def workload(
    shape: ModelShape = SPARSE,
    num_ranks: int | None = None,
    precision: Precision = BF16,
    expert_imbalance: float = 1.0,
    **layout: Any,
) -> Workload:
    """A job on `num_ranks` ranks, by default the fewest that its layout takes."""
    laid = Layout(**layout)
    fewest = lcm(laid.tp * laid.cp * laid.pp, laid.expert_tp * laid.ep * laid.pp)
    return Workload(
        shape=shape,
        placement=place(laid, num_ranks or fewest),
        batch=BATCH,
        precision=precision,
        expert_imbalance=expert_imbalance,
    )


def memory(**values: Any) -> RankMemory:
    return peak_memory(workload(**values))


def test_a_single_rank_holds_every_parameter_once() -> None:
    layers = 4 * (192 + 16) + 576 + 3 * (288 + 32 + 4 * 144)
    found = rank_parameters(SPARSE, Layout(), BF16, 0)
    assert found.total == 2 * TABLE + layers + 8
    assert found.expert == 3 * 4 * 144


def test_tensor_and_expert_parallelism_shard_the_right_weights() -> None:
    found = rank_parameters(SPARSE, Layout(tp=2, ep=2, etp=2), BF16, 0)
    assert found.dense == 4 * (96 + 16) + 288 + 3 * (144 + 32) + 2 * TABLE // 2 + 8
    assert found.expert == 3 * 2 * 72
    assert found.fp8 == 4 * 96 + 288 + 3 * 144 + 3 * 2 * 72


def test_stages_hold_their_layers_and_the_first_and_last_the_tables() -> None:
    first, last = (rank_parameters(SPARSE, Layout(pp=2), BF16, stage) for stage in (0, 1))
    assert first.dense == TABLE + 2 * 208 + 576 + 320
    assert last.dense == 2 * 208 + 2 * 320 + 8 + TABLE
    assert (first.expert, last.expert) == (4 * 144, 2 * 4 * 144)


@pytest.mark.parametrize(
    ("tied", "mtp_layers", "pp", "tables"),
    [
        (False, 0, 1, [2]),
        (True, 0, 1, [1]),
        (True, 0, 2, [1, 1]),
        (False, 1, 1, [2]),
        (False, 1, 2, [1, 2]),
    ],
)
def test_copies_of_the_vocabulary_table(
    tied: bool, mtp_layers: int, pp: int, tables: list[int]
) -> None:
    shape = replace(DENSE, tie_embeddings=tied, mtp_layers=mtp_layers)
    bare = replace(shape, vocab_size=0)
    for stage, count in enumerate(tables):
        found, without = (
            rank_parameters(each, Layout(pp=pp), BF16, stage).total for each in (shape, bare)
        )
        assert found - without == count * TABLE


def test_latent_down_projections_are_sharded_by_torch_kernels_and_replicated_by_te() -> None:
    shape = replace(DENSE, attention=Weights(sharded=192, mla_down=64, replicated=16))
    ours, theirs = (
        rank_parameters(shape, Layout(tp=2), Precision(kernels=kernels), 0).total
        for kernels in ("torch", "te")
    )
    assert theirs - ours == 4 * 32


def test_bytes_of_weights_gradients_and_optimizer_without_sharding() -> None:
    total = rank_parameters(SPARSE, Layout(), BF16, 0).total
    half = memory(distributed_optimizer=False)
    assert half.parameter_bytes == 2 * total
    assert half.gradient_bytes == 4 * total
    assert half.optimizer_bytes == (4 + 4 + 4) * total
    full = memory(precision=FP32, distributed_optimizer=False)
    assert full.parameter_bytes == 4 * total
    assert full.optimizer_bytes == (4 + 4) * total


def test_distributed_optimizer_shards_experts_over_their_own_ranks() -> None:
    # Eight ranks: dense parts have 4 replicas (cp counts), experts of ep=4 have 2.
    layout = {"tp": 2, "cp": 2, "ep": 4}
    parameters = rank_parameters(SPARSE, Layout(**layout), BF16, 0)
    found = memory(num_ranks=8, **layout)
    # Buffers are padded to multiples of 128 elements, of which each rank has an equal share.
    dense, expert = (-(-count // 128) * 128 for count in (parameters.dense, parameters.expert))
    assert found.optimizer_bytes == 12 * (dense // 4 + expert // 2)
    assert found.gradient_bytes == 4 * (dense + expert)
    assert found.parameter_bytes == 2 * (dense + expert)


def test_a_buffer_of_one_rank_has_no_states_for_its_padding() -> None:
    parameters = rank_parameters(SPARSE, Layout(), BF16, 0)
    assert memory().optimizer_bytes == 12 * parameters.total


def test_other_optimizers_keep_other_states() -> None:
    state = StateBytes(gradient=2, master=4, moments=4)
    found = peak_memory(workload(distributed_optimizer=False), state=state)
    total = rank_parameters(SPARSE, Layout(), BF16, 0).total
    assert (found.gradient_bytes, found.optimizer_bytes) == (2 * total, 8 * total)


def test_fp8_keeps_two_copies_of_matrix_weights() -> None:
    fp8 = Precision(kernels="te", dtype="bf16", fp8="current")
    parameters = rank_parameters(SPARSE, Layout(), fp8, 0)
    assert memory(precision=fp8).fp8_weight_bytes == 2 * parameters.fp8
    assert parameters.fp8 == parameters.total - 2 * TABLE - 8 - 4 * 16 - 3 * 32
    assert memory().fp8_weight_bytes == 0


def test_one_dense_layer_worked_by_hand() -> None:
    # 32 tokens, BF16: 4 norms' tensors of 8; q 8, k 4, v 4, o 8; gate, up, silu, product of 24.
    elements = 4 * 8 + 8 + 4 + 4 + 8 + 4 * 24
    found = layer_bytes(workload(DENSE), sparse=False)
    assert found == 32 * (2 * elements + 4 * 4)


def test_one_sparse_layer_worked_by_hand() -> None:
    # tp 2 with sequence parallelism: 16 of 32 tokens between blocks, half the heads inside.
    work = workload(tp=2, ep=2)
    assert (work.tokens, work.residual_tokens) == (32, 16)
    assert work.routed_tokens == 16 * 2
    between = 16 * 4 * 8
    attention = 32 * (8 + 4 + 4 + 8) // 2
    shared = 4 * 32 * 12 // 2
    routed = 32 * (8 + 5 * 6)
    fixed = 4 * 32 * 4 // 2 + 17 * 16 * 4 + 20 * 32
    found = layer_bytes(work, sparse=True)
    assert found == 2 * (between + attention + shared + routed) + fixed


def test_full_recomputation_saves_each_layers_input_and_recomputes_one_layer_at_a_time() -> None:
    saved, again = memory(), memory(recompute="full")
    width = BATCH.seq_len * SPARSE.hidden_size * 2
    last = 2 * width  # the final norm's input and output
    assert again.activation_bytes == SPARSE.num_layers * width + last
    largest = max(layer_bytes(workload(), sparse=sparse) for sparse in (True, False))
    assert largest < saved.activation_bytes
    recomputed = recomputed_bytes(workload(recompute="full"), sparse=True)
    assert recomputed == layer_bytes(workload(), sparse=True)


def test_selective_recomputation_does_not_save_what_it_names() -> None:
    def selective(*modules: str) -> Workload:
        return workload(recompute="selective", recompute_modules=modules)

    def saved(*modules: str, sparse: bool = True) -> int:
        return layer_bytes(selective(*modules), sparse=sparse)

    everything = layer_bytes(workload(), sparse=True)
    norms = 2 * BATCH.seq_len * SPARSE.hidden_size * 2
    log_sum_exp = 4 * BATCH.seq_len * SPARSE.num_heads
    assert saved("core_attn") == everything - log_sum_exp
    # Unfused: silu(gate) and the product, before and after the routing weight; and all of those
    # beside up and gate projections.
    assert saved("moe_act") == everything - 3 * 2 * 64 * 6
    assert saved("shared_experts") == everything - 4 * 2 * BATCH.seq_len * 12
    for module in ("moe_act", "shared_experts"):
        assert recomputed_bytes(selective(module), sparse=True) == everything - saved(module)
    assert saved("layernorm") == everything - norms
    network = recomputed_bytes(selective("moe"), sparse=True)
    assert saved("moe") == everything - network
    assert saved("moe", sparse=False) == layer_bytes(workload(), sparse=False)


def test_latent_attention_recomputes_queries_keys_and_values() -> None:
    latent = replace(DENSE, num_kv_heads=4, kv_lora_rank=3, q_lora_rank=5, qk_rope_head_dim=1)
    whole, less = (
        layer_bytes(workload(latent, **recompute), sparse=False)
        for recompute in ({}, {"recompute": "selective", "recompute_modules": ("mla_up_proj",)})
    )
    assert whole - less == 2 * BATCH.seq_len * 3 * 4 * 2


TE = Precision(kernels="te", dtype="bf16")


@pytest.mark.parametrize(
    ("recipe", "scales"), [("delayed", 0), ("current", 0), ("blockwise", 1 / 32), ("mxfp8", 1 / 32)]
)
def test_fp8_saves_inputs_of_matrix_products_in_fp8(recipe: Any, scales: float) -> None:
    fp8 = Precision(kernels="te", dtype="bf16", fp8=recipe)
    whole = layer_bytes(workload(DENSE, precision=TE), sparse=False)
    found = layer_bytes(workload(DENSE, precision=fp8), sparse=False, in_fp8=True)
    # Of 2 norms and a product of 24 one byte less each; of attention's output one more.
    inputs, output = 2 * 8 + 24, 8
    assert found == whole - 32 * (inputs * (1 - scales) - output * (1 + scales))
    assert layer_bytes(workload(DENSE, precision=fp8), sparse=False) == whole


@pytest.mark.parametrize(
    ("recipe", "scales"), [("current", 0), ("blockwise", 4 / 128**2), ("mxfp8", 1 / 32)]
)
def test_fp8_parameters_are_one_of_the_two_copies(recipe: Any, scales: float) -> None:
    def found(**more: Any) -> RankMemory:
        precision = Precision(kernels="te", dtype="bf16", fp8=recipe, **more)
        return memory(precision=precision, distributed_optimizer=False)

    beside, instead = found(), found(fp8_parameters=True)
    fp8 = rank_parameters(SPARSE, Layout(), TE, 0).fp8
    assert beside.fp8_weight_bytes == round(2 * (1 + scales) * fp8)
    assert instead.parameter_bytes == beside.parameter_bytes - fp8
    assert instead.fp8_weight_bytes == round((1 + 2 * scales) * fp8)
    kept = found(fp8_keep_first=1).fp8_weight_bytes
    assert kept == round(2 * (1 + scales) * (fp8 - 192 - 576))


def test_matrix_products_that_add_gradients_leave_one_tensor_for_each_shape() -> None:
    found = peak_memory(workload(precision=TE), software=MEGATRON)
    # qkv 16 x 8, output 8 x 8; dense 48 x 8, 8 x 24; shared 24 x 8, 8 x 12; experts 12 x 8, 8 x 6.
    shapes = 128 + 64 + 384 + 192 + 192 + 96 + 96 + 48
    assert found.weight_gradient_bytes == 2 * (shapes + TABLE)
    assert found.logits_bytes == 32 * 48 * 4
    assert peak_memory(workload(precision=TE)).weight_gradient_bytes == 6 * TABLE


def test_the_widest_layer_counts_as_far_as_it_exceeds_the_head() -> None:
    work = workload(DENSE, pp=2, recompute="full")
    layer = layer_gradient_bytes(work) + recomputed_bytes(work, sparse=False)
    widest = 2 * 2 * 24 * 8
    first, last = (stage_memory(work, stage) for stage in (0, 1))
    assert first.transient_bytes == layer + widest
    head = last.logits_bytes + last.weight_gradient_bytes
    assert 0 < last.transient_bytes == layer + widest - head
    fused = stage_memory(work, 1, software=MEGATRON)
    assert fused.transient_bytes == layer - fused.logits_bytes


def test_chunked_logits_are_bounded() -> None:
    shape = replace(DENSE, vocab_size=2**20, mtp_layers=1)
    chunked, full = (
        peak_memory(workload(shape), software=Software(logits=logits)).logits_bytes
        for logits in ("chunked", "full")
    )
    assert full == 2 * 32 * 2**20 * 8
    assert chunked == full
    longer = replace(shape, vocab_size=2**21)
    assert peak_memory(workload(longer)).logits_bytes == 2**25 * 8


def test_paired_passes_share_one_passes_activations() -> None:
    alone, paired = (
        memory(num_ranks=2, ep=2, overlap_experts=overlap).activation_bytes
        for overlap in (False, True)
    )
    assert paired - alone == layer_bytes(workload(num_ranks=2, ep=2), sparse=True)


def test_gathering_dispatchers_hold_every_ranks_tokens() -> None:
    shape = replace(SPARSE, sparse_layers=(True,) * 4)
    sent, gathered = (
        layer_gradient_bytes(workload(shape, ep=4, dispatcher=dispatcher))
        for dispatcher in ("alltoall", "allgather")
    )
    assert gathered - sent == 2 * (4 * 32 - 2 * 32) * 8


def test_capacity_and_imbalance_scale_routed_tokens() -> None:
    dropping = replace(SPARSE, capacity_factor=0.5)
    assert workload(dropping).routed_tokens == 32
    assert workload(expert_imbalance=1.5, ep=2).routed_tokens == 96
    assert workload(etp=2).routed_tokens == 128


def test_no_rank_gets_more_than_all_copies_nor_an_expert_more_than_every_token() -> None:
    assert [workload(expert_imbalance=9.0, ep=ep).rank_imbalance for ep in (1, 2, 4)] == [1, 2, 2]
    assert workload(DENSE, expert_imbalance=9.0).rank_imbalance == 1
    assert memory(expert_imbalance=9.0) == memory()


def test_one_forward_one_backward_holds_fewer_passes_downstream() -> None:
    for micro_batches, held in ((8, [4, 3, 2, 1]), (2, [2, 2, 2, 1])):
        schedule = schedule_of(Layout(pp=4), micro_batches)
        assert [chunks_in_flight(schedule, stage) for stage in range(4)] == [[n] for n in held]


def test_first_stage_of_an_interleaved_pipeline_holds_what_the_paper_says() -> None:
    """Korthikanti et al., section 4.2.3: L (1 + (p - 1) / (p m)) layers' activations."""
    shape = replace(DENSE, sparse_layers=(False,) * 24)
    work = workload(shape, pp=4, vpp=3)
    found = stage_memory(work, 0)
    one = layer_bytes(work, sparse=False)
    assert found.activation_bytes == 24 * (1 + 3 / (4 * 3)) * one


@given(pp=st.integers(1, 6), data=st.data())
def test_no_stage_needs_more_than_the_peak(pp: int, data: st.DataObject) -> None:
    per_stage = data.draw(st.lists(st.integers(1, 3), min_size=pp, max_size=pp))
    sparse = data.draw(st.lists(st.booleans(), min_size=sum(per_stage), max_size=sum(per_stage)))
    shape = replace(SPARSE, sparse_layers=tuple(sparse), mtp_layers=data.draw(st.integers(0, 1)))
    work = workload(shape, pp=pp, stage_layers=tuple(per_stage))
    stages = [stage_memory(work, stage).total_bytes for stage in range(pp)]
    assert peak_memory(work).total_bytes == max(stages)


def test_peak_is_the_stage_that_needs_most_and_terms_add_up() -> None:
    work = workload(pp=2)
    stages = [stage_memory(work, stage) for stage in (0, 1)]
    peak = peak_memory(work)
    assert peak == max(stages, key=lambda stage: stage.total_bytes)
    document = peak.as_json()
    terms = [value for key, value in document.items() if key.endswith("_bytes")]
    assert sum(terms) == 2 * document["total_bytes"]
    assert document["kind"] == "modelled"
    assert stages[0].logits_bytes == 0
    assert stages[1].logits_bytes == 32 * 48 * 8


@given(tp=st.sampled_from([1, 2, 4]), ep=st.sampled_from([1, 2, 4]), cp=st.sampled_from([1, 2, 4]))
def test_more_ranks_never_need_more_memory_each(tp: int, ep: int, cp: int) -> None:
    alone = memory(num_ranks=16)
    shared = memory(num_ranks=16, tp=tp, ep=ep, cp=cp)
    assert shared.parameter_bytes <= alone.parameter_bytes
    assert shared.activation_bytes <= alone.activation_bytes
    assert shared.logits_bytes <= alone.logits_bytes
