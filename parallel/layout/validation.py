"""Whether a layout fits a model and its batches: every rule of divisibility.

The rules are megatron-core's (`transformer_config.py`, `attention.py`, `moe_layer.py`,
`pipeline_parallel/schedules.py` in 0.16 and 0.19), checked before anything starts.
"""

from parallel.errors import ParallelError
from parallel.layout.layout import Layout
from parallel.layout.model_shape import BatchSize, ModelShape
from parallel.layout.placement import Placement, place, rank_fault


def checked_placement(
    layout: Layout, shape: ModelShape, batch: BatchSize, num_ranks: int
) -> Placement:
    """Place a layout on ranks, if it fits the model and its batches.

    Raises:
        ParallelError: The first fault, and what to change.
    """
    faults = layout_faults(layout, shape, batch, num_ranks)
    if faults:
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        raise ParallelError(faults[0] + more)
    return place(layout, num_ranks)


def num_micro_batches(placement: Placement, batch: BatchSize) -> int:
    """Return the number of micro-batches of one step on one data-parallel rank.

    Raises:
        ParallelError: They do not divide the global batch.
    """
    if fault := _batch_fault(placement.dp, batch):
        raise ParallelError(fault)
    return batch.global_batch_size // (batch.micro_batch_size * placement.dp)


def layout_faults(layout: Layout, shape: ModelShape, batch: BatchSize, num_ranks: int) -> list[str]:
    """Return why megatron-core cannot run this, and what to change; empty where it can."""
    faults = [
        rank_fault(layout, num_ranks),
        *_tensor_faults(layout, shape),
        *_sequence_faults(layout, shape, batch),
        _depth_fault(layout, shape),
        _tie_fault(layout, shape),
        *_expert_faults(layout, shape),
        *_recompute_faults(layout, shape),
        _schedule_fault(layout, batch, num_ranks),
    ]
    return [fault for fault in faults if fault]


def _tensor_faults(layout: Layout, shape: ModelShape) -> list[str | None]:
    tp, kv_heads = layout.tp, shape.num_kv_heads
    sharded = {
        "num_heads": shape.num_heads,
        "ffn_hidden_size": shape.ffn_hidden_size,
        "moe.shared_expert_ffn_hidden_size": shape.shared_expert_ffn_hidden_size,
        "vocab_size": shape.vocab_size,
        "mla.q_lora_rank": shape.q_lora_rank,
        "mla.kv_lora_rank + mla.qk_rope_head_dim": shape.kv_lora_rank + shape.qk_rope_head_dim,
    }
    faults = [_indivisible("tp", tp, name, size) for name, size in sharded.items() if size]
    # Where there are fewer key-value heads than ranks, several ranks hold the same head.
    if shape.num_heads % tp == 0 and kv_heads % tp and tp % kv_heads:
        faults.append(
            f"tp={tp} neither divides num_kv_heads={kv_heads} nor is a multiple of it:"
            f" choose tp from {_choices(kv_heads)}, or a multiple of {kv_heads}"
        )
    return faults


def _sequence_faults(layout: Layout, shape: ModelShape, batch: BatchSize) -> list[str | None]:
    cp, tp, length = layout.cp, layout.tp, batch.seq_len
    faults: list[str | None] = [_exchange_fault(layout, shape)]
    # Each context-parallel rank has two chunks, an early and a late one, to balance the work.
    if cp > 1 and length % (2 * cp):
        faults.append(
            f"2*cp = {2 * cp} does not divide seq_len={length}: make seq_len a multiple of"
            f" {2 * cp}, or lower cp"
        )
    elif layout.sp and length // cp % tp:
        faults.append(
            f"sp=true: tp={tp} does not divide the {length // cp} tokens of seq_len={length} that"
            f" each of cp={cp} ranks holds: make seq_len a multiple of {tp * cp}, or set sp=false"
        )
    if any(shape.sparse_layers) and tp > 1 and not layout.sp:
        faults.append(
            f"sp=false with tp={tp}: routed experts train only with sequence parallelism beside"
            " tensor parallelism: set sp=true or tp=1"
        )
    return faults


def _exchange_fault(layout: Layout, shape: ModelShape) -> str | None:
    """Refuse to deal heads over context-parallel ranks that do not divide them."""
    if layout.context_exchange != "a2a":
        return None
    cp, tp = layout.cp, layout.tp
    for name, heads in (("num_heads", shape.num_heads), ("num_kv_heads", shape.num_kv_heads)):
        of_rank = max(heads // tp, 1)
        if of_rank % cp:
            return (
                f'context_exchange="a2a": cp={cp} does not divide the {of_rank} heads of'
                f" {name}={heads} over tp={tp} on each rank: lower cp or tp, or choose another"
                " exchange"
            )
    return None


def _depth_fault(layout: Layout, shape: ModelShape) -> str | None:
    chunks, ends = layout.pp * layout.vpp, 2 * layout.ends_count_as_layers
    if layout.stage_layers is not None:
        total = sum(layout.stage_layers)
        if total == shape.num_layers:
            return None
        return (
            f"stage_layers = {list(layout.stage_layers)} adds up to {total}, not to num_layers ="
            f" {shape.num_layers}: change one of its numbers"
        )
    if (shape.num_layers + ends) % chunks == 0:
        return None
    counted = f"num_layers={shape.num_layers}" + (" + 2 ends" if ends else "")
    remedy = f"choose pp*vpp from {_choices(shape.num_layers + ends)}"
    if not ends and layout.pp > 1 and (shape.num_layers + 2) % chunks == 0:
        remedy += ", or set ends_count_as_layers=true"
    if layout.pp > 1:
        remedy += f", or deal them unevenly with stage_layers ({chunks} numbers)"
    return f"pp*vpp = {layout.pp}*{layout.vpp} = {chunks} does not divide {counted}: {remedy}"


def _tie_fault(layout: Layout, shape: ModelShape) -> str | None:
    """Refuse three copies of one table, for which megatron-core cannot build a checkpoint."""
    if layout.pp == 1 or not (shape.tie_embeddings and shape.mtp_layers):
        return None
    return (
        f"pp={layout.pp}: tie_embeddings=true and mtp_layers={shape.mtp_layers} together need one"
        " stage (megatron-core): set pp=1, or give up one of them"
    )


def _expert_faults(layout: Layout, shape: ModelShape) -> list[str | None]:
    ep, etp = layout.ep, layout.expert_tp
    if not any(shape.sparse_layers):
        wrong = [f"{name}={n}" for name, n in (("ep", ep), ("etp", etp)) if n > 1]
        return [f"{text}: a dense model has no experts to shard: set it to 1" for text in wrong]
    faults = [
        _indivisible("ep", ep, "moe.num_experts", shape.num_experts),
        _indivisible("etp", etp, "moe.expert_ffn_hidden_size", shape.expert_ffn_hidden_size),
    ]
    if layout.dispatcher == "flex" and ep * etp == 1:
        faults.append('dispatcher="flex" needs ep*etp > 1: raise ep, or use "alltoall"')
    return faults


def _recompute_faults(layout: Layout, shape: ModelShape) -> list[str | None]:
    """Refuse to recompute modules that the model does not have."""
    if layout.recompute != "selective":
        return []
    present = {
        "mlp": not all(shape.sparse_layers),
        "moe": any(shape.sparse_layers),
        "moe_act": any(shape.sparse_layers),
        "mla_up_proj": shape.kv_lora_rank > 0,
        "shared_experts": shape.shared_expert_ffn_hidden_size > 0,
    }
    return [
        f'recompute_modules: the model has no "{name}" to recompute: remove it'
        for name in layout.recompute_modules
        if not present.get(name, True)
    ]


def _schedule_fault(layout: Layout, batch: BatchSize, num_ranks: int) -> str | None:
    dp, rest = divmod(num_ranks, layout.tp * layout.cp * layout.pp)
    if rest:
        return None
    if fault := _batch_fault(dp, batch):
        return fault
    count = batch.global_batch_size // (batch.micro_batch_size * dp)
    if layout.vpp > 1 and count % layout.pp:
        return (
            f"vpp={layout.vpp}: the interleaved schedule needs micro-batches in multiples of"
            f" pp={layout.pp}, and global_batch_size={batch.global_batch_size} /"
            f" (micro_batch_size={batch.micro_batch_size} * dp={dp}) = {count}: make"
            f" global_batch_size a multiple of {batch.micro_batch_size * dp * layout.pp},"
            " or set vpp=1"
        )
    return None


def _batch_fault(dp: int, batch: BatchSize) -> str | None:
    divisor = batch.micro_batch_size * dp
    if batch.global_batch_size % divisor == 0:
        return None
    return (
        f"micro_batch_size*dp = {batch.micro_batch_size}*{dp} = {divisor} does not divide"
        f" global_batch_size={batch.global_batch_size}: make it a multiple of {divisor}, or change"
        " micro_batch_size or the number of ranks"
    )


def _indivisible(name: str, divisor: int, key: str, size: int) -> str | None:
    if size % divisor == 0:
        return None
    return f"{name}={divisor} does not divide {key} = {size}: choose {name} from {_choices(size)}"


def _choices(size: int) -> str:
    """List the smallest divisors, since nobody has ranks for more."""
    divisors = [n for n in range(1, min(size, 1024) + 1) if size % n == 0]
    return ", ".join(str(n) for n in divisors[:10]) + (", ..." if len(divisors) > 10 else "")
