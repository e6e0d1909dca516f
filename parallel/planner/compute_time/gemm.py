"""Seconds of one matrix product on one card, from tiles, waves, bytes and the power limit.

A product `y[m, n] = x[m, k] w[k, n]` is cut into tiles of the output, each worked on by one
streaming multiprocessor (SM). Its time is

    launch + (compute^4 + memory^4)^(1/4)
    compute = min over tiles, splits:
              ceil(tiles * splits / SMs) * (k / splits * FLOPs / rate + fill) + merging
    memory  = bytes read and written once / (bandwidth * reached share)

and is stretched where the board's power, `static + (joules of FLOPs and bytes) / time`, passes its
limit. Tiles and waves: NVIDIA, "Matrix Multiplication Background User's Guide" (2023). The fourth
power is a smooth maximum: loads and products overlap, but not quite where they take as long.
"""

from math import ceil, exp

from parallel.errors import ParallelError
from parallel.hardware.card import Card
from parallel.hardware.kernel_parameters import MatrixParameters

OPERAND_BYTES = {"fp32": 4.0, "bf16": 2.0, "fp8": 1.0, "fp8-blockwise": 1.0, "mxfp8": 1.03125,
                 "nvfp4": 0.5625}  # fmt: skip
"""Bytes of an element of x and w, block scales included (MXFP8: one byte for 32; NVFP4: for 16)."""

MAIN_GRADIENT_BYTES = 8.0
"""Bytes moved for an element of an fp32 main gradient: read, added to, written."""

PARAMETERS_OF = {"fp32": "bf16", "mxfp8": "fp8"}
"""Whose fitted parameters a precision without a table of its own takes."""

_RATES_OF = {"fp8-blockwise": "fp8", "mxfp8": "fp8"}
_SHARPNESS = 4
_SPLITS = (2, 4, 8)
_SHORTEST_SPLIT = 256
"""k of one split; shorter ones only add partial sums."""


def matrix_parameters(card: Card, precision: str) -> MatrixParameters:
    """Return a precision's fitted parameters; ParallelError where the card has no such kernels."""
    found = card.kernels.matrix.get(PARAMETERS_OF.get(precision, precision))
    if found is None or not _has_rate(card, precision):
        known = ", ".join(
            name
            for name in OPERAND_BYTES
            if _has_rate(card, name) and PARAMETERS_OF.get(name, name) in card.kernels.matrix
        )
        raise ParallelError(
            f"precision {precision!r}: {card.name} has no matrix products in it; choose {known}"
        )
    return found


def _has_rate(card: Card, precision: str) -> bool:
    """Return whether the card's matrix units know a precision; MXFP8 came with Blackwell."""
    if precision == "mxfp8" and card.architecture != "blackwell":
        return False
    return getattr(card.rates, _RATES_OF.get(precision, precision), None) is not None


def peak_flops_per_s(card: Card, precision: str) -> float:
    """Return the dense peak of a precision, which `matrix_parameters` found, in FLOP/s."""
    rate: float = getattr(card.rates, _RATES_OF.get(precision, precision))
    return rate


def gemm_seconds(
    card: Card,
    m: float,
    n: float,
    k: float,
    precision: str,
    *,
    output_bytes: float = 2.0,
    repetitions: int | None = None,
) -> float:
    """Return the seconds of `y[m, n] = x[m, k] w[k, n]`.

    Args:
        card: The card.
        m: Rows of x (tokens, in a forward pass).
        n: Columns of w.
        k: Elements summed for each of y.
        precision: A key of `OPERAND_BYTES`; operands are given in it (casts are separate).
        output_bytes: Bytes moved for an element of y; 8 adds to an fp32 gradient.
        repetitions: Products run back to back from a cool start; None: the power limit governs,
            as in training.
    """
    if min(m, n, k) <= 0:
        return 0.0
    parameters = matrix_parameters(card, precision)
    moved = OPERAND_BYTES[precision] * k * (m + n) + output_bytes * m * n
    compute_s = min(
        _waves_and_splits(card, step_s * k, parameters, ceil(m / rows) * ceil(n / columns), k)
        for rows, columns, step_s in tile_steps(card, parameters, precision)
    )
    return limited_seconds(card, precision, 2.0 * m * n * k, compute_s, moved, repetitions)


def tile_steps(
    card: Card, parameters: MatrixParameters, precision: str
) -> list[tuple[int, int, float]]:
    """Return rows and columns of the tiles a precision has kernels for, largest first.

    With each: the seconds in which one SM multiplies the tile over one step of k, without filling
    and draining.
    """
    tiles = [tile for tile in card.kernels.tiles if tile[0] * tile[1] <= parameters.largest_tile]
    least_loads = 1 / tiles[0][0] + 1 / tiles[0][1]
    rate = peak_flops_per_s(card, precision) * parameters.efficiency / card.rates.sms
    penalty = parameters.small_tile_penalty
    steps = []
    for rows, columns in tiles:
        more_loads = (1 / rows + 1 / columns) / least_loads - 1.0
        steps.append((rows, columns, 2.0 * rows * columns / rate * (1.0 + penalty * more_loads)))
    return steps


def _waves_and_splits(
    card: Card, tile_s: float, parameters: MatrixParameters, count: int, k: float
) -> float:
    """Return the seconds of `count` tiles in waves, split along k where SMs would idle."""
    sms, fill_s = card.rates.sms, parameters.tile_seconds
    best = ceil(count / sms) * (tile_s + fill_s)
    if count >= sms or not parameters.splits_k:
        return best
    for splits in _SPLITS:
        if k < splits * _SHORTEST_SPLIT:
            break
        waves = ceil(count * splits / sms)
        best = min(best, waves * (tile_s / splits + fill_s) + card.kernels.split_seconds)
    return best


def limited_seconds(
    card: Card,
    precision: str,
    flops: float,
    compute_s: float,
    moved_bytes: float,
    repetitions: int | None,
    *,
    streamed: bool = False,
) -> float:
    """Return a product's seconds from those of its tiles, its bytes and the power limit.

    `streamed`: weights that are read once and never shared by waves, as those of many experts.
    """
    kernels = card.kernels
    reached = kernels.stream_efficiency if streamed else kernels.memory_efficiency
    memory_s = moved_bytes / (card.rates.memory_bytes_per_s * reached)
    seconds = float((compute_s**_SHARPNESS + memory_s**_SHARPNESS) ** (1 / _SHARPNESS))
    joules = flops * matrix_parameters(card, precision).joules_per_flop
    joules += moved_bytes * kernels.joules_per_byte
    seconds *= power_stretch(card, seconds, joules, repetitions)
    return kernels.machine_factor(f"gemm.{precision}") * (kernels.launch_seconds + seconds)


def power_stretch(
    card: Card, seconds: float, joules: float, repetitions: int | None = None
) -> float:
    """Return by how much the board's power limit lengthens work of so many dynamic joules.

    Power above the limit lowers the clock; time grows by (power / limit)^exponent. Runs that start
    cool are held back only after the board's response time.
    """
    kernels = card.kernels
    watts = kernels.static_watts + joules / seconds
    limit = card.rates.board_watts
    if limit is None or watts <= limit:
        return 1.0
    stretch = float((watts / limit) ** kernels.throttle_exponent)
    if repetitions is None:
        return stretch
    waited = 1.0 - exp(-repetitions * seconds / kernels.power_response_seconds)
    return 1.0 + (stretch - 1.0) * waited
