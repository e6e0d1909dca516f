"""The index of a checkpoint: the shards of each global tensor, read without the engine."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from data.storage.atomic import fsync, write_json
from data.storage.checksums import file_sha256
from moe.errors import ConfigError
from moe.storage.safetensors_io import TensorReader, inherit_permissions

FORMAT = 1
INDEX = "index.json"


@dataclass(frozen=True, kw_only=True)
class TensorShard:
    """A stored shard of a global tensor; `offset` and `shape` in elements."""

    key: str
    global_shape: tuple[int, ...]
    offset: tuple[int, ...]
    shape: tuple[int, ...]
    file: str
    name: str

    def as_json(self) -> dict[str, Any]:
        """Return the shard's entry in the index, whose keys are the format's."""
        return {
            "key": self.key,
            "whole": self.global_shape,
            "offset": self.offset,
            "shape": self.shape,
            "file": self.file,
            "name": self.name,
        }

    @classmethod
    def from_json(cls, entry: dict[str, Any]) -> Self:
        """Read an entry of the index."""
        return cls(
            key=entry["key"],
            global_shape=tuple(entry["whole"]),
            offset=tuple(entry["offset"]),
            shape=tuple(entry["shape"]),
            file=entry["file"],
            name=entry["name"],
        )


class StoredTensors:
    """The global tensors of a checkpoint, read in blocks."""

    def __init__(self, directory: Path, index: dict[str, Any]) -> None:
        self.directory = directory
        self.shards: dict[str, dict[tuple[tuple[int, ...], tuple[int, ...]], TensorShard]] = {}
        for entry in index["parts"]:
            shard = TensorShard.from_json(entry)
            self.shards.setdefault(shard.key, {})[shard.offset, shard.shape] = shard
        self._files: dict[str, TensorReader] = {}

    def shape(self, key: str) -> tuple[int, ...]:
        """Return a tensor's shape.

        Raises:
            ConfigError: The checkpoint does not have it.
        """
        return self._shards_of(key)[0].global_shape

    def dtype(self, key: str) -> str:
        """Return a tensor's number format, as safetensors names it (`F32`, `BF16`)."""
        shard = self._shards_of(key)[0]
        return self._file(shard.file).dtypes[shard.name]

    def get(self, shard: TensorShard) -> torch.Tensor:
        """Return one stored shard."""
        return self._file(shard.file).read(shard.name)

    def read_block(
        self, target: torch.Tensor, key: str, offset: tuple[int, ...], shape: tuple[int, ...]
    ) -> bool:
        """Copy a block of a global tensor into `target`, which may lack leading axes of size 1.

        Returns whether the checkpoint has all of the block.
        """
        exact = self.shards.get(key, {}).get((offset, shape))
        shards = [exact] if exact is not None else self._shards_of(key)
        lead, filled = len(shape) - target.dim(), 0
        for shard in shards:
            common = _overlap(offset, shape, shard)
            if common is not None:
                mine, theirs = common
                block = self._file(shard.file).read(shard.name, theirs[lead:])
                target[mine[lead:]] = block.to(target.device)
                filled += block.numel()
        return filled == target.numel()

    def _shards_of(self, key: str) -> list[TensorShard]:
        shards = self.shards.get(key)
        if not shards:
            raise ConfigError(f"{self.directory}: the checkpoint has no tensor {key}")
        return list(shards.values())

    def _file(self, name: str) -> TensorReader:
        if name not in self._files:
            self._files[name] = TensorReader(self.directory / name)
        return self._files[name]


def _overlap(
    offset: tuple[int, ...], shape: tuple[int, ...], shard: TensorShard
) -> tuple[tuple[slice, ...], tuple[slice, ...]] | None:
    """Return the overlap as slices of the requested block and of the stored shard."""
    mine, theirs = [], []
    for a, n, b, m in zip(offset, shape, shard.offset, shard.shape, strict=True):
        low, high = max(a, b), min(a + n, b + m)
        if low >= high:
            return None
        mine.append(slice(low - a, high - a))
        theirs.append(slice(low - b, high - b))
    return tuple(mine), tuple(theirs)


def write_index(directory: Path, index: dict[str, Any]) -> None:
    """Write a checkpoint's index with its own checksum, atomically."""
    write_json(directory / INDEX, index | {"checksum": _checksum(index)})


def _checksum(index: dict[str, Any]) -> str:
    content = {key: value for key, value in index.items() if key != "checksum"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def read_index(directory: Path) -> dict[str, Any]:
    """Parse a checkpoint's index.

    Raises:
        ConfigError: It is missing, damaged, or of a newer format.
    """
    path = directory / INDEX
    try:
        index: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: missing or damaged: {error}") from None
    if index.get("format") != FORMAT:
        raise ConfigError(f"{path}: format {index.get('format')}, but this version reads {FORMAT}")
    if index.get("checksum", _checksum(index)) != _checksum(index):
        raise ConfigError(f"{path}: missing or damaged: its content does not match its checksum")
    return index


def verify_files(directory: Path) -> None:
    """Compare every file with its SHA-256.

    Raises:
        ConfigError: Names the first file that is missing, truncated or altered.
    """
    for name, digest in read_index(directory)["files"].items():
        path = directory / name
        if not _is_as_written(path, digest):
            raise ConfigError(f"{path}: missing or damaged (its SHA-256 does not match)")


def _is_as_written(path: Path, digest: str) -> bool:
    try:
        return file_sha256(path) == digest
    except OSError:
        return False


def write_tensors(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Write a safetensors file and force it to disk.

    Raises:
        OSError: The storage refuses, or is full.
    """
    try:
        save_file(tensors, path)
    except SafetensorError as error:
        # safetensors wraps what the system said.
        raise OSError(f"{path}: {error}") from None
    inherit_permissions(path)
    fsync(path)
