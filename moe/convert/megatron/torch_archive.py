"""What `torch.save` wrote into a part of a file: a zip archive whose members are not compressed.

`data.pkl` describes the value, and each storage is a member of its own, of which only what is asked
for is read (https://docs.pytorch.org/docs/stable/notes/serialization.html).
"""

import io
import math
import struct
import zipfile
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from moe.convert.megatron.pickle_data import AllowedNames, Name, PickleData, Record
from moe.errors import ConfigError
from moe.storage.safetensors_io import DTYPES, TensorShape, Where

MAX_PICKLE_BYTES = 64 << 20
_STORAGES = {
    "torch.DoubleStorage": "F64", "torch.FloatStorage": "F32", "torch.HalfStorage": "F16",
    "torch.BFloat16Storage": "BF16",
}  # fmt: skip
_REBUILD = "torch._utils._rebuild_tensor_v2"
NUMBER_FORMATS = frozenset(str(x) for x in vars(torch).values() if isinstance(x, torch.dtype))
TENSOR_NAMES = frozenset({_REBUILD, "collections.OrderedDict"}).union(
    f"torch.{kind}Storage"
    for kind in (
        "BFloat16",
        "Bool",
        "Byte",
        "Char",
        "Double",
        "Float",
        "Half",
        "Int",
        "Long",
        "Short",
    )
)
"""What pickles of tensors name."""
_LOCAL_HEADER = struct.Struct("<4s22xHH")
"""Signature, and the lengths of name and extra field, which stand before a member's bytes."""


class _Window(io.RawIOBase):
    """Bytes as a file, without a copy of all."""

    def __init__(self, data: NDArray[np.uint8]) -> None:
        self.data, self.place = data, 0

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.place

    def seek(self, offset: int, whence: int = 0) -> int:
        start = (0, self.place, len(self.data))[whence]
        if start + offset < 0:
            raise OSError("a place before the beginning")
        self.place = start + offset
        return self.place

    def readinto(self, buffer: Any) -> int:
        part = self.data[self.place : self.place + len(buffer)]
        memoryview(buffer)[: len(part)] = part.data
        self.place += len(part)
        return len(part)


@dataclass(frozen=True)
class ArchivedTensor:
    """Where a tensor's numbers are."""

    dtype: str
    numbers: NDArray[Any]
    """Of its storage, from its first on."""
    shape: TensorShape
    strides: TensorShape
    """In elements."""

    def block(self, where: Where, left_out: int = 0) -> torch.Tensor:
        """Return a block.

        Args:
            where: A slice for each axis.
            left_out: Leading axes of size 1 that `where` has and the tensor has not.
        """
        whole = (1,) * left_out + self.shape
        strides = (0,) * left_out + self.strides
        view = np.lib.stride_tricks.as_strided(
            self.numbers,
            whole,
            tuple(self.numbers.itemsize * stride for stride in strides),
            writeable=False,
        )
        block: torch.Tensor = torch.from_numpy(np.array(view[where], order="C"))
        return block.view(DTYPES[self.dtype])


class TorchArchive:
    """An archive in memory that maps a file.

    Args:
        data: Its bytes.
        origin: What to call it in errors.
    """

    def __init__(self, data: NDArray[np.uint8], origin: str) -> None:
        self.data, self.origin = data, origin
        try:
            with zipfile.ZipFile(_Window(data)) as archive:
                members = {member.filename: member for member in archive.infolist()}
        except (zipfile.BadZipFile, OSError, ValueError, OverflowError, NotImplementedError) as e:
            raise self._damaged(f"no archive of torch.save ({str(e)[:60]})") from None
        pickles = [name for name in members if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise self._damaged("not one data.pkl in it")
        self._members = members
        self._folder = pickles[0].removesuffix("data.pkl")

    @property
    def checksums(self) -> tuple[tuple[str, int], ...] | None:
        """Names of its members, and their CRC-32; None where `torch.save` was to leave that out."""
        sums = tuple((name, member.CRC) for name, member in self._members.items())
        return sums if any(crc for _, crc in sums) else None

    def value(self, allowed: AllowedNames) -> Any:
        """Return the saved value as data (`PickleData`); tensors in it are records."""
        content = self._member("data.pkl")
        if len(content) > MAX_PICKLE_BYTES:
            raise self._damaged(f"data.pkl is longer than {MAX_PICKLE_BYTES >> 20} MiB")
        return PickleData(self.origin, allowed).read(content.tobytes())

    def tensor(self, dtype: str, shape: TensorShape, where: Where) -> torch.Tensor:
        """Return a block of the saved tensor.

        Args:
            dtype: Its number format.
            shape: Its shape; leading axes of size 1 may be left out in the archive.
            where: A slice for each of its axes.
        """
        stored = self.archived_tensor(self.value(AllowedNames(TENSOR_NAMES)))
        left_out = len(shape) - len(stored.shape)
        if left_out < 0 or (1,) * left_out + stored.shape != shape or stored.dtype != dtype:
            raise self._damaged(
                f"a tensor {stored.dtype} {list(stored.shape)}, and the index says {dtype}"
                f" {list(shape)}"
            )
        return stored.block(where, left_out)

    def archived_tensor(self, value: Any) -> ArchivedTensor:
        """Return where the numbers of a tensor in the saved value are.

        Raises:
            ConfigError: It is no dense tensor of weights, or its numbers are missing.
        """
        if not isinstance(value, Record) or value.kind != _REBUILD:
            raise self._damaged("no tensor where a weight should be")
        try:
            storage, offset, shape, strides, *_ = value.arguments
            mark, kind, key, _, _ = storage.arguments
            dtype = _STORAGES[kind.kind]
        except (TypeError, ValueError, KeyError, AttributeError):
            raise self._damaged("a tensor without storage") from None
        sizes = (shape, strides, (offset,))
        if mark != "storage" or not isinstance(kind, Name) or not isinstance(key, str):
            raise self._damaged("a tensor without storage")
        if not all(isinstance(s, tuple) and all(_is_size(n) for n in s) for s in sizes):
            raise self._damaged("a tensor without proper shape, strides and offset")
        width = DTYPES[dtype].itemsize
        content = self._member(f"data/{key}")
        numbers = content[: len(content) // width * width].view(f"<u{width}")
        last = sum((n - 1) * stride for n, stride in zip(shape, strides, strict=False))
        reaches = offset + last >= len(numbers) and math.prod(shape) > 0
        if len(shape) != len(strides) or reaches:
            raise self._damaged("a tensor that reaches over the end of its storage")
        return ArchivedTensor(dtype, numbers[offset:], shape, strides)

    def _member(self, name: str) -> NDArray[np.uint8]:
        """Return the bytes of a member, not copied."""
        member = self._members.get(self._folder + name)
        if member is None or member.compress_type != zipfile.ZIP_STORED:
            raise self._damaged(f"{name[:60]} is missing, or compressed")
        header = self.data[member.header_offset :][: _LOCAL_HEADER.size].tobytes()
        if len(header) < _LOCAL_HEADER.size or not header.startswith(b"PK\x03\x04"):
            raise self._damaged(f"{name[:60]} is not where the directory says")
        _, name_length, extra_length = _LOCAL_HEADER.unpack(header)
        first = member.header_offset + _LOCAL_HEADER.size + name_length + extra_length
        content = self.data[first : first + member.file_size]
        if len(content) != member.file_size:
            raise self._damaged(f"{name[:60]} reaches over its end")
        if name != "byteorder" and self._folder + "byteorder" in self._members:
            order = self._member("byteorder").tobytes()
            if order != b"little":
                raise self._damaged("its numbers have the byte order of another machine")
        return content

    def _damaged(self, what: str) -> ConfigError:
        return ConfigError(f"{self.origin}: missing or damaged: {what}")


def _is_size(number: Any) -> bool:
    return type(number) is int and 0 <= number < 1 << 48
