"""Which tensor of a Megatron checkpoint holds which of ours.

Our names are megatron-core's own, so what differs is how it stores them: layers stacked in one
tensor [L, ..] or each under its number, experts stacked [E, ..] or each under its number, gate and
up in one tensor or two, and a vocabulary with rows that fill up to a multiple.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from moe.config.model import ModelConfig
from moe.config.tensor_names import FFN_NORM, FUSED_FFN_NORM, ROUTED_EXPERTS
from moe.convert.tensor_map import Names, TensorMap, tensor_map
from moe.storage.safetensors_io import TensorShape, Where

LEFT_BEHIND = {
    "optimizer": re.compile(r"(chained_\d+\.)?optimizer\.|optimizer_|opt_param_scheduler"),
    "extra state": re.compile(r".*\._extra_state(/|$)"),
    "random state": re.compile(r"rng_state(/|$)"),
    "training state": re.compile(r"rerun_state_machine_state|common_state/|content_metadata"),
}
"""What of a checkpoint is no weight, by the name it is counted under."""
VOCABULARY = ("embedding.word_embeddings.weight", "output_layer.weight")
_LAYER = re.compile(r"(decoder\.layers\.)(\d+)\.(.*)")
_PREDICTION = re.compile(r"(mtp\.layers\.\d+)\.transformer_layer\.(.*)")
_NORMS_OF_LATENT = re.compile(r"self_attention\.linear_(q|kv)_up_proj\.layer_norm_(.*)")


def left_behind(key: str) -> str | None:
    """Return under what name a key of no weight is counted, or None."""
    return next((name for name, keys in LEFT_BEHIND.items() if keys.match(key)), None)


@dataclass
class Placed:
    """Where the weights of a model are in a checkpoint, and what is wrong."""

    mapping: TensorMap = field(default_factory=TensorMap)
    missing: list[str] = field(default_factory=list)
    misshapen: list[str] = field(default_factory=list)
    used: set[str] = field(default_factory=set)


def place_tensors(model: ModelConfig, shapes: Mapping[str, TensorShape]) -> Placed:
    """Find every tensor of a model among `shapes`."""
    placed = Placed()
    for key, shape in tensor_map(model, Names()).ours.items():
        if ROUTED_EXPERTS in key:
            for expert in range(shape[0]):
                _place(placed, key, shape, (slice(expert, expert + 1),), shapes)
        else:
            _place(placed, key, shape, (), shapes)
    placed.missing = list(dict.fromkeys(placed.missing))
    return placed


@dataclass(frozen=True)
class _Candidate:
    """A tensor that may hold one of ours, or its block: below `lead`, an index on each axis."""

    name: str
    lead: tuple[int, ...]
    sizes: tuple[int, ...]
    """Of the leading axes."""
    rest: TensorShape
    """What is left of our shape."""


def _place(
    placed: Placed,
    key: str,
    shape: TensorShape,
    where: Where,
    shapes: Mapping[str, TensorShape],
) -> None:
    """Find a tensor, or one expert of it."""
    expert = where[0].start if where else None
    candidates = list(_candidates(key, shape, expert, shapes))
    for candidate in candidates:
        if candidate.name in shapes:
            _add(placed, key, shape, expert, (candidate,), shapes)
            return
        halves = tuple(
            _Candidate(
                f"{candidate.name}_{half}",
                candidate.lead,
                candidate.sizes,
                (candidate.rest[0] // 2, *candidate.rest[1:]),
            )
            for half in "wv"
        )
        if all(half.name in shapes for half in halves):
            _add(placed, key, shape, expert, halves, shapes)
            return
    placed.missing.append(candidates[0].name)


def _candidates(
    key: str, shape: TensorShape, expert: int | None, shapes: Mapping[str, TensorShape]
) -> Iterator[_Candidate]:
    """Yield where a tensor may be; what most checkpoints have comes first."""
    for name, lead, sizes in _layer_places(key, shapes):
        if expert is None:
            yield _Candidate(name, lead, sizes, shape)
            continue
        yield _Candidate(name, (*lead, expert), (*sizes, shape[0]), shape[1:])
        own = name.replace(ROUTED_EXPERTS, f"{ROUTED_EXPERTS}{expert}.")
        yield _Candidate(own, lead, sizes, shape[1:])


def _layer_places(
    key: str, shapes: Mapping[str, TensorShape]
) -> Iterator[tuple[str, tuple[int, ...], tuple[int, ...]]]:
    """Yield names, with the layer's place on the first axis where layers are stacked."""
    if match := _LAYER.fullmatch(key):
        layers, number, rest = match[1], int(match[2]), match[3]
        for name in _other_names(rest):
            yield f"{layers}{number}.{name}", (), ()
            stacked = shapes.get(f"{layers}{name}")
            if stacked:
                yield f"{layers}{name}", (number,), stacked[:1]
    elif match := _PREDICTION.fullmatch(key):
        for inner in ("transformer_layer", "mtp_model_layer"):
            for name in _other_names(match[2]):
                yield f"{match[1]}.{inner}.{name}", (), ()
    else:
        yield key, (), ()


def _other_names(rest: str) -> Iterator[str]:
    """Yield names of a layer's tensor: Transformer Engine's specs, then megatron-core's local."""
    yield rest
    if rest.startswith(FFN_NORM):  # the local spec names this norm so in sparse layers as well
        yield rest.replace(FFN_NORM, FUSED_FFN_NORM)
    elif match := _NORMS_OF_LATENT.fullmatch(rest):
        yield f"self_attention.{match[1]}_layernorm.{match[2]}"


def _add(
    placed: Placed,
    key: str,
    shape: TensorShape,
    expert: int | None,
    candidates: tuple[_Candidate, ...],
    shapes: Mapping[str, TensorShape],
) -> None:
    """Add the block or blocks that candidates hold, one after the other on our rows."""
    row = 0
    for one in candidates:
        theirs, wanted = shapes[one.name], (*one.sizes, *one.rest)
        placed.used.add(one.name)
        padded = key in VOCABULARY and theirs[1:] == wanted[1:] and theirs[0] > wanted[0]
        short = any(at >= size for at, size in zip(one.lead, theirs, strict=False))
        if (theirs != wanted and not padded) or short:
            placed.misshapen.append(f"{one.name} {list(theirs)}, wanted {list(wanted)}")
            continue
        inside = tuple(slice(at, at + 1) for at in one.lead)
        first = () if expert is None else (expert,)
        size: TensorShape = (*(1 for _ in first), *one.rest)
        start = (*first, row, *(0 for _ in one.rest[1:]))
        rows = slice(0, one.rest[0])
        placed.mapping.block(key, shape, one.name, theirs, start, size, (*inside, rows))
        row += one.rest[0]
