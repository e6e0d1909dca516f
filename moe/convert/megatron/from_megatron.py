"""Megatron's checkpoints in: of Megatron-LM and Megatron-Bridge, block by block."""

from collections import Counter
from dataclasses import dataclass
from math import prod
from pathlib import Path

from data.storage.new_directory import new_directory
from moe.config.experiment import load_model
from moe.config.locating import HUB_DIRECTORY
from moe.config.model import ModelConfig
from moe.convert.hub_checks import raise_tensor_faults
from moe.convert.hugging_face import ConvertProgress, write_checkpoint
from moe.convert.megatron.dist_directory import (
    CONFIG,
    LEGACY_FOLDERS,
    TOKENIZER,
    DistDirectory,
    checkpoint_folder,
    refuse_link,
)
from moe.convert.megatron.legacy.directory import LegacyDirectory
from moe.convert.megatron.model_settings import model_of, only_in_training
from moe.convert.megatron.settings import read_settings
from moe.convert.megatron.source import MegatronSource
from moe.convert.megatron.tensor_names import VOCABULARY, left_behind, place_tensors
from moe.convert.small_files import check_small_files, copy_small_files
from moe.convert.tensor_map import TensorMap
from moe.errors import ConfigError, disk_errors
from moe.storage.safetensors_io import DTYPES


@dataclass(frozen=True, kw_only=True)
class MegatronConversion:
    """What was converted."""

    path: Path
    tensors: int
    """Tensors of weights on Megatron's side."""
    parameters: int
    left_behind: int
    """Tensors and objects of Megatron's checkpoint that are no weights."""
    notes: tuple[str, ...] = ()
    """What was left out or cut, a line each."""


def from_megatron(
    directory: Path,
    out: Path,
    *,
    model: str | None = None,
    progress: ConvertProgress | None = None,
) -> MegatronConversion:
    """Convert a checkpoint of Megatron into the checkpoint directory `out`.

    Args:
        directory: What Megatron saved into (its newest iteration), or one iteration's folder.
        out: The directory to make.
        model: A preset, or a TOML file with a `[model]` table; none: what the checkpoint says.
        progress: Told of bytes written.

    Raises:
        ConfigError: The model cannot be expressed here or is not stated, a file is damaged or
            would execute something, or a tensor is missing, unknown, misshapen or quantized.
        DataError: `out` exists, or another process is making it.
    """
    folder = checkpoint_folder(directory)
    source: DistDirectory | LegacyDirectory
    is_legacy = any(folder.glob(LEGACY_FOLDERS)) and not (folder / CONFIG).is_file()
    source = LegacyDirectory(folder) if is_legacy else DistDirectory(folder)
    if model is not None:
        ours, notes = load_model(model), list[str]()
    else:
        settings = read_settings(source) if isinstance(source, DistDirectory) else source.settings()
        rows = _vocabulary_rows(source)
        ours, notes = model_of(settings, rows), only_in_training(settings)
        if isinstance(source, LegacyDirectory):
            source.check_one_model(ours, rows)
    left = Counter(filter(None, map(left_behind, [*source.tensors, *source.objects])))
    mapping = _checked_map(source, ours)
    tokenizer = source.directory / TOKENIZER
    refuse_link(tokenizer)
    has_tokenizer = tokenizer.is_dir()
    if has_tokenizer:
        check_small_files(tokenizer)
    with disk_errors(out), new_directory(out) as partial:
        if has_tokenizer:
            (partial / HUB_DIRECTORY).mkdir()
            copy_small_files(tokenizer, partial / HUB_DIRECTORY)
        write_checkpoint(
            partial,
            mapping,
            ours,
            dtype=lambda pair: source.tensors[pair.theirs].dtype,
            read=lambda pair: source.read(pair.theirs, pair.where).reshape(pair.shape),
            progress=progress,
        )
    notes += [f"{count} of {name} left behind" for name, count in sorted(left.items())]
    rows = _vocabulary_rows(source)
    if rows > ours.vocab_size:
        notes.append(
            f"the vocabulary's {rows} rows cut to vocab_size = {ours.vocab_size}: the others fill"
            " it up for tensor parallelism"
        )
    return MegatronConversion(
        path=out,
        tensors=len(mapping.theirs),
        parameters=sum(prod(shape) for shape in mapping.ours.values()),
        left_behind=left.total(),
        notes=tuple(notes),
    )


def _vocabulary_rows(source: MegatronSource) -> int:
    table = source.tensors.get(VOCABULARY[0])
    if table is None or not table.shape:
        raise ConfigError(
            f"{source.directory}: no tensor {VOCABULARY[0]}: a checkpoint of something else than a"
            " GPT model, or one without its weights"
        )
    return table.shape[0]


def _checked_map(source: MegatronSource, model: ModelConfig) -> TensorMap:
    """Return where each block is.

    Raises:
        ConfigError: Tensors are missing, unknown, misshapen or quantized.
    """
    shapes = {key: tensor.shape for key, tensor in source.tensors.items()}
    placed = place_tensors(model, shapes)
    faults = {
        "missing": placed.missing,
        "unknown": [
            key
            for key in (*shapes, *source.objects)
            if key not in placed.used and left_behind(key) is None
        ],
        "misshapen": placed.misshapen,
        "quantized": [
            f"{key} {source.tensors[key].dtype}"
            for key in sorted(placed.used)
            if source.tensors[key].dtype not in DTYPES
        ],
    }
    raise_tensor_faults(source.directory, faults)
    return placed.mapping
