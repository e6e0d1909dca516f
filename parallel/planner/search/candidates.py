"""Every layout that megatron-core can run a model in on a number of ranks, as plain numbers.

The rules are those of `layout_faults`; a test compares both on small cases. Numbers are kept until
a candidate is worth a `Layout`: there are tens of thousands.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from typing import Any

from parallel.layout.layout import Layout
from parallel.layout.model_shape import ModelShape

MICRO_BATCHES = (1, 2, 4, 8)


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """What a search may try."""

    ranks: int
    seq_len: int
    global_batch_size: int
    """Sequences a step."""
    largest_tp: int
    """Tensor parallelism stays inside an NVLink domain."""
    largest_cp: int = 64
    micro_batches: tuple[int, ...] = MICRO_BATCHES
    """Sequences of a micro-batch that are tried."""
    exchange_libraries: tuple[str, ...] = ("alltoall",)
    """What may exchange tokens between experts' ranks."""
    fewest_tokens: int = 512
    """Tokens of a rank's share of a sequence below which no layout is worth a try."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One layout and micro-batch; how it is run is chosen later."""

    tp: int
    cp: int
    pp: int
    vpp: int
    ep: int
    etp: int
    micro_batch_size: int
    dp: int
    ends_count_as_layers: bool
    stage_layers: tuple[int, ...] | None

    def chunk_bounds(self, num_layers: int) -> list[int]:
        """Return the first layer of each chunk in the model's order, then the number of layers.

        As `Layout.chunk_layers` deals them.
        """
        if self.stage_layers is not None:
            return list(accumulate(self.stage_layers, initial=0))
        return _even_bounds(num_layers, self.pp * self.vpp, self.ends_count_as_layers)

    def layout(self, base: Layout, choice: Mapping[str, Any]) -> Layout:
        """Return it as a `[parallel]` section.

        Args:
            base: What neither the candidate nor the choice decides.
            choice: Other fields.
        """
        return Layout.model_validate(
            base.model_dump(exclude={"sp"})
            | {
                "tp": self.tp, "cp": self.cp, "pp": self.pp, "vpp": self.vpp,
                "ep": self.ep, "etp": self.etp,
                "ends_count_as_layers": self.ends_count_as_layers,
                "stage_layers": self.stage_layers,
            }
            | dict(choice)
        )  # fmt: skip


def candidates(shape: ModelShape, bounds: Bounds) -> Iterator[Candidate]:
    """Yield every legal candidate once, in no promised order."""
    for tp in _tensor_sizes(shape, bounds):
        for cp in _context_sizes(shape, bounds, tp):
            for pp, vpp, ends, stages in _depths(shape, bounds.ranks // (tp * cp)):
                dp, rest = divmod(bounds.ranks, tp * cp * pp)
                if rest:
                    continue
                for size in _micro_batches(bounds, dp, pp, vpp):
                    for ep, etp in _expert_sizes(shape, bounds.ranks // pp):
                        yield Candidate(tp, cp, pp, vpp, ep, etp, size, dp, ends, stages)


def _tensor_sizes(shape: ModelShape, bounds: Bounds) -> list[int]:
    sharded = (
        shape.num_heads, shape.ffn_hidden_size, shape.shared_expert_ffn_hidden_size,
        shape.vocab_size, shape.q_lora_rank, shape.kv_lora_rank + shape.qk_rope_head_dim,
    )  # fmt: skip
    kv_heads = shape.num_kv_heads
    return [
        tp
        for tp in _divisors(bounds.ranks, bounds.largest_tp)
        if all(size % tp == 0 for size in sharded) and (kv_heads % tp == 0 or tp % kv_heads == 0)
    ]


def _context_sizes(shape: ModelShape, bounds: Bounds, tp: int) -> list[int]:
    length = bounds.seq_len
    return [
        cp
        for cp in _divisors(bounds.ranks // tp, bounds.largest_cp)
        if (cp == 1 or (length % (2 * cp) == 0 and length // cp >= bounds.fewest_tokens))
        and length // cp % tp == 0
    ]


def _depths(
    shape: ModelShape, ranks: int
) -> Iterator[tuple[int, int, bool, tuple[int, ...] | None]]:
    """Yield stages, chunks a stage, whether ends count, and uneven stages where nothing divides."""
    layers = shape.num_layers
    tied = shape.tie_embeddings and shape.mtp_layers > 0
    for pp in _divisors(ranks, min(layers, ranks)):
        if pp == 1:
            yield 1, 1, False, None
            continue
        if tied:
            continue
        divides = False
        for vpp in range(1, layers // pp + 1):
            if layers % (pp * vpp) == 0:
                yield pp, vpp, False, None
                divides = True
            elif (layers + 2) % (pp * vpp) == 0 and layers + 2 > pp * vpp:
                yield pp, vpp, True, None
                divides = True
        if not divides:
            yield pp, 1, False, _dealt(layers, pp)


def _dealt(layers: int, stages: int) -> tuple[int, ...]:
    """Return layers a stage, as even as can be; the last stages, which hold the head, get fewer."""
    each, rest = divmod(layers, stages)
    return tuple(each + (stage < rest) for stage in range(stages))


def _micro_batches(bounds: Bounds, dp: int, pp: int, vpp: int) -> list[int]:
    sizes = []
    for size in bounds.micro_batches:
        count, rest = divmod(bounds.global_batch_size, size * dp)
        if not rest and count and (vpp == 1 or count % pp == 0):
            sizes.append(size)
    return sizes


def _expert_sizes(shape: ModelShape, ranks: int) -> list[tuple[int, int]]:
    """Return `ep` and `etp` on the ranks of one stage."""
    if not any(shape.sparse_layers):
        return [(1, 1)]
    return [
        (ep, etp)
        for ep in _divisors(shape.num_experts, ranks)
        for etp in _divisors(shape.expert_ffn_hidden_size, 8)
        if ranks % (ep * etp) == 0 and etp & (etp - 1) == 0
    ]


@cache
def _even_bounds(num_layers: int, chunks: int, ends_count_as_layers: bool) -> list[int]:
    offset = 1 if ends_count_as_layers else 0
    each = (num_layers + 2 * offset) // chunks
    return [max(0, min(i * each - offset, num_layers)) for i in range(chunks + 1)]


@cache
def _divisors(number: int, largest: int) -> list[int]:
    return [n for n in range(1, min(number, largest) + 1) if number % n == 0]
