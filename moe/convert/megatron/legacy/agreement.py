"""Whether the ranks' files are of one checkpoint, and each lies in its own rank's folder."""

from collections.abc import Mapping
from typing import Any

from moe.config.model import ModelConfig
from moe.convert.family import model_differences
from moe.convert.megatron.legacy.rank_files import Grid, Rank, RankFile
from moe.convert.megatron.model_settings import model_of
from moe.convert.megatron.settings import of_arguments, shown
from moe.errors import ConfigError

Files = Mapping[Rank, RankFile]


def check_one_iteration(files: Files) -> None:
    """Refuse files of several iterations.

    Raises:
        ConfigError: Names two of them.
    """
    first = next(iter(files.values()))
    for file in files.values():
        if shown(file.iteration) != shown(first.iteration):
            raise ConfigError(
                f"{file.path}: iteration = {shown(file.iteration)}, and {shown(first.iteration)} in"
                f" {first.path}: copy the folders of all ranks from one iteration"
            )


def check_one_model(files: Files, model: ModelConfig, rows: int) -> None:
    """Refuse a file whose arguments are of another model than the first one's.

    Args:
        files: Of all ranks.
        model: By the first one's arguments.
        rows: Of the vocabulary.

    Raises:
        ConfigError: Names the file and what differs.
    """
    first = next(iter(files.values()))
    for file in files.values():
        other = model_of(of_arguments(str(file.path), file.arguments), rows)
        if wrong := model_differences(other.model_dump(), model.model_dump()):
            raise ConfigError(
                f"{file.path}: its arguments say {', '.join(wrong)}, and those in {first.path} say"
                " otherwise: copy the folders of all ranks from one checkpoint"
            )


def check_places(grid: Grid, files: Files) -> None:
    """Refuse files that lie in other ranks' folders, as far as their arguments tell.

    A file says which global rank saved it. Of files that all say the same (or nothing), one process
    has written them, as `tools/checkpoint/convert.py` does: then none may be a copy of another.

    Raises:
        ConfigError: Names the file.
    """
    numbers = {place: _count(file.arguments, "rank", least=0) for place, file in files.items()}
    if len(set(numbers.values())) == 1:
        _refuse_copies(files)
        return
    for place, number in numbers.items():
        if number is not None and not _belongs(grid, place, number, files[place].arguments):
            raise ConfigError(
                f"{files[place].path}: rank {shown(number)} saved it, whose folder is not"
                f" {grid.folder(place)}: files were swapped or folders renamed, put them back"
            )


def _belongs(grid: Grid, place: Rank, number: int, arguments: dict[str, Any]) -> bool:
    """Whether a global rank has this place: megatron-core's `initialize_model_parallel`.

    Its order is tp-cp-ep-dp-pp, or tp-cp-ep-pp-dp with `use_tp_pp_dp_mapping`; experts have no cp
    axis, but had one where they were ranks of data parallelism (before megatron-core 0.10).
    """
    sizes = ("context_parallel_size", "gtp_weight_remat_size")
    context, weights = (_count(arguments, key) or 1 for key in sizes)
    inner = grid.tensor * context * weights
    world = _count(arguments, "world_size")
    if arguments.get("use_tp_pp_dp_mapping"):
        stages = {number // inner % grid.pipeline}
    elif world and world % (inner * grid.pipeline) == 0:
        stages = {number // (world // grid.pipeline)}
    else:
        stages = {place.pipeline}  # not told
    experts = {number // size % grid.expert for size in (grid.expert_tensor, inner)}
    is_tensor = number % grid.tensor == place.tensor
    return is_tensor and place.pipeline in stages and place.expert in experts


def _refuse_copies(files: Files) -> None:
    seen: dict[tuple[tuple[str, int], ...], RankFile] = {}
    for file in files.values():
        sums = file.archive.checksums
        twin = file if sums is None else seen.setdefault(sums, file)
        if twin is not file:
            raise ConfigError(
                f"{file.path}: the same as {twin.path}: give each rank's folder its own file"
            )


def _count(arguments: dict[str, Any], key: str, least: int = 1) -> int | None:
    value = arguments.get(key)
    return value if type(value) is int and value >= least else None
