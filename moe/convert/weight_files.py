"""Which files of a Hugging Face folder are the model's weights: those that transformers reads.

The order is that of `_get_resolved_checkpoint_files` in transformers 5.24 (`modeling_utils.py`).
Beside them folders hold other forms (`consolidated.safetensors`, `model.fp16.safetensors`),
adapters, and what an earlier save left: none of those is the model.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moe.convert.hub_config import HubConfig
from moe.convert.hub_files import INDEX, named_file, read_json_table
from moe.convert.listed_names import listed
from moe.errors import ConfigError

WEIGHTS = "model.safetensors"
STATED = "transformers_weights"
"""Key of `config.json` that names another file, or another index."""
_ENDINGS = _ENDING, _INDEX_ENDING = (".safetensors", ".safetensors.index.json")
_SHARD = re.compile(r"model-([0-9]+)-of-([0-9]+)\.safetensors")


@dataclass(frozen=True)
class WeightFiles:
    """The files with a model's tensors."""

    paths: list[Path]
    unread: list[str]
    """Names of the folder's other weights and indexes."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What to say of the others, a line; none where there are none."""
        if not self.unread:
            return ()
        read = listed([path.name for path in self.paths])
        return (f"the weights are those in {read}; not read: {listed(self.unread)}",)


def weight_files(directory: Path, config: HubConfig) -> WeightFiles:
    """Return the files with the tensors of the model in a folder.

    They are what `config.json` names, else `model.safetensors`, else the shards of its index, else
    a complete set of shards without one, which transformers does not load.

    Raises:
        ConfigError: There are none of these, or they are no plain files of the folder.
    """
    found = {path.name for path in directory.iterdir() if path.name.endswith(_ENDINGS)}
    chosen = _stated(directory, config) or next(
        (name for name in (WEIGHTS, INDEX) if name in found), None
    )
    if chosen is None:
        names = _shards(directory, found)
    elif chosen.endswith(_INDEX_ENDING):
        names = _indexed(directory, chosen)
    else:
        names = [chosen]
    paths = {named_file(directory, name) for name in names}
    unread = found - {path.name for path in paths} - {chosen}
    return WeightFiles(sorted(paths), sorted(unread))


def _stated(directory: Path, config: HubConfig) -> str | None:
    if config.values.get(STATED) is None:
        return None
    name = config.text(STATED)
    if not name.endswith(_ENDINGS):
        raise ConfigError(
            f"{config.origin}: {STATED} = {name[:60]!r}: name a file of *{_ENDING} or its index"
            f" (*{_INDEX_ENDING}), or remove the key to have {WEIGHTS} read"
        )
    return named_file(directory, name).name


def _indexed(directory: Path, name: str) -> list[Any]:
    index = HubConfig(str(directory / name), read_json_table(directory, name))
    shards = [*(index.table("weight_map") or {}).values()]
    if not shards:
        raise ConfigError(f"{index.origin}: weight_map names no weights: give the shards' index")
    return shards


def _shards(directory: Path, found: set[str]) -> list[str]:
    """Return the shards of a folder without an index, whose names tell whether they are all."""
    shards = [shard for name in sorted(found) if (shard := _SHARD.fullmatch(name))]
    if not shards:
        raise ConfigError(f"{directory}: {_why_no_weights(directory, found)}")
    number, total = shards[0].groups()
    numbers = sorted(int(shard[1]) for shard in shards)
    if {shard[2] for shard in shards} != {total}:
        fault = f"shards of several sets, such as {listed([shards[0][0], shards[-1][0]])}"
    elif missing := next((n for n in range(1, int(total) + 1) if n not in numbers), None):
        fault = f"model-{missing:0{len(number)}d}-of-{total}{_ENDING} is missing"
    elif len(numbers) > int(total):
        fault = f"more shards than the {int(total)} of model-*-of-{total}{_ENDING}"
    else:
        return [shard[0] for shard in shards]
    raise ConfigError(f"{directory}: {fault}, and no {INDEX} says which are the model's: add it")


def _why_no_weights(directory: Path, found: set[str]) -> str:
    if found:
        return (
            f"no {WEIGHTS}, no {INDEX} and no shards: {listed(sorted(found))} is not read as the"
            f" model: if it is, rename it to {WEIGHTS}"
        )
    pickled = any(directory.glob("*.bin"))
    reason = "only pickled weights, which are never read here" if pickled else "no weights"
    return f"{reason}: give a directory with {WEIGHTS}, or shards and their index"
