"""Safetensors files, written and read block by block: no file is ever whole in memory.

The library maps files so that the system counts them as memory (`safe_open`, its `mmap` backend),
or reads whole tensors for a slice (`pread`); a model larger than memory needs neither. The format:
eight bytes with the header's length, the header (JSON), the numbers
(https://github.com/huggingface/safetensors).
"""

import hashlib
import json
import math
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from moe.errors import ConfigError

TensorShape = tuple[int, ...]
Where = tuple[slice, ...]

DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
}  # fmt: skip
"""Number formats of weights, in safetensors' words."""
_OTHERS = {
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2, "I64": torch.int64,
    "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8,
    "BOOL": torch.bool,
}  # fmt: skip
_HEADER_LIMIT = 100_000_000
"""Longest header that the library accepts."""


def tensor_bytes(dtype: str, shape: TensorShape) -> int:
    """Return the size of a tensor of weights."""
    return DTYPES[dtype].itemsize * math.prod(shape)


def inherit_permissions(path: Path) -> None:
    """Let everyone who may read a file's directory read the file: safetensors lets only its owner.

    Write permission is copied as well.
    """
    path.chmod(path.parent.stat().st_mode & 0o666)


class TensorWriter:
    """A file being written, tensor after tensor in the order announced."""

    def __init__(self, path: Path, tensors: Mapping[str, tuple[str, TensorShape]]) -> None:
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


class TensorReader:
    """A file's tensors, of which only what is asked for is read."""

    def __init__(self, path: Path) -> None:
        """Read the header.

        Raises:
            ConfigError: The file is missing or damaged.
        """
        self.path = path
        self.shapes: dict[str, TensorShape] = {}
        self.dtypes: dict[str, str] = {}
        self._ranges: dict[str, slice] = {}
        try:
            self._bytes = np.memmap(path, dtype=np.uint8, mode="r")
            self._read_header()
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{path}: missing or damaged: {error}") from None

    def _read_header(self) -> None:
        size = int.from_bytes(self._bytes[:8].tobytes(), "little")
        if size > min(_HEADER_LIMIT, self._bytes.size - 8):
            raise ValueError("its header is longer than the file")
        header = json.loads(self._bytes[8 : 8 + size].tobytes())
        for name, value in header.items():
            if name == "__metadata__":
                continue
            shape, (begin, end) = tuple(value["shape"]), value["data_offsets"]
            kind = (DTYPES | _OTHERS).get(value["dtype"])
            if not 0 <= begin <= end <= self._bytes.size - 8 - size:
                raise ValueError(f"tensor {name} reaches over its end")
            if kind is not None and kind.itemsize * math.prod(shape) != end - begin:
                raise ValueError(f"tensor {name} has not the size of its shape")
            self.shapes[name], self.dtypes[name] = shape, value["dtype"]
            self._ranges[name] = slice(8 + size + begin, 8 + size + end)

    def read(self, name: str, where: Where = ()) -> torch.Tensor:
        """Return a tensor, or the block of it that slices name."""
        kind, shape = (DTYPES | _OTHERS)[self.dtypes[name]], self.shapes[name]
        raw = self._bytes[self._ranges[name]].view(f"u{kind.itemsize}").reshape(shape)
        block: torch.Tensor = torch.from_numpy(np.array(raw[where])).view(kind)
        return block
