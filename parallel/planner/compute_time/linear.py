"""Seconds of one linear layer: forward, gradient of its input, gradient of its weight.

`y[t, n] = x[t, k] w[n, k]^T`: forward is the product (t, n, k), the input's gradient (t, k, n), the
weight's (n, k, t), which adds to an fp32 main gradient (read and written: 8 bytes an element).
Measured with Transformer Engine on B200, dense backward products take 1.02 and 1.03 times the
forward one (gemm_train_b200_te.csv).
"""

from parallel.hardware.card import Card
from parallel.planner.compute_time.gemm import MAIN_GRADIENT_BYTES, gemm_seconds


def linear_forward_seconds(
    card: Card, tokens: float, columns: float, depth: float, precision: str
) -> float:
    """Return the seconds of the forward product, casts not included."""
    return gemm_seconds(card, tokens, columns, depth, precision)


def linear_dgrad_seconds(
    card: Card, tokens: float, columns: float, depth: float, precision: str
) -> float:
    """Return the seconds of the gradient of the layer's input."""
    return gemm_seconds(card, tokens, depth, columns, precision)


def linear_wgrad_seconds(
    card: Card, tokens: float, columns: float, depth: float, precision: str
) -> float:
    """Return the seconds of the gradient of the layer's weight, added to the main gradient."""
    return gemm_seconds(card, columns, depth, tokens, precision, output_bytes=MAIN_GRADIENT_BYTES)
