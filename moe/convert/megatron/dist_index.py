"""The index of a `torch_dist` checkpoint: `.metadata`, where each part of each tensor lies.

PyTorch writes it as a pickle (`torch/distributed/checkpoint/metadata.py`, `filesystem.py`).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.storage.plain_name import plain_name
from data.storage.regular_file import read_regular
from moe.convert.megatron.pickle_data import AllowedNames, Name, PickleData, Record
from moe.convert.megatron.torch_archive import NUMBER_FORMATS
from moe.errors import ConfigError
from moe.storage.safetensors_io import DTYPES, TensorShape

METADATA = ".metadata"
MAX_METADATA_BYTES = 256 << 20
MAX_KEY_LENGTH = 1000
_DCP = "torch.distributed.checkpoint."
_DTYPE_NAMES = {str(dtype): name for name, dtype in DTYPES.items()}


_NAMES = AllowedNames(
    NUMBER_FORMATS
    | {"torch.Size", "torch.device", "torch.serialization._get_layout", "pathlib.PosixPath",
       "collections.OrderedDict"},
    (f"{_DCP}metadata.", f"{_DCP}planner.", f"{_DCP}filesystem.",
     "megatron.core.dist_checkpointing.strategies.torch.MCore"),
)  # fmt: skip
"""PyTorch's own of this format, and what megatron-core 0.15 added."""


@dataclass(frozen=True)
class Part:
    """A block of a tensor, or an object, as bytes of a file."""

    offset: TensorShape
    shape: TensorShape
    file: str
    first_byte: int
    length: int


@dataclass(frozen=True)
class StoredTensor:
    """A tensor's number format, shape and parts."""

    dtype: str
    """As safetensors names it; as PyTorch does where it is not one of weights."""
    shape: TensorShape
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class DistIndex:
    """What a checkpoint holds, by key."""

    tensors: dict[str, StoredTensor]
    objects: dict[str, Part]


def read_dist_index(directory: Path) -> DistIndex:
    """Read and check `.metadata`.

    Raises:
        ConfigError: It is missing or damaged, or names a class that the format does not have.
    """
    path = directory / METADATA
    try:
        content = read_regular(path, MAX_METADATA_BYTES, follow_link=False)
    except OSError as error:
        raise ConfigError(f"{path}: missing or damaged: {error.strerror or error}") from None
    value = PickleData(str(path), _NAMES).read(content)
    try:
        return _index(value)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise ConfigError(f"{path}: missing or damaged: {str(error)[:200]}") from None


def is_tensor_name(key: Any) -> bool:
    """Whether a key can be the name of a tensor, and be shown."""
    return isinstance(key, str) and key.isprintable() and len(key) <= MAX_KEY_LENGTH


def _index(metadata: Record) -> DistIndex:
    fields = _record(metadata, f"{_DCP}metadata.Metadata")
    places = {}
    for index, info in fields["storage_data"].items():
        at = _record(index, f"{_DCP}metadata.MetadataIndex")
        offset = None if at.get("offset") is None else _shape(at["offset"])
        places[_text(at["fqn"]), offset] = _record(info, f"{_DCP}filesystem._StorageInfo")
    tensors, objects = {}, {}
    for key, value in fields["state_dict_metadata"].items():
        if not is_tensor_name(key):
            raise TypeError("a key that is no name of a tensor")
        if value.kind == f"{_DCP}metadata.BytesStorageMetadata":
            objects[key] = _part((), (), places[key, None])
        else:
            tensors[key] = _tensor(key, value, places)
    return DistIndex(tensors, objects)


def _tensor(key: str, value: Record, places: dict[Any, dict[str, Any]]) -> StoredTensor:
    fields = _record(value, f"{_DCP}metadata.TensorStorageMetadata")
    properties = fields["properties"]
    dtype = properties.state[0] if isinstance(properties.state, tuple) else None
    if not isinstance(dtype, Name):
        raise TypeError(f"{key} has no number format")
    shape, parts = _shape(fields["size"]), []
    for chunk in fields["chunks"]:
        block = _record(chunk, f"{_DCP}metadata.ChunkStorageMetadata")
        offset, sizes = _shape(block["offsets"]), _shape(block["sizes"])
        if not len(offset) == len(sizes) == len(shape) or any(
            a + n > whole for a, n, whole in zip(offset, sizes, shape, strict=True)
        ):
            raise ValueError(f"a part of {key} reaches beyond the tensor")
        parts.append(_part(offset, sizes, places[key, offset]))
    return StoredTensor(_DTYPE_NAMES.get(dtype.kind, dtype.kind), shape, tuple(parts))


def _part(offset: TensorShape, shape: TensorShape, info: dict[str, Any]) -> Part:
    if info.get("transform_descriptors"):
        raise ValueError("parts that were compressed or encrypted")
    numbers = (info["offset"], info["length"])
    if not all(type(n) is int and 0 <= n < 1 << 60 for n in numbers):
        raise ValueError("a part without place and length")
    return Part(offset, shape, plain_name(_text(info["relative_path"])), *numbers)


def _record(value: Any, kind: str) -> dict[str, Any]:
    if not isinstance(value, Record) or value.kind != kind:
        raise TypeError(f"no {kind.rpartition('.')[2]} where one belongs")
    return value.fields()


def _text(value: Any) -> str:
    """Return a text; a deep tuple would overflow the stack where it is looked up."""
    if not isinstance(value, str):
        raise TypeError("no text where one belongs")
    return value


def _shape(value: Any) -> TensorShape:
    """Return a `torch.Size`, which is made of a tuple, as that tuple."""
    if not isinstance(value, Record) or value.kind != "torch.Size":
        raise TypeError("no shape where one belongs")
    (sizes,) = value.arguments
    if not isinstance(sizes, tuple) or len(sizes) > 64:
        raise TypeError("no shape where one belongs")
    if not all(type(n) is int and 0 <= n < 1 << 48 for n in sizes):
        raise ValueError("a shape that is none")
    return sizes
