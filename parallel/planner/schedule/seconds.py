"""What a simulation is given: seconds of passes, of transfers, and of the two ends of a step."""

from dataclasses import dataclass

ByChunk = tuple[tuple[float, ...], ...]
"""Seconds, indexed [stage][chunk]."""


@dataclass(frozen=True, kw_only=True)
class PassSeconds:
    """Seconds of each pass and of each transfer between stages."""

    forward: ByChunk
    backward: ByChunk
    """With what is recomputed."""
    transfer: float = 0.0
    """Of one micro-batch's activations, or their gradient, to the next stage."""
    transfer_blocks: bool = False
    """Whether the sender waits for it: in 1F1B it does, interleaved it goes on
    (`overlap_p2p_comm`)."""
    paired_saving: ByChunk | None = None
    """Seconds that a chunk's forward pass saves where it runs beside a backward pass: the experts'
    communication that each hides of the other."""


@dataclass(frozen=True, kw_only=True)
class EndSeconds:
    """Seconds of what surrounds the passes of one step, all *modelled* elsewhere.

    Gradients are reduced after each chunk's last backward pass; all stages wait for each other at
    the norm of the gradients; the optimizer steps; parameters are gathered again. With overlap,
    gradients are reduced in buckets while the last backward passes run, and parameters are gathered
    in buckets while the next step's first forward passes run.
    """

    reduce: ByChunk
    """Reduce-scatter or all-reduce of a chunk's gradients over data-parallel ranks."""
    gather: ByChunk
    """All-gather of a chunk's parameters; 0 without the distributed optimizer."""
    optimizer: tuple[float, ...]
    """Clipping and update of each stage."""
    overlap_reduce: bool = False
    overlap_gather: bool = False
    buckets: int = 1
    """Of a chunk's gradients; one bucket cannot overlap with its own chunk's pass."""


def even(seconds: float, *, pp: int, vpp: int = 1) -> ByChunk:
    """Return the same number of seconds for every chunk of every stage."""
    return ((seconds,) * vpp,) * pp
