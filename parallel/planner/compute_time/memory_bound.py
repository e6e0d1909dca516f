"""Seconds of kernels whose time is that of their bytes: norms, activations, casts, permutations.

    seconds = launch + bytes / (memory bandwidth * reached share)

Fitted on fp8_quantize.csv and norm_train.csv (shared/reference/hardware). What fits the last-level
cache when it is read again goes faster than this says.
"""

from parallel.hardware.card import Card


def stream_seconds(card: Card, moved_bytes: float, kernels: float = 1.0) -> float:
    """Return the seconds of so many kernels that read and write `moved_bytes` together."""
    if moved_bytes <= 0:
        return 0.0
    reached = card.rates.memory_bytes_per_s * card.kernels.stream_efficiency
    return kernels * card.kernels.launch_seconds + moved_bytes / reached


def gather_seconds(card: Card, moved_bytes: float) -> float:
    """Return the seconds of a kernel that gathers or scatters rows: permute, unpermute."""
    if moved_bytes <= 0:
        return 0.0
    reached = card.rates.memory_bytes_per_s * card.kernels.gather_efficiency
    return card.kernels.launch_seconds + moved_bytes / reached
