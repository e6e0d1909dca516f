"""Seconds of casts to FP8 and FP4 around matrix products, by recipe and architecture.

Forward, an operand in BF16 is read and written in the product's precision. Gradients of weights sum
along tokens, and FP8 products of Hopper take operands whose summed axis is contiguous: there the
cast writes a transposed copy as well (Transformer Engine; Micikevicius et al. 2022 for the format).
Blackwell's FP8 products take either layout, but MXFP8's and NVFP4's blocks of scales run along the
summed axis, so that these need a second cast too.
"""

from parallel.hardware.card import Card
from parallel.planner.compute_time.gemm import OPERAND_BYTES
from parallel.planner.compute_time.memory_bound import stream_seconds

_BF16 = 2.0
_AMAX_PASS = {"fp8": _BF16}
"""Bytes read to find the largest value before the cast can start: current scaling of a tensor."""


def operand_cast_seconds(
    card: Card,
    elements: float,
    precision: str,
    *,
    transposed: bool = False,
    amax_known: bool = True,
) -> float:
    """Return the seconds in which `elements` in BF16 become operands of a product.

    Args:
        card: The card.
        elements: Elements of the operand.
        precision: A key of `OPERAND_BYTES`; BF16 and FP32 need no cast.
        transposed: A copy for products that sum along the other axis is written too, where the
            architecture needs one.
        amax_known: The scale is known before (delayed scaling, blocks); else one more pass reads
            the operand (current scaling).
    """
    if precision in ("bf16", "fp32") or elements <= 0:
        return 0.0
    written = OPERAND_BYTES[precision]
    copies = 2 if transposed and needs_transposed_copy(card, precision) else 1
    seconds = stream_seconds(card, elements * (_BF16 + copies * written))
    if not amax_known and precision in _AMAX_PASS:
        seconds += stream_seconds(card, elements * _AMAX_PASS[precision])
    return seconds


def needs_transposed_copy(card: Card, precision: str) -> bool:
    """Return whether products along the other axis need a copy of their own."""
    return card.architecture != "blackwell" or precision != "fp8"
