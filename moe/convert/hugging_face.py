"""Hugging Face models in and out of checkpoints, tensor by tensor, on a CPU.

A converted checkpoint is a directory with the files of every checkpoint (moe/checkpoint/index.py),
`model.toml`, and under `hub/` the small files that came with the model (tokenizer, configuration).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import tomli_w
import torch

from data.storage.atomic import write_json, write_text
from data.storage.new_directory import new_directory
from moe.checkpoint.directory import STATE, use_checkpoint
from moe.checkpoint.index import StoredTensors, read_index, verify_files, write_index
from moe.checkpoint.index_format import FORMAT, TensorShard
from moe.config.experiment import load_model
from moe.config.locating import HUB_DIRECTORY, MODEL_FILE, model_file
from moe.config.model import ModelConfig
from moe.convert.companions import companions_of
from moe.convert.hub_checks import (
    check_layer_count,
    check_tensors,
    prediction_layers,
    raise_tensor_faults,
)
from moe.convert.hub_directory import HubDirectory, batched
from moe.convert.hub_files import CONFIG, INDEX, read_json_table
from moe.convert.registry import family_for, family_of, known_family
from moe.convert.small_files import check_small_files, copy_small_files
from moe.convert.tensor_map import BlockPair, TensorMap, tensor_map
from moe.errors import ConfigError, disk_errors
from moe.storage.safetensors_io import DTYPES, TensorShape, TensorWriter, Where, tensor_bytes

FILE_BYTES = 4 * 2**30
ONLY_TRAINED_WITH = ("attention_dropout", "output_router_logits", "router_jitter_noise")
"""Keys that change training alone, which `[model]` does not have; they go back as they came."""

ConvertProgress = Callable[[int, int], None]
"""Called with bytes done and bytes in all."""


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """What was converted."""

    path: Path
    family: str
    tensors: int
    """Tensors of the Hugging Face side."""
    parameters: int
    notes: tuple[str, ...] = ()
    """What an export lacks, or what of a folder was not read; a line each."""


def from_hub(directory: Path, out: Path, progress: ConvertProgress | None = None) -> Conversion:
    """Convert a Hugging Face model into the checkpoint directory `out`.

    Raises:
        ConfigError: The model cannot be expressed here, a tensor is missing, unknown, misshapen
            or of a number format that is not one of weights.
        DataError: `out` exists, or another process is making it.
    """
    source = HubDirectory(directory)
    family = family_of(source.config)
    model = family.model(source.config, prediction_layers(source) if family.predicts else 0)
    check_layer_count(source, model)
    mapping = tensor_map(model, family.names)
    check_tensors(source, mapping)
    check_small_files(directory)
    with disk_errors(out), new_directory(out) as partial:
        (partial / HUB_DIRECTORY).mkdir()
        copy_small_files(directory, partial / HUB_DIRECTORY)
        write_checkpoint(
            partial,
            mapping,
            model,
            dtype=lambda pair: source.dtypes[pair.theirs],
            read=lambda pair: _stored_view(source.read(pair.theirs, pair.where), pair),
            progress=progress,
        )
    return replace(_conversion(out, family.model_type, mapping), notes=source.notes)


def to_hub(
    checkpoint: Path,
    out: Path,
    *,
    family: str | None = None,
    dtype: str | None = None,
    progress: ConvertProgress | None = None,
) -> Conversion:
    """Convert a checkpoint into a Hugging Face model directory `out`.

    Args:
        checkpoint: A checkpoint of a run or of `from_hub`, or a run (its newest).
        out: The directory to make.
        family: `model_type` to write; none: the one it came from, else the first that fits.
        dtype: `F32` or `BF16`; none: as stored.
        progress: Told of bytes written.

    Raises:
        ConfigError: No family computes this model, or the checkpoint lacks a tensor.
        DataError: `out` exists, or another process is making it.
    """
    if dtype is not None and dtype not in DTYPES:
        raise ConfigError(f"--dtype {dtype}: there are {', '.join(DTYPES)}")

    def convert(checkpoint_dir: Path) -> Conversion:
        return _to_hub(checkpoint_dir, out, family, dtype, progress)

    return use_checkpoint(checkpoint, None, convert)


def _to_hub(
    checkpoint: Path,
    out: Path,
    family: str | None,
    dtype: str | None,
    progress: ConvertProgress | None,
) -> Conversion:
    verify_files(checkpoint)
    model = checkpoint_model(checkpoint)
    original = _original_config(checkpoint)
    chosen, values = family_for(model, family or known_family(original.get("model_type")))
    mapping = tensor_map(model, chosen.names)
    stored = StoredTensors(checkpoint, read_index(checkpoint))
    check_checkpoint(stored, mapping)
    number_format = dtype or stored.dtype(mapping.pairs[0].ours)
    companions = companions_of(checkpoint, model)
    values["torch_dtype"] = str(DTYPES[number_format]).removeprefix("torch.")
    with disk_errors(out), new_directory(out) as partial:
        _write_hub(partial, mapping, stored, (dtype, chosen.fp32_endings), progress)
        notes = companions.write(partial)
        if known_family(original.get("model_type")) == chosen.model_type:
            values |= {key: original[key] for key in ONLY_TRAINED_WITH if key in original}
        write_json(partial / CONFIG, values | companions.token_ids)
    return replace(_conversion(out, chosen.model_type, mapping), notes=tuple(notes))


def checkpoint_model(checkpoint: Path) -> ModelConfig:
    """Return the model of a checkpoint: of its `model.toml`, or of the run it lies in.

    Raises:
        ConfigError: Neither is there.
    """
    file = model_file(checkpoint)
    if file is None:
        raise ConfigError(
            f"{checkpoint}: neither {MODEL_FILE} nor a run's experiment.toml two folders up:"
            " give a checkpoint directory"
        )
    return load_model(str(file), follow_link=False)


def write_checkpoint(  # noqa: PLR0913 - one format, two sources
    directory: Path,
    mapping: TensorMap,
    model: ModelConfig,
    *,
    dtype: Callable[[BlockPair], str],
    read: Callable[[BlockPair], torch.Tensor],
    progress: ConvertProgress | None = None,
) -> None:
    """Write a checkpoint without an optimizer, one stored block for every pair of the map."""
    sizes = {str(i): tensor_bytes(dtype(pair), pair.shape) for i, pair in enumerate(mapping.pairs)}
    shards, checksums = [], {}
    done, total = 0, sum(sizes.values())
    for number, names in enumerate(batched(sizes, FILE_BYTES)):
        file = f"part-{number:05d}.safetensors"
        pairs = {name: mapping.pairs[int(name)] for name in names}
        headers = {name: (dtype(pair), pair.shape) for name, pair in pairs.items()}
        with TensorWriter(directory / file, headers) as target:
            for name, pair in pairs.items():
                target.write(name, read(pair))
                whole = mapping.ours[pair.ours]
                shard = TensorShard(
                    key=pair.ours,
                    global_shape=whole,
                    offset=pair.start,
                    shape=pair.shape,
                    file=file,
                    name=name,
                )
                shards.append(shard.as_json())
                done += sizes[name]
                if progress:
                    progress(done, total)
            checksums[file] = target.close()
    index = {"format": FORMAT, "common": {}, "files": checksums, "parts": shards}
    write_index(directory, index)
    write_json(directory / STATE, {"step": 0})
    values = model.model_dump(mode="json", exclude_none=True, exclude={"preset"})
    write_text(directory / MODEL_FILE, tomli_w.dumps({"model": values}))


def _write_hub(
    directory: Path,
    mapping: TensorMap,
    stored: StoredTensors,
    formats: tuple[str | None, tuple[str, ...]],
    progress: ConvertProgress | None,
) -> None:
    """Write the files; `formats` are the number format, and endings of tensors that stay FP32."""
    pairs: dict[str, list[BlockPair]] = {}
    for pair in mapping.pairs:
        pairs.setdefault(pair.theirs, []).append(pair)
    sources = {name: name for name in mapping.theirs} | mapping.copies
    headers = {
        name: (_written_dtype(stored.dtype(pairs[of][0].ours), name, formats), mapping.theirs[of])
        for name, of in sources.items()
    }
    usual = formats[0] or stored.dtype(mapping.pairs[0].ours)
    headers |= {name: (usual, shape) for name, shape in mapping.empty.items()}
    sizes = {name: tensor_bytes(*header) for name, header in headers.items()}
    batches = list(batched(sizes, FILE_BYTES))
    weight_map, done, total = {}, 0, sum(sizes.values())
    for number, names in enumerate(batches, start=1):
        file = f"model-{number:05d}-of-{len(batches):05d}.safetensors"
        file = "model.safetensors" if len(batches) == 1 else file
        with TensorWriter(directory / file, {name: headers[name] for name in names}) as target:
            for name in names:
                kind, shape = headers[name]
                blocks = pairs.get(sources.get(name, name), [])
                target.write(name, _assembled(stored, blocks, kind, shape))
                weight_map[name] = file
                done += sizes[name]
                if progress:
                    progress(done, total)
            target.close()
    if len(batches) > 1:
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        write_json(directory / INDEX, index)


def _written_dtype(stored: str, name: str, formats: tuple[str | None, tuple[str, ...]]) -> str:
    """Return the number format to write a tensor in."""
    wanted, fp32_endings = formats
    if wanted is None or (name.endswith(fp32_endings) and DTYPES[wanted].itemsize < 4):
        return stored
    return wanted


def _assembled(
    stored: StoredTensors, pairs: list[BlockPair], dtype: str, shape: TensorShape
) -> torch.Tensor:
    """Return one of their tensors, put together from ours."""
    full = torch.empty(shape, dtype=DTYPES[dtype])
    for pair in pairs:
        block = torch.empty(pair.shape, dtype=DTYPES[dtype])
        if not stored.read_block(block, pair.ours, pair.start, pair.shape):
            raise ConfigError(f"{stored.directory}: parts of tensor {pair.ours} are missing")
        view = _viewed(full, pair.where, pair.transposed)
        view.copy_(block.view(view.shape))
    return full


def _stored_view(block: torch.Tensor, pair: BlockPair) -> torch.Tensor:
    """Return their block as ours."""
    return _viewed(block, (), pair.transposed).reshape(pair.shape)


def _viewed(tensor: torch.Tensor, where: Where, transposed: bool) -> torch.Tensor:
    block = tensor[where]
    return block.transpose(-2, -1) if transposed else block


def check_checkpoint(stored: StoredTensors, mapping: TensorMap) -> None:
    """Refuse a checkpoint whose weights are not exactly those of our side of a map.

    Raises:
        ConfigError: Names the tensors that are missing, unknown or misshapen.
    """
    wrong = [
        f"{key} {list(stored.shape(key))}, wanted {list(shape)}"
        for key, shape in mapping.ours.items()
        if key in stored.shards and stored.shape(key) != shape
    ]
    missing = [key for key in mapping.ours if key not in stored.shards]
    unknown = [key for key in stored.shards if key not in mapping.ours and _is_weight(key)]
    faults = {"missing": missing, "unknown": unknown, "misshapen": wrong}
    raise_tensor_faults(stored.directory, faults)


def _is_weight(key: str) -> bool:
    """Whether a tensor of a checkpoint is the model's: not an optimizer's, no random state."""
    return key.startswith(("embedding.", "decoder.", "mtp.", "output_layer."))


def _original_config(checkpoint: Path) -> dict[str, Any]:
    directory = checkpoint / HUB_DIRECTORY
    return read_json_table(directory, CONFIG) if (directory / CONFIG).exists() else {}


def _conversion(path: Path, family: str, mapping: TensorMap) -> Conversion:
    parameters = sum(torch.Size(shape).numel() for shape in mapping.ours.values())
    tensors = len(mapping.theirs) + len(mapping.copies)
    return Conversion(path=path, family=family, tensors=tensors, parameters=parameters)
