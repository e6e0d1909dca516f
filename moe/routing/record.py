"""Records of routing decisions: which experts each token went to, in memory and as a file.

Shapes: T tokens without padding, K experts per token.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import PositiveInt, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from data.frozen_model import FrozenModel
from data.storage.atomic import atomic_path
from data.storage.regular_file import open_regular
from moe.errors import ConfigError, StorageError
from moe.model.routing_rule import RoutingDecision
from moe.storage.safetensors_io import inherit_permissions

_METADATA = "moescale.routing"
"""Key of a file's metadata; its value is a `RecordOrigin` as JSON."""
_DTYPES = ((256, torch.uint8), (1 << 15, torch.int16), (1 << 31, torch.int32))
"""Most experts that a number format can tell apart, the smallest first."""


class RecordOrigin(FrozenModel):
    """What was routed, and by which model."""

    format: Literal[2] = 2
    """Of the file. Format 1 had no description of its content."""
    run: str
    """The run's directory, as it was given."""
    step: int
    """Optimizer steps behind the weights."""
    store: str
    """The token store."""
    split: str
    """The part of the store."""
    seq_len: PositiveInt
    """Tokens of a sequence."""
    micro_batch_size: PositiveInt
    """Sequences of a forward pass, at most."""
    num_experts: PositiveInt
    """Routed experts of a layer."""
    top_k: PositiveInt
    """Experts of a token."""


class RoutingRecord:
    """The experts of every forward pass: for each sparse layer (from 1), [T, K] per pass.

    Tokens stand in the model's order: all sequences of a pass at the first place, at the next, ...
    """

    def __init__(
        self, passes: dict[int, list[Tensor]] | None = None, origin: RecordOrigin | None = None
    ) -> None:
        self.passes: dict[int, list[Tensor]] = passes or {}
        self.origin = origin
        """None where the record is not for a file."""

    def add(self, layer_number: int, decision: RoutingDecision) -> None:
        """Append the experts of a decision."""
        experts = decision.experts.to("cpu", torch.int32)
        self.passes.setdefault(layer_number, []).append(experts)

    def save(self, path: Path) -> None:
        """Write a safetensors file with tensors of integers named `layer.pass`.

        Raises:
            StorageError: The file cannot be written.
        """
        assert self.origin is not None
        dtype = _dtype_for(self.origin.num_experts)
        tensors = {
            f"{layer}.{number}": experts.to(dtype).contiguous()
            for layer, passes in self.passes.items()
            for number, experts in enumerate(passes)
        }
        metadata = {_METADATA: self.origin.model_dump_json()}
        try:
            with atomic_path(path) as temporary:
                save_file(tensors, temporary, metadata=metadata)
                inherit_permissions(temporary)
        except (OSError, SafetensorError) as error:
            raise StorageError(f"{path}: {error}") from None

    @classmethod
    def load(cls, path: Path) -> "RoutingRecord":
        """Read what `save` wrote.

        Raises:
            ConfigError: There is no such file, or it is not a routing record.
        """
        try:
            open_regular(path).close()  # the library would wait for a pipe's writer
            with safe_open(path, "pt") as file:
                origin = _read_origin(file.metadata())
                passes: dict[int, dict[int, Tensor]] = {}
                for key in file.keys():  # noqa: SIM118 - not a mapping
                    layer, number = _layer_and_pass(key)
                    passes.setdefault(layer, {})[number] = _experts(file.get_tensor(key), origin)
            return cls(_in_order(passes), origin)
        except (OSError, SafetensorError, ValueError) as error:
            fault = f"{error.strerror}" if isinstance(error, OSError) and error.errno else error
            line = " ".join(str(fault).split())
            raise ConfigError(f"{path}: no record of routing decisions: {line[:200]}") from None


def _dtype_for(num_experts: int) -> torch.dtype:
    return next(dtype for most, dtype in _DTYPES if num_experts <= most)


def _read_origin(metadata: Mapping[str, str] | None) -> RecordOrigin:
    """Return the description of a file.

    Raises:
        ValueError: It has none, or another format's.
    """
    text = (metadata or {}).get(_METADATA)
    if text is None:
        raise ValueError("it does not say whose: record it with moe eval --record-routing")
    try:
        return RecordOrigin.model_validate(json.loads(text), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(map(str, first["loc"])) or "its description"
        raise ValueError(f"{field}: {first['msg']}: record it again") from None
    except RecursionError:
        raise ValueError("its description is nested too deeply") from None


def _layer_and_pass(key: str) -> tuple[int, int]:
    layer, _, number = key.partition(".")
    if not (layer.isdecimal() and number.isdecimal() and len(key) < 40):
        raise ValueError(f"tensor {key[:40]!r} names no layer and pass")
    if f"{int(layer)}.{int(number)}" != key or int(layer) < 1:
        raise ValueError(f"tensor {key!r} names no layer and pass")
    return int(layer), int(number)


def _experts(experts: Tensor, origin: RecordOrigin) -> Tensor:
    """Return a tensor of a record as [T, K] in int32.

    Raises:
        ValueError: It holds something else than different experts of the model for each token.
    """
    shape, dtype = tuple(experts.shape), experts.dtype
    if dtype != _dtype_for(origin.num_experts) or len(shape) != 2 or shape[1] != origin.top_k:
        raise ValueError(
            f"a tensor is {str(dtype).removeprefix('torch.')} {list(shape)}, and not"
            f" {origin.top_k} of {origin.num_experts} experts for each token"
        )
    experts = experts.int()
    if experts.numel() and not 0 <= int(experts.min()) <= int(experts.max()) < origin.num_experts:
        raise ValueError(f"a token goes to an expert that is none of {origin.num_experts}")
    ordered = experts.sort(dim=1).values
    if bool((ordered[:, 1:] == ordered[:, :-1]).any()):
        raise ValueError("a token goes to one expert twice")
    return experts


def _in_order(passes: Mapping[int, Mapping[int, Tensor]]) -> dict[int, list[Tensor]]:
    """Return each layer's passes as a list.

    Raises:
        ValueError: A pass is missing, or layers had other tokens; or there is none at all.
    """
    sizes: Any = None
    ordered = {}
    for layer in sorted(passes):
        by_number = passes[layer]
        if any(number not in by_number for number in range(len(by_number))):
            raise ValueError(f"a pass of layer {layer} is missing")
        ordered[layer] = [by_number[number] for number in range(len(by_number))]
        own = [len(experts) for experts in ordered[layer]]
        if sizes is not None and own != sizes:
            raise ValueError(f"layer {layer} has other passes than the layers before")
        sizes = own
    if not sizes or not sum(sizes):
        raise ValueError("it holds no token")
    return ordered
