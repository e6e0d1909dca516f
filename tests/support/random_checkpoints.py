"""Checkpoints of ours with random weights, made without an engine."""

import hashlib
from pathlib import Path

import torch

from moe.checkpoint.index import StoredTensors, read_index
from moe.config.model import ModelConfig
from moe.convert.hugging_face import write_checkpoint
from moe.convert.tensor_map import BlockPair, Names, TensorMap, tensor_map
from moe.storage.safetensors_io import DTYPES


def random_checkpoint(directory: Path, model: ModelConfig, dtype: str = "F32") -> Path:
    """Write a checkpoint of a model; its numbers follow from the tensors' names."""
    mapping = TensorMap()
    for key, shape in tensor_map(model, Names()).ours.items():
        mapping.same(key, key, *shape)

    def drawn(pair: BlockPair) -> torch.Tensor:
        seed = int.from_bytes(hashlib.sha256(pair.ours.encode()).digest()[:7], "big")
        noise = torch.randn(pair.shape, generator=torch.Generator().manual_seed(seed))
        values = 1 + 0.15 * noise if "norm" in pair.ours else 0.2 * noise
        return values.to(DTYPES[format_of(pair)])

    def format_of(pair: BlockPair) -> str:
        return "F32" if pair.ours.endswith("expert_bias") else dtype

    directory.mkdir()
    write_checkpoint(directory, mapping, model, dtype=format_of, read=drawn)
    return directory


def whole_tensors(checkpoint: Path) -> dict[str, torch.Tensor]:
    """Return a checkpoint's tensors by their keys, put together from its parts."""
    stored = StoredTensors(checkpoint, read_index(checkpoint))
    found = {}
    for key in stored.shards:
        shape = stored.shape(key)
        found[key] = torch.empty(shape, dtype=DTYPES[stored.dtype(key)])
        assert stored.read_block(found[key], key, (0,) * len(shape), shape)
    return found
