"""The speed that a row states, as TFLOP/s by the house's convention, and how it was got."""

import re

from parallel.errors import ParallelError
from parallel.layout.model_shape import ModelShape
from parallel.planner.flops import TERA, attention_flops_per_token, training_flops_per_token
from parallel.planner.validation.rows import PublishedRow

BF16_PEAK_TFLOPS = 989.5
"""What an H100's MFU is a share of where a row does not say."""
_GFLOP_PER_TOKEN = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?) GFLOP/token")


def published_tflops(row: PublishedRow, shape: ModelShape, seq_len: int | None) -> float | None:
    """Return TFLOP/s a card by the ledger's convention; None where the row states no speed.

    Tokens a second are the truth where a row has them; TFLOP/s or MFU are converted where their
    convention is stated, and taken as they are where it is not.

    Raises:
        ParallelError: A cell is not a number, or a convention is unknown.
    """
    tokens = tokens_per_second(row, seq_len)
    if seq_len is not None and tokens is not None:
        return tokens * training_flops_per_token(shape, seq_len) / TERA
    tflops = row.number("tflops_per_gpu")
    if tflops is None and (mfu := row.number("mfu_pct")) is not None:
        tflops = mfu / 100 * (row.number("peak_tflops_for_mfu") or BF16_PEAK_TFLOPS)
    if tflops is None:
        return None
    return tflops * _convention_factor(row, shape, seq_len)


def tokens_per_second(row: PublishedRow, seq_len: int | None) -> float | None:
    """Return tokens a second and card, printed or from the seconds of a step."""
    printed = row.number("tokens_per_s_per_gpu")
    step, sequences, cards = row.number("step_s"), row.whole("gbs"), row.whole("gpus")
    if printed is not None or not (step and sequences and cards and seq_len):
        return printed
    return sequences * seq_len / (step * cards)


def _convention_factor(row: PublishedRow, shape: ModelShape, seq_len: int | None) -> float:
    """Return the house's FLOPs a token over the row's."""
    convention = row.text("flop_convention") or "unstated"
    if convention in ("unstated", "causal-half"):
        return 1.0
    if seq_len is None:
        raise ParallelError(
            f"line {row.line}: flop_convention {convention!r} needs seq_len: fill the cell in"
        )
    ours = training_flops_per_token(shape, seq_len)
    if convention == "full-attention":
        return ours / (ours + attention_flops_per_token(shape, seq_len))
    match = _GFLOP_PER_TOKEN.fullmatch(convention)
    if match and (gflops := float(match[1])):
        return ours / (1e9 * gflops)
    raise ParallelError(
        f"line {row.line}: flop_convention {convention[:40]!r}: not causal-half, full-attention,"
        " unstated or a number of GFLOP/token"
    )
