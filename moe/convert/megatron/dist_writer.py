"""A folder in format `torch_dist`, written block by block; no tensor is whole in memory.

PyTorch's own writer keeps every tensor of a file until the file is complete. The format is
`torch.distributed.checkpoint`'s: parts as `torch.save` writes them, one after another; an index.
"""

import io
import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import torch
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import (
    BytesStorageMetadata,
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)

from data.storage.atomic import write_json
from moe.convert.megatron.dist_directory import CONFIG
from moe.convert.megatron.dist_index import METADATA
from moe.convert.megatron.settings import COMMON
from moe.storage.safetensors_io import TensorShape

FILE_BYTES = 4 * 2**30
_DISTRIBUTED = {
    "sharded_backend": "torch_dist", "sharded_backend_version": 1, "common_backend": "torch",
    "common_backend_version": 1,
}  # fmt: skip


class DistWriter:
    """Writes the parts of tensors, and objects, in the order given; `with` ends it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._index: dict[str, TensorStorageMetadata | BytesStorageMetadata] = {}
        self._places: dict[MetadataIndex, _StorageInfo] = {}
        self._files = 0
        self._file = self._next_file()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def tensor(
        self, key: str, shape: TensorShape, offset: TensorShape, block: torch.Tensor
    ) -> None:
        """Write a block of the tensor `key` of this shape."""
        entry = self._index.get(key)
        if entry is None:
            properties = TensorProperties(dtype=block.dtype)
            entry = TensorStorageMetadata(properties, torch.Size(shape), [])
            self._index[key] = entry
        assert isinstance(entry, TensorStorageMetadata)
        at = torch.Size(offset)
        entry.chunks.append(ChunkStorageMetadata(at, block.shape))
        self._append(MetadataIndex(key, at), block.contiguous())

    def object(self, key: str, value: Any) -> None:
        """Write an object."""
        self._index[key] = BytesStorageMetadata()
        self._append(MetadataIndex(key), value)

    def close(self, common: Mapping[str, Any]) -> None:
        """Write the index, and the state that all ranks have in common; force all to disk."""
        self._finish_file()
        with (self.directory / COMMON).open("wb") as file:
            torch.save(dict(common), file)
            file.flush()
            os.fsync(file.fileno())
        with (self.directory / METADATA).open("wb") as file:
            index = Metadata(state_dict_metadata=self._index, storage_data=self._places)
            index.version = "1.0.0"
            pickle.dump(index, file)
            file.flush()
            os.fsync(file.fileno())
        write_json(self.directory / CONFIG, _DISTRIBUTED)

    def _append(self, index: MetadataIndex, value: Any) -> None:
        if self._file.tell() >= FILE_BYTES:
            self._finish_file()
            self._file = self._next_file()
        content = io.BytesIO()
        torch.save(value, content)
        first = self._file.tell()
        self._file.write(content.getbuffer())
        name = Path(self._file.name).name
        self._places[index] = _StorageInfo(name, first, self._file.tell() - first)

    def _next_file(self) -> io.BufferedWriter:
        path = self.directory / f"__0_{self._files}.distcp"
        self._files += 1
        return path.open("wb")

    def _finish_file(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
