"""The folder of an unfinished build: what the build depends on, its tokenizer, its unit outputs."""

import hashlib
import json
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, ValidationError

from data.build.recipe_tokenizer import make_tokenizer
from data.build.unit_counts import UnitCounts
from data.cleaning.decontamination import read_evaluation_ngrams
from data.cleaning.tally import Tally
from data.described_files import read_text_file
from data.dotted_keys import flatten
from data.errors import DataError
from data.frozen_model import FrozenModel
from data.recipe import DataRecipe, describe_recipe_error
from data.sources.discovery import InputFiles, walk_files
from data.sources.work_units import UNIT_BYTES, BuildShard
from data.storage.atomic import write_text
from data.storage.bounded_json import parse_json
from data.storage.checksums import file_sha256
from data.store.manifest import BUILD_STATE_FILE
from data.tokenization.info import TOKENIZER_FILE
from data.tokenization.tokenizer import Tokenizer

FORMAT_VERSION = 2
"""Of `work.json` and the unit outputs beside it; those of 1, which wrote none, hash other words."""
REFUSED_FILE = "refused"
"""Marks a build that ended in a refusal: it continues, but another recipe may replace it."""
KEPT_BYTES = UNIT_BYTES
"""Input of finished work from which a refused build is kept; less is done again in seconds."""


class _State(FrozenModel):
    """The content of `work.json`."""

    format_version: int
    recipe: DataRecipe
    eos_token: str
    inputs_sha256: str
    shard: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]]
    notes: dict[str, int]
    num_units: Annotated[int, Field(ge=0)] | None


@dataclass(frozen=True)
class BuildFolder:
    """An unfinished build, or one build shard."""

    path: Path
    recipe: DataRecipe
    tokenizer: Tokenizer
    shard: BuildShard
    inputs_sha256: str
    """Hash of the input files' names, sizes and times, and of evaluation files' content."""
    notes: dict[str, int]
    """Counts of the complete build: files ignored by suffix, evaluation texts read."""
    num_units: int | None = None
    """Work units of this build shard; None until all have their output."""

    @property
    def outputs(self) -> Path:
        """Folder of the unit outputs."""
        return self.path / "parts"

    def is_finished(self, unit: str) -> bool:
        """Whether the output of a work unit is complete."""
        return (self.outputs / f"{unit}.json").is_file()

    def output_files(self) -> list[Path]:
        """Return the Arrow files of all complete unit outputs, in document order."""
        return sorted(path.with_suffix(".arrow") for path in self.outputs.glob("*.json"))

    def counts(self, unit: str) -> tuple[Tally, int]:
        """Return the counts and the number of tokens of a finished work unit."""
        counts = UnitCounts.read(self.outputs / f"{unit}.json")
        return counts.tally, counts.tokens

    def completed(self, num_units: int) -> Self:
        """Record on disk that every work unit of this build shard has its output."""
        folder = replace(self, num_units=num_units)
        _write_state(folder)
        return folder

    @property
    def common_state(self) -> tuple[Any, ...]:
        """What all shards of one build have in common."""
        return self.recipe, self.tokenizer.info, self.inputs_sha256, self.shard[1]

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read the folder of a build that was started.

        Raises:
            DataError: It is no such folder, or it is damaged.
        """
        file = path / BUILD_STATE_FILE
        try:
            values = parse_json(read_text_file(file))
            text = read_text_file(path / TOKENIZER_FILE)
        except OSError as error:
            raise DataError(_not_a_build(path, error.strerror or str(error))) from None
        except ValueError as error:
            raise DataError(_not_a_build(path, str(error))) from None
        version = values.get("format_version") if isinstance(values, dict) else None
        if isinstance(values, dict) and version != FORMAT_VERSION:
            raise DataError(
                f"{path}: format_version {version}, this moescale continues {FORMAT_VERSION}:"
                " finish it with the version that began it, or remove it and build again"
            )
        try:
            state = _State.model_validate(values)
        except ValidationError as error:
            raise DataError(_not_a_build(path, describe_recipe_error(error))) from None
        return cls(
            path,
            state.recipe,
            Tokenizer(text, str(path / TOKENIZER_FILE), state.eos_token),
            state.shard,
            state.inputs_sha256,
            state.notes,
            state.num_units,
        )


def _not_a_build(path: Path, fault: str) -> str:
    return f"{path}: not a folder made by `moe data build --shard` ({fault}): name one"


def open_build_folder(
    path: Path, recipe: DataRecipe, shard: BuildShard, inputs: InputFiles
) -> BuildFolder:
    """Start a build in `path`, or resume the one that is there; this process holds its lock.

    Raises:
        DataError: It was started with another recipe or other input files.
    """
    open_it = _resume if (path / BUILD_STATE_FILE).is_file() else _start
    return open_it(path, recipe, shard, inputs)


def abandon(path: Path, *, is_new: bool) -> None:
    """After a refusal, keep finished work for a build that continues it, and block no other.

    Args:
        path: The folder, locked for this process.
        is_new: Whether this process began the build; it removes only its own, where small.
    """
    finished = (UnitCounts.read(file).num_bytes for file in path.glob("parts/*.json"))
    if is_new and sum(finished) <= KEPT_BYTES:
        shutil.rmtree(path, ignore_errors=True)
    else:
        (path / REFUSED_FILE).touch()


def _resume(path: Path, recipe: DataRecipe, shard: BuildShard, inputs: InputFiles) -> BuildFolder:
    folder = BuildFolder.read(path)
    differs = _first_difference(folder.recipe, recipe)
    if differs is None and (folder.inputs_sha256, folder.shard) != (_sha256(recipe, inputs), shard):
        differs = "the input files"
    refused = path / REFUSED_FILE
    if differs is not None and refused.exists():
        (path / BUILD_STATE_FILE).unlink()
        shutil.rmtree(folder.outputs)
        refused.unlink()
        return _start(path, recipe, shard, inputs)
    refused.unlink(missing_ok=True)
    if differs is not None:
        raise DataError(
            f"{path}: an unfinished build, begun with another recipe ({differs}): repeat that"
            " command to continue it, or remove the folder"
        )
    return folder


def _start(path: Path, recipe: DataRecipe, shard: BuildShard, inputs: InputFiles) -> BuildFolder:
    notes = {f"ignored.{suffix}": count for suffix, count in sorted(inputs.ignored.items())}
    if recipe.clean.decontaminate:
        evaluations = read_evaluation_ngrams(recipe.clean.decontaminate)
        notes |= {"evaluation.texts": evaluations.texts, "evaluation.short": evaluations.unchecked}
        ignored = sorted(evaluations.ignored.items())
        notes |= {f"evaluation.ignored.{suffix}": count for suffix, count in ignored}
    tokenizer = make_tokenizer(recipe, inputs.files)
    folder = BuildFolder(path, recipe, tokenizer, shard, _sha256(recipe, inputs), notes)
    folder.outputs.mkdir(exist_ok=True)
    write_text(path / TOKENIZER_FILE, tokenizer.text)
    _write_state(folder)
    return folder


def _write_state(folder: BuildFolder) -> None:
    state = {
        "format_version": FORMAT_VERSION,
        "recipe": folder.recipe.model_dump(mode="json"),
        "eos_token": folder.tokenizer.info.eos_token,
        "inputs_sha256": folder.inputs_sha256,
        "shard": folder.shard,
        "notes": folder.notes,
        "num_units": folder.num_units,
    }
    write_text(folder.path / BUILD_STATE_FILE, json.dumps(state, indent=1))


def _first_difference(old: DataRecipe, new: DataRecipe) -> str | None:
    """Name the first setting in which two recipes differ."""
    before, after = (flatten(recipe.model_dump(mode="json")) for recipe in (old, new))
    return next((k for k in sorted({*before, *after}) if before.get(k) != after.get(k)), None)


def _sha256(recipe: DataRecipe, inputs: InputFiles) -> str:
    """Hash what the build depends on besides its recipe; field names of `InputFile` enter it."""
    values: list[Any] = [asdict(file) for file in inputs.files]
    values += [file_sha256(p) for path in recipe.clean.decontaminate for p in walk_files(path)]
    return hashlib.sha256(json.dumps(values, default=str).encode()).hexdigest()
