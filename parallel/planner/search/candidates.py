"""Every layout that megatron-core can run a model in on a number of ranks, as plain numbers.

The rules are those of `layout_faults`; a test compares both on small cases. Numbers are kept until
a candidate is worth a `Layout`: there are tens of thousands. Those that differ only in stages share
their sizes, and the seconds of their layers.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from parallel.layout.layout import Layout
from parallel.layout.model_shape import ModelShape
from parallel.planner.search.stages import Stages, divisors, stages_of

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
    only: Mapping[str, Any] = field(default_factory=dict)
    """Values that a candidate has to have, by the names of `Sizes`, `Stages`, and `dp`."""


class Sizes(NamedTuple):
    """What the seconds of a layer depend on."""

    tp: int
    cp: int
    ep: int
    etp: int
    micro_batch_size: int


class Candidate(NamedTuple):
    """One layout and micro-batch; how it is run is chosen later."""

    sizes: Sizes
    stages: Stages
    dp: int

    def micro_batches(self, global_batch_size: int) -> int:
        """Return the micro-batches of a rank's step."""
        return global_batch_size // (self.sizes.micro_batch_size * self.dp)

    def layout(self, base: Layout, choice: Mapping[str, Any]) -> Layout:
        """Return it as a `[parallel]` section.

        Args:
            base: What neither the candidate nor the choice decides.
            choice: Other fields.
        """
        return Layout.model_validate(base.model_dump(exclude={"sp"}) | self.fields() | {**choice})

    def fields(self) -> dict[str, Any]:
        """Return the fields of `Layout` that it decides."""
        fields = self.sizes._asdict() | self.stages._asdict()
        del fields["micro_batch_size"]
        return fields


def groups(shape: ModelShape, bounds: Bounds) -> Iterator[tuple[Sizes, list[Candidate]]]:
    """Yield the legal candidates of all sizes that have any; each once, in no promised order."""
    ranks = bounds.ranks
    for tp in _tensor_sizes(shape, bounds):
        for cp in _context_sizes(shape, bounds, tp):
            dealt = _dealt(shape, bounds, tp * cp)
            for size in _asked(bounds, "micro_batch_size", bounds.micro_batches):
                able = [(stages, dp) for stages, dp in dealt if _divides(bounds, size, stages, dp)]
                for ep, etp in _expert_sizes(shape, bounds):
                    sizes = Sizes(tp, cp, ep, etp, size)
                    found = [
                        Candidate(sizes, stages, dp)
                        for stages, dp in able
                        if ranks % (stages.pp * ep * etp) == 0
                    ]
                    if found:
                        yield sizes, found


def candidates(shape: ModelShape, bounds: Bounds) -> Iterator[Candidate]:
    """Yield every legal candidate once, in no promised order."""
    for _, found in groups(shape, bounds):
        yield from found


def _asked(bounds: Bounds, name: str, values: Iterable[int]) -> list[int]:
    """Return the values that are asked about."""
    only = bounds.only.get(name)
    return [value for value in values if only in (None, value)]


def _tensor_sizes(shape: ModelShape, bounds: Bounds) -> list[int]:
    sharded = (
        shape.num_heads, shape.ffn_hidden_size, shape.shared_expert_ffn_hidden_size,
        shape.vocab_size, shape.q_lora_rank, shape.kv_lora_rank + shape.qk_rope_head_dim,
    )  # fmt: skip
    kv_heads = shape.num_kv_heads
    return [
        tp
        for tp in _asked(bounds, "tp", divisors(bounds.ranks, bounds.largest_tp))
        if all(size % tp == 0 for size in sharded) and (kv_heads % tp == 0 or tp % kv_heads == 0)
    ]


def _context_sizes(shape: ModelShape, bounds: Bounds, tp: int) -> list[int]:
    length = bounds.seq_len
    return [
        cp
        for cp in _asked(bounds, "cp", divisors(bounds.ranks // tp, bounds.largest_cp))
        if (cp == 1 or (length % (2 * cp) == 0 and length // cp >= bounds.fewest_tokens))
        and length // cp % tp == 0
    ]


def _dealt(shape: ModelShape, bounds: Bounds, width: int) -> list[tuple[Stages, int]]:
    """Return stages, and replicas of `width` ranks each."""
    only = bounds.only
    asked = [(number, only[name]) for number, name in enumerate(Stages._fields) if name in only]
    each = bounds.ranks // width
    return [
        (stages, each // stages.pp)
        for stages in stages_of(shape, each)
        if all(stages[number] == value for number, value in asked)
        and only.get("dp") in (None, each // stages.pp)
    ]


def _divides(bounds: Bounds, micro_batch_size: int, stages: Stages, dp: int) -> bool:
    """Whether the batch divides into micro-batches, and these into rounds of the stages."""
    count, rest = divmod(bounds.global_batch_size, micro_batch_size * dp)
    return not rest and count > 0 and (stages.vpp == 1 or count % stages.pp == 0)


def _expert_sizes(shape: ModelShape, bounds: Bounds) -> list[tuple[int, int]]:
    """Return `ep` and `etp`."""
    sparse = any(shape.sparse_layers)
    experts, inner = (shape.num_experts, shape.expert_ffn_hidden_size) if sparse else (1, 1)
    return [
        (ep, etp)
        for ep in _asked(bounds, "ep", divisors(experts, bounds.ranks))
        for etp in _asked(bounds, "etp", divisors(inner, 8))
        if etp & (etp - 1) == 0
    ]
