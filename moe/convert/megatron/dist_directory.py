"""A folder that Megatron wrote in format `torch_dist`, read block by block."""

import re
from functools import lru_cache
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from data.plain_text import printable
from data.storage.bounded_json import read_json
from data.storage.regular_file import open_regular, read_regular
from moe.checkpoint.regions import Region, common_regions, regions_meet
from moe.convert.megatron.dist_index import Part, StoredTensor, read_dist_index
from moe.convert.megatron.pickle_data import AllowedNames
from moe.convert.megatron.torch_archive import TorchArchive
from moe.errors import ConfigError
from moe.storage.safetensors_io import DTYPES, TensorShape, Where

CONFIG = "metadata.json"
TRACKER = "latest_checkpointed_iteration.txt"
RELEASE = "release"
"""The folder of a checkpoint that no training run has written, and its name in the tracker."""
TOKENIZER = "tokenizer"
"""The folder of the tokenizer's files beside a checkpoint's tensors."""
LEGACY_FOLDERS = "mp_rank_*"
"""Folders of the ranks in format `torch`."""
_ITERATION = re.compile(r"iter_[0-9]{7,}")
_OPEN_FILES = 64


def checkpoint_folder(directory: Path) -> Path:
    """Return the folder of the newest iteration in `directory`, or itself if it is one.

    Raises:
        ConfigError: There is none.
    """
    if (directory / CONFIG).is_file():
        return directory
    named = [path for path in directory.glob("iter_*") if _ITERATION.fullmatch(path.name)]
    newest = max(named, key=lambda path: int(path.name[5:]), default=None)
    tracker = directory / TRACKER
    if tracker.exists() or tracker.is_symlink():
        newest = directory / _tracked(tracker)
    if newest is not None:
        refuse_link(newest)
    if newest is not None and (newest / CONFIG).is_file():
        return newest
    if any((newest or directory).glob(LEGACY_FOLDERS)):
        return newest or directory
    raise ConfigError(
        f"{newest or directory}: no {CONFIG} of a torch_dist checkpoint: give the folder that"
        " Megatron saved into, or one iteration's folder in it"
    )


def refuse_link(folder: Path) -> None:
    """Refuse a folder in somebody else's checkpoint that leads elsewhere.

    Raises:
        ConfigError: It is a symbolic link.
    """
    if folder.is_symlink():
        raise ConfigError(
            f"{printable(folder)}: a symbolic link, which is not followed here: put the folder"
            " itself in its place"
        )


def _tracked(path: Path) -> str:
    """Return the folder that Megatron-LM's tracker file names."""
    try:
        text = read_regular(path, 100, follow_link=False).decode(errors="replace").strip()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from None
    if text == RELEASE:
        return text
    if not text.isascii() or not text.isdecimal():
        raise ConfigError(f"{path}: {text[:40]!r} is no iteration: give an iteration's folder")
    return f"iter_{int(text):07d}"


class DistDirectory:
    """The tensors and objects of one checkpoint."""

    def __init__(self, directory: Path) -> None:
        """Read the index.

        Raises:
            ConfigError: It is missing or damaged, or of another format.
        """
        self.directory = directory
        config = read_json(directory / CONFIG, ConfigError, max_bytes=1 << 20, follow_link=False)
        backend = config.get("sharded_backend") if isinstance(config, dict) else None
        if backend != "torch_dist":
            raise ConfigError(
                f"{directory / CONFIG}: sharded_backend = {str(backend)[:40]!r}, and only"
                " 'torch_dist' is read: load it in Megatron and save with --ckpt-format torch_dist"
            )
        index = read_dist_index(directory)
        self.tensors, self.objects = index.tensors, index.objects
        self._parts = {key: _PartsByPlace(tensor) for key, tensor in index.tensors.items()}
        self._bytes = lru_cache(_OPEN_FILES)(self._map_file)

    def read(self, key: str, where: Where) -> torch.Tensor:
        """Return a block of a tensor; only that is read. Trailing axes without a slice are whole.

        Raises:
            ConfigError: Parts of it are missing, overlap or are damaged.
        """
        tensor = self.tensors[key]
        cuts = [cut.indices(n)[:2] for cut, n in zip(where, tensor.shape, strict=False)]
        cuts += [(0, n) for n in tensor.shape[len(cuts) :]]
        start, shape = [a for a, _ in cuts], [b - a for a, b in cuts]
        block = torch.empty(shape, dtype=DTYPES[tensor.dtype])
        copied: list[Region] = []
        for part in self._parts[key].near(cuts):
            both = common_regions(start, shape, part.offset, part.shape)
            if both is not None:
                mine, theirs = both
                block[mine] = self._archive(part, key).tensor(tensor.dtype, part.shape, theirs)
                copied.append(mine)
        filled = sum(block[cut].numel() for cut in copied)
        if filled != block.numel() or any(regions_meet(a, b) for a, b in combinations(copied, 2)):
            raise ConfigError(f"{self.directory}: parts of tensor {key} are missing, or overlap")
        return block

    def object(self, key: str, allowed: AllowedNames) -> Any:
        """Return an object as data (`PickleData`).

        Raises:
            ConfigError: It is damaged, or names a class that is not allowed.
        """
        return self._archive(self.objects[key], key).value(allowed)

    def _archive(self, part: Part, key: str) -> TorchArchive:
        content = self._bytes(part.file)[part.first_byte : part.first_byte + part.length]
        origin = f"{self.directory / part.file} ({key})"
        if len(content) != part.length:
            raise ConfigError(f"{origin}: missing or damaged: the file ends before")
        return TorchArchive(content, origin)

    def _map_file(self, name: str) -> NDArray[np.uint8]:
        return mapped_file(self.directory / name)


def mapped_file(path: Path) -> NDArray[np.uint8]:
    """Return a regular file's bytes, read where they are used.

    Raises:
        ConfigError: It is missing, empty, a link or no regular file.
    """
    try:
        with open_regular(path, follow_link=False) as file:
            return np.memmap(file, dtype=np.uint8, mode="r")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"{path}: missing or damaged: {reason}") from None


class _PartsByPlace:
    """A tensor's parts by their place on leading axes, which parts of layers or experts have.

    Without that, a block of one expert of one layer would be compared with the parts of all.
    """

    def __init__(self, tensor: StoredTensor) -> None:
        lead = 0
        while lead < len(tensor.shape) and all(p.shape[lead] == 1 for p in tensor.parts):
            lead += 1
        self._lead, self._all = lead, tensor.parts
        self._by_place: dict[TensorShape, list[Part]] = {}
        for part in tensor.parts:
            self._by_place.setdefault(part.offset[:lead], []).append(part)

    def near(self, cuts: list[tuple[int, int]]) -> list[Part] | tuple[Part, ...]:
        """Return the parts that may have something of a block."""
        if all(b - a == 1 for a, b in cuts[: self._lead]):
            return self._by_place.get(tuple(a for a, _ in cuts[: self._lead]), [])
        return self._all
