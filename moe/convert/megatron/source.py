"""What a conversion asks of a checkpoint of Megatron, whatever its format."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Protocol

import torch

from moe.storage.safetensors_io import TensorShape, Where


class Tensor(Protocol):
    """A tensor that a checkpoint holds."""

    @property
    def dtype(self) -> str:
        """Its number format, as safetensors names it; as PyTorch does where it has no weights."""

    @property
    def shape(self) -> TensorShape:
        """Its shape, whole."""


class MegatronSource(Protocol):
    """A checkpoint: its tensors whole, under megatron-core's names, and the keys of the rest."""

    @property
    def directory(self) -> Path:
        """The folder of its iteration."""

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        """Its tensors."""

    @property
    def objects(self) -> Iterable[str]:
        """Keys of what is no tensor."""

    def read(self, key: str, where: Where) -> torch.Tensor:
        """Return a block of a tensor; trailing axes without a slice are whole."""
