"""The index of a checkpoint: the shards of each global tensor, read without the engine."""

import hashlib
import json
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from data.storage.atomic import fsync, write_json
from data.storage.bounded_json import MAX_JSON_BYTES, parse_json
from data.storage.checksums import file_sha256
from data.storage.regular_file import read_regular
from moe.checkpoint.first_format import with_todays_names
from moe.checkpoint.index_format import READABLE_FORMATS, CheckpointIndex, TensorShard
from moe.checkpoint.regions import Region, common_regions, regions_meet
from moe.config.experiment import validated
from moe.errors import ConfigError
from moe.storage.safetensors_io import TensorReader, inherit_permissions

INDEX = "index.json"
MAX_INDEX_BYTES = 1 << 30
"""An entry has about 200 bytes, and a model of 10**12 parameters some 10**6 of them."""


class StoredTensors:
    """The global tensors of a checkpoint, read in blocks."""

    def __init__(self, directory: Path, index: CheckpointIndex) -> None:
        self.directory = directory
        self.shards: dict[str, dict[tuple[tuple[int, ...], tuple[int, ...]], TensorShard]] = {}
        for shard in index.parts:
            if not shard.is_pickled:
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
        return self._file_of(shard).dtypes[shard.name]

    def get(self, shard: TensorShard) -> torch.Tensor:
        """Return one stored shard."""
        return self._file_of(shard).read(shard.name)

    def read_block(
        self, target: torch.Tensor, key: str, offset: tuple[int, ...], shape: tuple[int, ...]
    ) -> bool:
        """Copy a block of a global tensor into `target`, which may lack leading axes of size 1.

        Returns whether the checkpoint has all of the block.
        """
        exact = self.shards.get(key, {}).get((offset, shape))
        shards = [exact] if exact is not None else self._shards_of(key)
        if len(offset) != len(shards[0].offset):
            return False
        lead, filled = len(shape) - target.dim(), 0
        copied: list[Region] = []
        for shard in shards:
            common = common_regions(offset, shape, shard.offset, shard.shape)
            if common is not None:
                mine, theirs = common
                block = self._read(shard, theirs)
                if block.is_floating_point() != target.is_floating_point():
                    raise self._misfit(shard, f"has numbers of another kind ({block.dtype})")
                region = target[mine[lead:]]
                region.copy_(block.reshape(region.shape))
                filled += block.numel()
                copied.append(mine)
        if any(regions_meet(a, b) for a, b in combinations(copied, 2)):
            # Counted twice, one would stand for elements that no shard has.
            raise ConfigError(f"{self.directory}: the parts of tensor {key} overlap")
        return filled == target.numel()

    def _read(self, shard: TensorShard, region: Region) -> torch.Tensor:
        """Return a region of a shard, with or without leading axes of size 1."""
        file = self._file_of(shard)
        left_out = len(shard.stored_shape) - len(file.shapes[shard.name])
        return file.read(shard.name, shard.stored_region(region)[left_out:])

    def _shards_of(self, key: str) -> list[TensorShard]:
        shards = self.shards.get(key)
        if not shards:
            raise ConfigError(f"{self.directory}: the checkpoint has no tensor {key}")
        return list(shards.values())

    def _file_of(self, shard: TensorShard) -> TensorReader:
        """Return the open file of a shard, which holds a tensor of its shape."""
        if shard.file not in self._files:
            # A link in a directory that somebody else made may lead anywhere.
            path = self.directory / shard.file
            self._files[shard.file] = TensorReader(path, follow_link=False)
        file = self._files[shard.file]
        stored = file.shapes.get(shard.name)
        # Leading axes of size 1 may be left out: megatron-core adds them to a layer's tensors.
        wanted = shard.stored_shape
        lead = len(wanted) - len(stored or ())
        if stored is None or lead < 0 or (1,) * lead + tuple(stored) != wanted:
            found = "no such tensor" if stored is None else f"a tensor of shape {list(stored)}"
            raise self._misfit(shard, f"wants shape {list(wanted)}, and the file has {found}")
        return file

    def _misfit(self, shard: TensorShard, what: str) -> ConfigError:
        return ConfigError(
            f"{self.directory / shard.file}: tensor {shard.name} ({shard.key}) {what}: restore the"
            " checkpoint"
        )


def write_index(directory: Path, index: dict[str, Any]) -> None:
    """Write a checkpoint's index with its own checksum, atomically."""
    write_json(directory / INDEX, index | {"checksum": _checksum(index)})


def _checksum(index: dict[str, Any]) -> str:
    content = {key: value for key, value in index.items() if key != "checksum"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def read_index(directory: Path) -> CheckpointIndex:
    """Read and check a checkpoint's index.

    Raises:
        ConfigError: It is missing, damaged, of a newer format, or breaks the format's rules.
    """
    path = directory / INDEX
    index = read_object(path, MAX_INDEX_BYTES)
    version = index.get("format")
    if type(version) is not int or version not in READABLE_FORMATS:
        readable = " and ".join(map(str, READABLE_FORMATS))
        raise ConfigError(f"{path}: format {version!r:.40}, but this version reads {readable}")
    if index.get("checksum", _checksum(index)) != _checksum(index):
        raise ConfigError(f"{path}: missing or damaged: its content does not match its checksum")
    read = validated(CheckpointIndex, index, str(path), by_hand=False)
    if version == 1:
        return read.model_copy(update={"parts": with_todays_names(read.parts)})
    return read


def read_object(path: Path, max_bytes: int = MAX_JSON_BYTES) -> dict[str, Any]:
    """Return the JSON object in a file of a checkpoint.

    Raises:
        ConfigError: It is missing, cannot be read, or holds no such object.
    """
    fault: object = "not a JSON object"
    try:
        values = parse_json(read_regular(path, max_bytes, follow_link=False))
    except OSError as error:
        fault = error.strerror or error
    except ValueError as error:
        fault = error
    else:
        if isinstance(values, dict):
            return values
    raise ConfigError(f"{path}: missing or damaged: {fault}")


def verify_files(directory: Path) -> None:
    """Compare every file with its SHA-256.

    Raises:
        ConfigError: Names the first file that is missing, truncated or altered, or no plain file.
    """
    for name, digest in read_index(directory).files.items():
        path = directory / name
        try:
            actual = file_sha256(path, follow_link=False)
        except OSError as error:
            raise ConfigError(f"{path}: missing or damaged: {error.strerror or error}") from None
        if actual != digest:
            raise ConfigError(f"{path}: missing or damaged (its SHA-256 does not match)")


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
