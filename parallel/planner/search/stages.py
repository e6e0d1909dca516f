"""How a model's layers are dealt over pipeline stages: every way that megatron-core can run."""

from collections.abc import Iterator
from functools import cache
from itertools import accumulate
from typing import NamedTuple

from parallel.layout.model_shape import ModelShape


class Stages(NamedTuple):
    """Stages, chunks of each, and the layers of each chunk."""

    pp: int = 1
    vpp: int = 1
    ends_count_as_layers: bool = False
    stage_layers: tuple[int, ...] | None = None

    @property
    def is_interleaved(self) -> bool:
        """Whether a forward can run beside a backward pass: several chunks, or one stage."""
        return self.pp == 1 or self.vpp > 1

    def chunk_bounds(self, num_layers: int) -> list[int]:
        """Return the first layer of each chunk in the model's order, then the number of layers.

        As `Layout.chunk_layers` deals them.
        """
        if self.stage_layers is not None:
            return list(accumulate(self.stage_layers, initial=0))
        return _even_bounds(num_layers, self.pp * self.vpp, self.ends_count_as_layers)


def stages_of(shape: ModelShape, ranks: int) -> Iterator[Stages]:
    """Yield the ways to deal a model's layers over stages of so many ranks in all.

    Chunks are even, or the ends count as layers; where neither divides for a number of stages, they
    are as even as can be, for 1, 2, 4, ... chunks a stage. Of even chunks, those of the last stage
    may hold one layer fewer, where its head is the work of one.
    """
    relieves = _has_heavy_head(shape)
    layers = shape.num_layers
    tied = shape.tie_embeddings and shape.mtp_layers > 0
    yield Stages()
    if tied:
        return
    for pp in divisors(ranks, min(layers, ranks))[1:]:
        divides = False
        for vpp in range(1, layers // pp + 1):
            if layers % (pp * vpp) == 0:
                yield Stages(pp, vpp)
                if relieves and layers > pp * vpp:
                    yield Stages(pp, vpp, stage_layers=_relieved(layers, pp * vpp))
                divides = True
            elif (layers + 2) % (pp * vpp) == 0 and layers + 2 > pp * vpp:
                yield Stages(pp, vpp, ends_count_as_layers=True)
                divides = True
        vpp = 1
        while not divides and vpp * pp <= layers:
            yield Stages(pp, vpp, stage_layers=_dealt(layers, pp * vpp))
            vpp *= 2


def _relieved(layers: int, chunks: int) -> tuple[int, ...]:
    """Return layers a chunk, even but for one that the last hands on to the one before it."""
    each = layers // chunks
    return (*[each] * (chunks - 2), each + 1, each - 1)


def _has_heavy_head(shape: ModelShape) -> bool:
    """Whether the heads have more parameters than a token sees of a layer."""
    head = (1 + shape.mtp_layers) * shape.vocab_size * shape.hidden_size
    network = shape.dense_ffn.sharded
    if shape.sparse_layers[-1]:
        network = shape.router_and_shared.sharded + shape.top_k * shape.expert.sharded
    return head > shape.attention.sharded + network


def _dealt(layers: int, chunks: int) -> tuple[int, ...]:
    """Return layers a chunk, as even as can be; the last, which hold the head, get fewer."""
    each, rest = divmod(layers, chunks)
    return tuple(each + (chunk < rest) for chunk in range(chunks))


@cache
def divisors(number: int, largest: int) -> list[int]:
    """Return the divisors of a number up to `largest`, rising."""
    return [n for n in range(1, min(number, largest) + 1) if number % n == 0]


@cache
def _even_bounds(num_layers: int, chunks: int, ends_count_as_layers: bool) -> list[int]:
    offset = 1 if ends_count_as_layers else 0
    each = (num_layers + 2 * offset) // chunks
    return [max(0, min(i * each - offset, num_layers)) for i in range(chunks + 1)]
