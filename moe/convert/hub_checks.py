"""Tensors that files have against those that a model needs: refused by name."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch

from moe.config.model import ModelConfig
from moe.convert.hub_directory import HubDirectory
from moe.convert.listed_names import listed
from moe.convert.tensor_map import TensorMap
from moe.errors import ConfigError
from moe.storage.safetensors_io import DTYPES

QUANTIZED = (
    "_scale_inv", "_scales", "_blocks", "_scale", ".weight_packed", ".qweight", ".qzeros",
    ".absmax", ".quant_state",
)  # fmt: skip
"""Endings of tensors that belong to quantized weights."""
IGNORED = (".rotary_emb.inv_freq",)
"""Endings of tensors that old files keep and that follow from the configuration."""
_LAYER = re.compile(r"model\.layers\.([0-9]{1,9})\.")


def prediction_layers(source: HubDirectory) -> int:
    """Return the multi-token-prediction layers that the files really have."""
    config = source.config
    stated = [key for key in ("num_nextn_predict_layers", "num_mtp_layers") if key in config.values]
    first, found = config.num_layers, 0
    while f"model.layers.{first + found}.eh_proj.weight" in source.shapes:
        found += 1
    if not stated or config.value(stated[0]) is None:
        return found
    count = config.integer(stated[0], least=0)
    return count if count <= found else 0


def check_layer_count(source: HubDirectory, model: ModelConfig) -> None:
    """Refuse more layers than the files have, before each of them is listed.

    Raises:
        ConfigError: Names both numbers.
    """
    found = {match[1] for name in source.shapes if (match := _LAYER.match(name))}
    if model.num_layers > len(found):
        raise ConfigError(
            f"{source.config.origin}: num_hidden_layers = {model.num_layers}, but the files have"
            f" tensors of {len(found)} layers: lower it, or give the missing files"
        )


def check_tensors(source: HubDirectory, mapping: TensorMap) -> None:
    """Refuse files whose tensors are not exactly those of the model.

    Raises:
        ConfigError: Names the tensors that are missing, unknown, misshapen or quantized.
    """
    copies = mapping.copies | {
        name: of for name, of in mapping.possible_copies.items() if name in source.shapes
    }
    needed = mapping.theirs | {name: mapping.theirs[of] for name, of in copies.items()}
    known = needed | mapping.empty
    present = {n: s for n, s in source.shapes.items() if n in known or not n.endswith(IGNORED)}
    _check_number_formats(source, known)
    faults = {
        "missing": [name for name in needed if name not in present],
        "unknown": [name for name in present if name not in known],
        "misshapen": [
            f"{name} {list(present[name])}, wanted {list(shape)}"
            for name, shape in known.items()
            if name in present and present[name] != shape
        ],
    }
    raise_tensor_faults(source.directory, faults)
    for name, of in copies.items():
        if not torch.equal(source.read(name), source.read(of)):
            raise ConfigError(f"{source.directory}: tensor {name} is not the same as {of}")


def _check_number_formats(source: HubDirectory, known: Iterable[str]) -> None:
    """Refuse quantized files: weights that are no floating-point numbers, or scales of such.

    A buffer of integers that no weight of the model is, is unknown and not quantized.
    """
    weights = set(known)
    quantized = [
        f"{name} {kind}"
        for name, kind in source.dtypes.items()
        if (name in weights and kind not in DTYPES)
        or (name not in weights and name.endswith(QUANTIZED))
    ]
    if quantized:
        raise ConfigError(
            f"{source.directory}: the weights are quantized ({listed(quantized, 2)}):"
            " de-quantize them first (GPT-OSS: transformers' Mxfp4Config(dequantize=True), then"
            " save_pretrained; DeepSeek-V3: fp8_cast_bf16.py of its repository)"
        )


def raise_tensor_faults(origin: Path, faults: Mapping[str, list[str]]) -> None:
    """Raise one error for all faults, by kind, with the first names of each.

    Raises:
        ConfigError: There is any.
    """
    lines = []
    for kind, names in faults.items():
        if names:
            lines.append(f"{kind}: {listed(names)}")
    if lines:
        raise ConfigError(f"{origin}: tensors {'; '.join(lines)}")
