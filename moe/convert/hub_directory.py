"""Hugging Face's model directories, and names dealt over files."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch

from moe.convert.hub_config import HubConfig
from moe.convert.hub_files import CONFIG, read_json_table
from moe.convert.weight_files import weight_files
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
        config = read_json_table(directory, CONFIG)
        self.config = HubConfig(str(directory / CONFIG), config)
        self.shapes: dict[str, TensorShape] = {}
        self.dtypes: dict[str, str] = {}
        self._places: dict[str, TensorReader] = {}
        files = weight_files(directory, self.config)
        self.notes = files.notes
        for path in files.paths:
            self._open(path)

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
