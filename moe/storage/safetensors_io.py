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
from typing import Any, Self, TypeGuard

import numpy as np
import torch

from data.storage.regular_file import open_regular
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
_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32,
    "C64": 64, "F64": 64, "I64": 64, "U64": 64, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip
"""Bits of a number in every format that safetensors has."""
_MOST_AXES = 64
"""Of a tensor; torch has no more."""
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
    """A file being written, tensor after tensor in the order announced; `with` ends it."""

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

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

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


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError("a name is twice in its header")
    return values


def _entry(name: str, value: object) -> tuple[str, TensorShape, int, int]:
    """Return number format, shape, first and last offset of a header's entry."""
    fields = value if isinstance(value, dict) else {}
    dtype, shape, offsets = (fields.get(key) for key in ("dtype", "shape", "data_offsets"))
    bits = _BITS.get(dtype) if isinstance(dtype, str) else None
    if bits is None:
        raise ValueError(f"tensor {name} has the unknown number format {repr(dtype)[:60]}")
    if not _are_sizes(shape, _MOST_AXES) or not _are_sizes(offsets, 2) or len(offsets) < 2:
        raise ValueError(f"tensor {name} has no proper shape and offsets")
    begin, end = offsets
    if bits * math.prod(shape) != 8 * (end - begin):
        raise ValueError(f"tensor {name} has not the size of its shape")
    return str(dtype), tuple(shape), begin, end


def _are_sizes(values: object, most: int) -> TypeGuard[list[int]]:
    """Whether it is a list of at most `most` sizes."""
    return (
        isinstance(values, list)
        and len(values) <= most
        and all(type(n) is int and 0 <= n < 2**63 for n in values)
    )


class TensorReader:
    """A file's tensors, of which only what is asked for is read."""

    def __init__(self, path: Path, *, follow_link: bool = True) -> None:
        """Open the file, once, and read the header; `follow_link` as in `open_regular`.

        Raises:
            ConfigError: The file is missing or damaged.
        """
        self.path = path
        self.shapes: dict[str, TensorShape] = {}
        self.dtypes: dict[str, str] = {}
        self._ranges: dict[str, slice] = {}
        try:
            with open_regular(path, follow_link=follow_link) as file:
                self._bytes = np.memmap(file, dtype=np.uint8, mode="r")
            self._read_header()
        except RecursionError:
            raise ConfigError(f"{path}: missing or damaged: its header is nested deeply") from None
        except OSError as error:
            raise ConfigError(f"{path}: missing or damaged: {error.strerror or error}") from None
        except ValueError as error:
            raise ConfigError(f"{path}: missing or damaged: {error}") from None

    def _read_header(self) -> None:
        size = int.from_bytes(self._bytes[:8].tobytes(), "little")
        if size > min(_HEADER_LIMIT, self._bytes.size - 8):
            raise ValueError("its header is longer than the file")
        header = json.loads(self._bytes[8 : 8 + size].tobytes(), object_pairs_hook=_distinct)
        if not isinstance(header, dict):
            raise ValueError("its header is no JSON object")
        ranges: list[tuple[int, int, str]] = []
        for name, value in header.items():
            if name == "__metadata__":
                continue
            dtype, shape, begin, end = _entry(name, value)
            self.shapes[name], self.dtypes[name] = shape, dtype
            self._ranges[name] = slice(8 + size + begin, 8 + size + end)
            ranges.append((begin, end, name))
        reached = 0
        for begin, end, name in sorted(ranges):
            if begin != reached:
                raise ValueError(f"tensor {name} does not begin where the one before it ends")
            reached = end
        rest = self._bytes.size - 8 - size - reached
        if rest < 0:
            raise ValueError(f"tensor {max(ranges)[2]} reaches over its end")
        if rest:
            raise ValueError(f"{rest} bytes of it belong to no tensor")

    def read(self, name: str, where: Where = ()) -> torch.Tensor:
        """Return a tensor, or the block of it that slices name."""
        kind, shape = (DTYPES | _OTHERS)[self.dtypes[name]], self.shapes[name]
        raw = self._bytes[self._ranges[name]].view(f"u{kind.itemsize}").reshape(shape)
        block: torch.Tensor = torch.from_numpy(np.array(raw[where])).view(kind)
        return block
