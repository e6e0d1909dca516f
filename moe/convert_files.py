"""Safetensors files, read and written block by block: no tensor set is ever whole in memory."""

import hashlib
import json
import os
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from moe.convert_config import HubConfig
from moe.convert_map import Shape, Where
from moe.errors import ConfigError

DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
}  # fmt: skip
"""Number formats of weights that can be converted, in safetensors' words."""


class TensorFile:
    """A safetensors file being written, tensor after tensor in the order announced.

    The format: eight bytes with the header's length, the header (JSON), the numbers
    (https://github.com/huggingface/safetensors).
    """

    def __init__(self, path: Path, tensors: Mapping[str, tuple[str, Shape]]) -> None:
        """Write the header; `tensors` are (number format, shape) by name."""
        self.path = path
        header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        end = 0
        for name, (dtype, shape) in tensors.items():
            size = tensor_bytes(dtype, shape)
            header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + size]}
            end += size
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        self._waiting = list(tensors)
        self._hash = hashlib.sha256()
        self._file = path.open("wb")
        self._write(struct.pack("<Q", len(text)) + text)

    def write(self, name: str, tensor: torch.Tensor) -> None:
        """Append the next tensor's numbers."""
        assert name == self._waiting.pop(0)
        self._write(tensor.contiguous().flatten().view(torch.uint8).numpy().data)

    def _write(self, data: Any) -> None:
        self._file.write(data)
        self._hash.update(data)

    def close(self) -> str:
        """Force the file to disk; returns its SHA-256."""
        assert not self._waiting
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        return self._hash.hexdigest()


def tensor_bytes(dtype: str, shape: Shape) -> int:
    """Return a tensor's size."""
    size = DTYPES[dtype].itemsize
    for extent in shape:
        size *= extent
    return size


class HubDirectory:
    """A model in Hugging Face's form: `config.json` and safetensors files."""

    def __init__(self, directory: Path) -> None:
        """Read the configuration and all headers.

        Raises:
            ConfigError: A file is missing, damaged, or would have to be unpickled.
        """
        self.directory = directory
        path = directory / "config.json"
        self.config = HubConfig(str(path), _read_json(path))
        self.shapes: dict[str, Shape] = {}
        self.dtypes: dict[str, str] = {}
        self._places: dict[str, Any] = {}
        for path in self._files():
            self._open(path)

    def _files(self) -> list[Path]:
        index = self.directory / "model.safetensors.index.json"
        if index.is_file():
            names = set(_read_json(index).get("weight_map", {}).values())
        else:
            names = {path.name for path in self.directory.glob("*.safetensors")}
        if not names:
            pickled = any(self.directory.glob("*.bin"))
            reason = "only pickled weights, which are never read here" if pickled else "no weights"
            raise ConfigError(f"{self.directory}: {reason}: give a directory with *.safetensors")
        return [self.directory / name for name in sorted(names)]

    def _open(self, path: Path) -> None:
        try:
            file: Any = safe_open(path, framework="pt")
        except (OSError, SafetensorError) as error:
            raise ConfigError(f"{path}: missing or damaged: {error}") from None
        for name in file.keys():  # noqa: SIM118 - not a dictionary
            if name in self._places:
                raise ConfigError(f"{path}: tensor {name} is in two files")
            stored = file.get_slice(name)
            self._places[name] = file
            self.shapes[name] = tuple(stored.get_shape())
            self.dtypes[name] = stored.get_dtype()

    def read(self, name: str, where: Where | None = None) -> torch.Tensor:
        """Return a tensor or the block of it that slices name; only that is read."""
        stored = self._places[name].get_slice(name)
        if where is None:
            where = tuple(slice(None) for _ in self.shapes[name])
        # safetensors cuts contiguous ranges; strides are taken afterwards.
        ranges = tuple(slice(None) if cut.step else cut for cut in where)
        strides = tuple(cut if cut.step else slice(None) for cut in where)
        block: torch.Tensor = stored[ranges]
        return block[strides]


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return values
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from None
    except ValueError as error:
        raise ConfigError(f"{path}: not valid JSON: {error}") from None


def batched(sizes: Mapping[str, int], limit: int) -> Iterator[list[str]]:
    """Deal names over files of at most `limit` bytes each (one tensor may exceed it)."""
    batch: list[str] = []
    total = 0
    for name, size in sizes.items():
        if batch and total + size > limit:
            yield batch
            batch, total = [], 0
        batch.append(name)
        total += size
    if batch:
        yield batch
