"""Hugging Face's model directories, and names dealt over files."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from moe.convert.hub_config import HubConfig
from moe.errors import ConfigError
from moe.storage.safetensors_io import TensorReader, TensorShape, Where


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
        self.shapes: dict[str, TensorShape] = {}
        self.dtypes: dict[str, str] = {}
        self._places: dict[str, TensorReader] = {}
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
        file = TensorReader(path)
        for name in file.shapes:
            if name in self._places:
                raise ConfigError(f"{path}: tensor {name} is in two files")
            self._places[name] = file
        self.shapes |= file.shapes
        self.dtypes |= file.dtypes

    def read(self, name: str, where: Where = ()) -> torch.Tensor:
        """Return a tensor or the block of it that slices name; only that is read."""
        return self._places[name].read(name, where)


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
