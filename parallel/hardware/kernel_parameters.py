"""Fitted physical parameters of a card's kernels: the `[kernels]` section of its file."""

from typing import Annotated

from pydantic import Field

from parallel.frozen_model import FrozenModel

Share = Annotated[float, Field(gt=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]


class MatrixParameters(FrozenModel):
    """Matrix products in one precision; fitted on gemm_<card>.csv."""

    efficiency: Share
    """Share of the dense peak that a full wave of the largest tile reaches before the power limit
    lowers the clock."""
    tile_seconds: NotNegative
    """Seconds in which an SM fills and drains the pipeline of one tile."""
    small_tile_penalty: NotNegative
    """Share of time added to a tile that loads twice the bytes per FLOP of the largest one."""
    joules_per_flop: NotNegative
    """Energy of one FLOP at full clock, J."""
    splits_k: bool
    """Whether libraries split k over SMs that would idle (cuBLAS in BF16)."""
    largest_tile: Annotated[int, Field(gt=0)]
    """Elements of the largest output tile: block scales need registers beside the sums."""
    grouped_efficiency: Share
    """Rate of one call for many experts over that of one product with the same tiles."""


class AttentionParameters(FrozenModel):
    """Fused attention in BF16, one pass; fitted on attention_train.csv and attention_fwd.csv."""

    efficiency: Share
    """Share of the dense BF16 peak that its products alone would reach."""
    softmax_seconds: NotNegative
    """Seconds of one SM for the exponentials and sums of one pair of query and key."""
    wide_head_stretch: Annotated[float, Field(ge=1)]
    """Factor of time for a pair where `qk_dim` is above 128: its operands no longer fit an SM's
    registers or tensor memory in whole blocks."""
    block_seconds: NotNegative
    """Seconds in which an SM starts and ends one block: loads, the last rescaling, the store."""
    fixed_seconds: NotNegative
    """Seconds of launches and of work before and after the kernel."""
    joules_per_flop: NotNegative
    """Energy of one FLOP at full clock, softmax included, J."""
    block: Annotated[int, Field(gt=0)]
    """Queries (backward: keys) that an SM works on at a time."""


class KernelParameters(FrozenModel):
    """What kernels reach on one card, beside its rates."""

    fitted_on: str
    """Table that the numbers were fitted on, with date; or the card they were taken from."""
    launch_seconds: NotNegative
    """Seconds between two kernels of one stream inside a CUDA graph."""
    memory_efficiency: Share
    """Share of the memory bandwidth that operands of matrix products reach."""
    stream_efficiency: Share
    """Share of the memory bandwidth that kernels reach which only read and write."""
    split_seconds: NotNegative
    """Seconds in which partial sums of a product split along k are merged."""
    tiles: tuple[tuple[int, int], ...]
    """Rows and columns of the output tiles that libraries have kernels for, largest first."""
    gather_efficiency: Share
    """Share of the memory bandwidth that permute and unpermute reach, which gather rows."""
    routing_entry_seconds: NotNegative
    """Seconds that sorting and gathering spend on one (token, expert) entry."""
    routing_seconds: NotNegative
    """Seconds of an expert block's small kernels: sorting, counting, offsets of rows by expert."""
    static_watts: NotNegative
    """Power of a board at full clock that neither FLOPs nor memory traffic explain, W."""
    joules_per_byte: NotNegative
    """Energy of moving one byte from or to memory, J."""
    throttle_exponent: Share
    """Exponent of (power / limit) by which time grows above the power limit; 1/3 where power goes
    with the cube of the clock."""
    power_response_seconds: Positive
    """Seconds after which the board's controller has lowered the clock (time constant)."""
    matrix: dict[str, MatrixParameters]
    """By precision: bf16, fp8 (one scale per tensor), fp8-blockwise, nvfp4."""
    attention_forward: AttentionParameters
    """Fused attention, forward."""
    attention_backward: AttentionParameters
    """Fused attention, backward."""
    machine_factors: dict[str, Positive] = {}
    """Time measured on the user's own machine over the time that these parameters give, by kind:
    `gemm.<precision>`, `attention.forward`, `attention.backward` (of FP32 with `.fp32` behind),
    `stream` (what only moves bytes), `experts.forward.<precision>` and
    `experts.backward.<precision>` (on top of those of their products and bytes); absent: 1."""

    training_stretch: dict[str, Positive] = {}
    """Time in a training step over the time in these tables, of this card beyond other cards, by
    precision or `attention`; absent: 1."""

    def machine_factor(self, kind: str) -> float:
        """Return the factor of a kind of kernel."""
        return self.machine_factors.get(kind, 1.0)
