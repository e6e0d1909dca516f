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
from moe.storage.safetensors_io import TensorShape

LEFT_BEHIND = {
    "optimizer": re.compile(r"(chained_[0-9]+\.)?optimizer\.|optimizer_|opt_param_scheduler"),
    "extra state": re.compile(r".*\._extra_state(/|$)"),
    "random state": re.compile(r"\w*rng_state(/|$)"),
    "training state": re.compile(r"rerun_state_machine_state|common_state/|content_metadata"),
}
"""What of a checkpoint is no weight, by the name it is counted under."""
VOCABULARY = ("embedding.word_embeddings.weight", "output_layer.weight")
_LAYER = re.compile(r"(decoder\.layers\.)([0-9]{1,9})\.(.*)")
_PREDICTION = re.compile(r"(mtp\.layers\.[0-9]{1,9})\.transformer_layer\.(.*)")
_FUSED_INPUT_NORM = "self_attention.linear_qkv.layer_norm_"
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
                _place(placed, _Wanted(key, shape, model.num_layers, expert), shapes)
        else:
            _place(placed, _Wanted(key, shape, model.num_layers), shapes)
    placed.missing = list(dict.fromkeys(placed.missing))
    placed.misshapen = list(dict.fromkeys(placed.misshapen))
    return placed


@dataclass(frozen=True)
class _Wanted:
    """A tensor of ours, or one expert's part of it."""

    key: str
    shape: TensorShape
    num_layers: int
    expert: int | None = None


@dataclass(frozen=True)
class _Candidate:
    """A tensor that may hold one of ours, or its block: below `lead`, an index on each axis."""

    name: str
    lead: tuple[int, ...]
    sizes: tuple[int, ...]
    """Of the leading axes."""
    rest: TensorShape
    """What is left of our shape."""


def _place(placed: Placed, wanted: _Wanted, shapes: Mapping[str, TensorShape]) -> None:
    """Find a tensor, or one expert of it."""
    candidates = list(_candidates(wanted))
    for candidate in candidates:
        if candidate.name in shapes:
            _add(placed, wanted, (candidate,), shapes)
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
            _add(placed, wanted, halves, shapes)
            return
    placed.missing.append(candidates[0].name)


def _candidates(wanted: _Wanted) -> Iterator[_Candidate]:
    """Yield where a tensor may be."""
    shape, expert = wanted.shape, wanted.expert
    for name, lead, sizes in _layer_places(wanted):
        if expert is None:
            yield _Candidate(name, lead, sizes, shape)
            continue
        yield _Candidate(name, (*lead, expert), (*sizes, shape[0]), shape[1:])
        own = name.replace(ROUTED_EXPERTS, f"{ROUTED_EXPERTS}{expert}.")
        yield _Candidate(own, lead, sizes, shape[1:])


def _layer_places(wanted: _Wanted) -> Iterator[tuple[str, tuple[int, ...], tuple[int, ...]]]:
    """Yield names, with the layer's place on the first axis where layers are stacked."""
    if match := _LAYER.fullmatch(wanted.key):
        layers, number, rest = match[1], int(match[2]), match[3]
        for name in _other_names(rest):
            yield f"{layers}{number}.{name}", (), ()
            yield f"{layers}{name}", (number,), (wanted.num_layers,)
    elif match := _PREDICTION.fullmatch(wanted.key):
        for inner in ("transformer_layer", "mtp_model_layer"):
            for name in _other_names(match[2]):
                yield f"{match[1]}.{inner}.{name}", (), ()
    else:
        yield wanted.key, (), ()


def _other_names(rest: str) -> Iterator[str]:
    """Yield names of a layer's tensor: Transformer Engine's specs, then megatron-core's local."""
    yield rest
    if rest.startswith(FFN_NORM):  # the local spec names this norm so in sparse layers as well
        yield rest.replace(FFN_NORM, FUSED_FFN_NORM)
    elif rest.startswith(FUSED_FFN_NORM):  # a local dense layer, in format `torch`
        yield rest.replace(FUSED_FFN_NORM, FFN_NORM)
    elif rest.startswith(_FUSED_INPUT_NORM):
        yield rest.replace(_FUSED_INPUT_NORM, "input_layernorm.")
    elif match := _NORMS_OF_LATENT.fullmatch(rest):
        yield f"self_attention.{match[1]}_layernorm.{match[2]}"


def _add(
    placed: Placed,
    wanted: _Wanted,
    candidates: tuple[_Candidate, ...],
    shapes: Mapping[str, TensorShape],
) -> None:
    """Add the block or blocks that candidates hold, one after the other on our rows."""
    row = 0
    for one in candidates:
        theirs, whole = shapes[one.name], (*one.sizes, *one.rest)
        placed.used.add(one.name)
        is_padded = wanted.key in VOCABULARY and theirs[1:] == whole[1:] and theirs[0] > whole[0]
        if theirs != whole and not is_padded:
            placed.misshapen.append(f"{one.name} {list(theirs)}, wanted {list(whole)}")
            continue
        inside = tuple(slice(at, at + 1) for at in one.lead)
        first = () if wanted.expert is None else (wanted.expert,)
        size: TensorShape = (*(1 for _ in first), *one.rest)
        start = (*first, row, *(0 for _ in one.rest[1:]))
        where = (*inside, slice(0, one.rest[0]))
        placed.mapping.block(wanted.key, wanted.shape, one.name, theirs, start, size, where)
        row += one.rest[0]
