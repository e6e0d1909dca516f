"""Seconds of kernels whose time is that of their bytes: norms, activations, casts, permutations.

    seconds = launch + bytes / (memory bandwidth * reached share)

The share is fitted on fp8_quantize.csv's static casts. What fits the last-level cache when it is
read again goes faster than this says.
"""

from parallel.hardware.card import Card

_BF16 = 2.0
STREAM = "stream"
"""The kind of kernel that a machine's factor is kept for."""


def stream_seconds(card: Card, moved_bytes: float) -> float:
    """Return the seconds of a kernel that reads and writes `moved_bytes` together."""
    return _seconds(card, moved_bytes, card.kernels.stream_efficiency)


def gather_seconds(card: Card, moved_bytes: float) -> float:
    """Return the seconds of a kernel that gathers or scatters rows: permute, unpermute."""
    return _seconds(card, moved_bytes, card.kernels.gather_efficiency)


def norm_seconds(card: Card, tokens: float, width: float, *, backward: bool = False) -> float:
    """Return the seconds of an RMSNorm or LayerNorm in BF16.

    Forward reads and writes each element once. Backward takes as long as four accesses to each, not
    three: the weight's gradient is a second pass (norm_train.csv, cuDNN on H200, GB200, GB300).
    """
    return stream_seconds(card, (4 if backward else 2) * _BF16 * tokens * width)


def activation_seconds(
    card: Card, rows: float, width: float, *, gated: bool, backward: bool = False
) -> float:
    """Return the seconds of an activation in BF16 with `width` outputs a row.

    Gated: reads two and writes one; backward reads those and the gradient and writes two.
    """
    inputs = 2 if gated else 1
    elements = 2 * inputs + 1 if backward else inputs + 1
    return stream_seconds(card, _BF16 * rows * width * elements)


def _seconds(card: Card, moved_bytes: float, share: float) -> float:
    if moved_bytes <= 0:
        return 0.0
    moving_s = moved_bytes / (card.rates.memory_bytes_per_s * share)
    return card.kernels.machine_factor(STREAM) * (card.kernels.launch_seconds + moving_s)
