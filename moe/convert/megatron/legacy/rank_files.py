"""The files of all ranks: one archive of `torch.save` each, in folders named for the ranks.

Names and content: Megatron-LM's `get_checkpoint_name` and `generate_state_dict`.
"""

from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from data.plain_text import printable
from moe.convert.megatron.dist_directory import LEGACY_FOLDERS, mapped_file, refuse_link
from moe.convert.megatron.dist_index import is_tensor_name
from moe.convert.megatron.pickle_data import Record
from moe.convert.megatron.settings import STATE_NAMES, arguments_in, shown
from moe.convert.megatron.torch_archive import TorchArchive
from moe.errors import ConfigError

FILE = "model_optim_rng.pt"
VERSION = 3.0
"""Of the order of rows in `linear_qkv`; before it, others."""
MAX_RANKS = 1 << 16


@dataclass(frozen=True, order=True)
class Rank:
    """Which part of a model a file has."""

    pipeline: int
    tensor: int
    expert: int


@dataclass(frozen=True)
class Grid:
    """How many ranks share a model on each axis."""

    tensor: int
    pipeline: int
    expert: int
    expert_tensor: int
    """Ranks that share one expert, by the lowest digits of their tensor rank."""

    def folder(self, rank: Rank) -> str:
        """Return the name of a rank's folder."""
        pipeline = f"_{rank.pipeline:03d}" if self.pipeline > 1 else ""
        expert = f"_{rank.expert:03d}" if self.expert > 1 else ""
        return f"mp_rank_{rank.tensor:02d}{pipeline}{expert}"

    @property
    def text(self) -> str:
        """What it is under the names of arguments."""
        return (
            f"tensor_model_parallel_size = {self.tensor}, pipeline_model_parallel_size ="
            f" {self.pipeline}, expert_model_parallel_size = {self.expert}"
        )

    def folders(self) -> dict[str, Rank]:
        """Return all folders that there can be."""
        sizes = (self.pipeline, self.tensor, self.expert)
        ranks = (Rank(*numbers) for numbers in product(*map(range, sizes)))
        return {self.folder(rank): rank for rank in ranks}


@dataclass(frozen=True)
class RankFile:
    """What one rank saved."""

    path: Path
    archive: TorchArchive
    arguments: dict[str, Any]
    chunks: list[dict[str, Any]]
    """The model's tensors by name; several with an interleaved pipeline."""
    others: tuple[str, ...]
    """What else it holds."""
    iteration: Any
    """At which it was saved."""


def read_rank_files(directory: Path) -> tuple[Grid, dict[Rank, RankFile]]:
    """Read the index of every rank's file.

    Raises:
        ConfigError: One is missing, damaged or too many, would execute something, or they disagree.
    """
    folders = sorted(directory.glob(LEGACY_FOLDERS))
    for folder in folders:
        refuse_link(folder)
    first = _read(folders[0] / FILE)
    grid = _grid(first)
    known = grid.folders()
    files = {}
    for folder in folders:
        if folder.name not in known:
            raise ConfigError(
                f"{printable(folder)}: the arguments in {first.path} say {grid.text}, which has no"
                " such rank"
            )
        file = first if folder == folders[0] else _read(folder / FILE)
        if _grid(file) != grid or len(file.chunks) != len(first.chunks):
            raise ConfigError(f"{file.path}: another layout than in {first.path}")
        files[known[folder.name]] = file
    missing = [grid.folder(rank) for rank in _wanted(grid, set(files))]
    if missing:
        raise ConfigError(
            f"{directory}: {', '.join(missing[:5])} missing ({len(missing)} of {len(known)}): copy"
            " the folders of all ranks"
        )
    return grid, files


def _wanted(grid: Grid, found: set[Rank]) -> list[Rank]:
    """Return ranks of whose dense layers and experts no file has either; else, one of both."""

    def experts_of(rank: Rank) -> tuple[int, int, int]:
        return rank.pipeline, rank.tensor % grid.expert_tensor, rank.expert

    dense = {(rank.pipeline, rank.tensor) for rank in found}
    experts = set(map(experts_of, found))
    lacks = {
        rank: ((rank.pipeline, rank.tensor) not in dense, experts_of(rank) not in experts)
        for rank in sorted(grid.folders().values())
    }
    return [rank for rank, parts in lacks.items() if all(parts)] or [
        rank for rank, parts in lacks.items() if any(parts)
    ]


def _grid(file: RankFile) -> Grid:
    def size(axis: str) -> int:
        key = f"{axis}_parallel_size"
        number = file.arguments.get(key)
        if type(number) is not int or not 0 < number <= MAX_RANKS:
            raise ConfigError(f"{file.path}: {key} = {shown(number)!r} in its arguments")
        return number

    tensor, pipeline = size("tensor_model"), size("pipeline_model")
    absent = file.arguments.get("expert_model_parallel_size") is None
    expert = 1 if absent else size("expert_model")
    absent = file.arguments.get("expert_tensor_parallel_size") is None
    expert_tensor = tensor if absent else size("expert_tensor")
    if tensor * pipeline * expert > MAX_RANKS or tensor % expert_tensor:
        raise ConfigError(
            f"{file.path}: tensor_model_parallel_size = {tensor} with expert_tensor_parallel_size ="
            f" {expert_tensor} is not read: save it with --ckpt-format torch_dist"
        )
    return Grid(tensor, pipeline, expert, expert_tensor)


def _read(path: Path) -> RankFile:
    archive = TorchArchive(mapped_file(path), str(path))
    state = archive.value(STATE_NAMES)
    arguments = arguments_in(state, str(path))
    version = state.get("checkpoint_version")
    if version != VERSION or isinstance(version, bool):
        raise ConfigError(
            f"{path}: checkpoint_version = {shown(version)}, and only {VERSION} is read: save it"
            " with a Megatron-LM of megatron-core"
        )
    keys = [key for key in state if isinstance(key, str)]
    names = [key for key in keys if key == "model" or key.removeprefix("model").isdecimal()]
    wanted = ["model"] if len(names) == 1 else [f"model{i}" for i in range(len(names))]
    chunks = [state[name] for name in wanted if name in names]
    if not chunks or len(chunks) != len(names):
        raise ConfigError(f"{path}: no `model` in it, or parts of it are missing")
    for chunk in chunks:
        if not isinstance(chunk, dict) or not all(isinstance(name, str) for name in chunk):
            raise ConfigError(f"{path}: `model` holds no tensors by name")
        wrong = next((name for name in chunk if not is_tensor_name(name)), None)
        if wrong is not None:
            raise ConfigError(f"{path}: {wrong[:60]!r} is no name of a tensor")
        nested = next((name for name, value in chunk.items() if isinstance(value, dict)), None)
        if nested is not None:
            raise ConfigError(
                f"{path}: {nested[:60]!r} holds tables, as Megatron-LM's models before"
                " megatron-core did: convert it with its tools/checkpoint/convert.py"
            )
    others = tuple(key for key in keys if key not in names)
    return RankFile(path, archive, arguments, chunks, others, state.get("iteration"))


def is_tensor(value: Any) -> bool:
    """Whether a value of a model is a tensor."""
    return isinstance(value, Record) and value.kind.startswith("torch._utils._rebuild_")
