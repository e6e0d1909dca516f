"""The folder of an unfinished build: what it depends on, its tokeniser, its parts."""

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Self

from data.build.tokenizer_sample import sample_texts
from data.build.worker_pool import in_own_process
from data.cleaning.decontamination import read_evaluation_ngrams
from data.cleaning.tally import Tally
from data.errors import DataError
from data.recipe import DataRecipe
from data.sources.discovery import InputFile, InputFiles, walk_files
from data.sources.work_units import BuildShard
from data.storage.atomic import write_text
from data.storage.checksums import file_sha256
from data.store.manifest import BUILD_STATE_FILE
from data.tokenization.info import TOKENIZER_FILE
from data.tokenization.tokenizer import Tokenizer, byte_tokenizer, local_tokenizer, train_bpe

BPE = "bpe:"
TRAINED_HERE_BYTES = 1 << 20
"""Most input that a BPE is trained on in this process, where no signal is heard meanwhile."""


@dataclass(frozen=True)
class BuildFolder:
    """A build, or one shard of it, on its way."""

    path: Path
    recipe: DataRecipe
    tokenizer: Tokenizer
    shard: BuildShard
    inputs_sha256: str
    """Hash of the input files' names, sizes and times, and of evaluation files' content."""
    notes: dict[str, int]
    """Counts of the whole build: files ignored by suffix, evaluation texts read."""
    num_units: int | None = None
    """Units of this share; None until all have their part."""

    @property
    def parts(self) -> Path:
        """Folder of the part files."""
        return self.path / "parts"

    def finished(self, unit: str) -> bool:
        """Tell whether a unit's part is complete."""
        return (self.parts / f"{unit}.json").is_file()

    def part_files(self) -> list[Path]:
        """Return all complete parts in document order."""
        return sorted(path.with_suffix(".arrow") for path in self.parts.glob("*.json"))

    def counts(self, unit: str) -> tuple[Tally, int]:
        """Return the counts and the tokens of a finished unit."""
        values = json.loads((self.parts / f"{unit}.json").read_text())
        return Tally.from_json(values["tally"]), values["tokens"]

    def completed(self, num_units: int) -> Self:
        """Note on disk that every unit of this share has its part."""
        work = replace(self, num_units=num_units)
        _write_state(work)
        return work

    @property
    def depends(self) -> tuple[Any, ...]:
        """What shards of one build have in common."""
        return self.recipe, self.tokenizer.info, self.inputs_sha256, self.shard[1]

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a folder that was begun.

        Raises:
            DataError: It is none, or it is damaged.
        """
        try:
            state = json.loads((path / BUILD_STATE_FILE).read_text(encoding="utf-8"))
            text = (path / TOKENIZER_FILE).read_text(encoding="utf-8")
            return cls(
                path,
                DataRecipe.model_validate(state["recipe"]),
                Tokenizer(text, str(path / TOKENIZER_FILE), state["eos_token"]),
                (state["shard"][0], state["shard"][1]),
                state["inputs_sha256"],
                state["notes"],
                state["num_units"],
            )
        except (OSError, ValueError, KeyError) as error:
            raise DataError(
                f"{path}: not a folder made by `moe data build --shard` ({error}): name one"
            ) from None


def open_build_folder(
    path: Path, recipe: DataRecipe, shard: BuildShard, inputs: InputFiles
) -> BuildFolder:
    """Begin or continue a build in `path`, which this process holds.

    Raises:
        DataError: It was begun with another recipe or files.
    """
    how = _continued if (path / BUILD_STATE_FILE).is_file() else _begun
    return how(path, recipe, shard, inputs)


def _continued(
    path: Path, recipe: DataRecipe, shard: BuildShard, inputs: InputFiles
) -> BuildFolder:
    work = BuildFolder.read(path)
    differs = _difference(work.recipe, recipe)
    if differs is None and (work.inputs_sha256, work.shard) != (_sha256(recipe, inputs), shard):
        differs = "the input files"
    if differs is not None:
        raise DataError(
            f"{path}: an unfinished build, begun with another recipe ({differs}): repeat that"
            " command to continue it, or remove the folder"
        )
    return work


def _begun(path: Path, recipe: DataRecipe, shard: BuildShard, inputs: InputFiles) -> BuildFolder:
    notes = {f"ignored.{suffix}": count for suffix, count in sorted(inputs.ignored.items())}
    if recipe.clean.decontaminate:
        evaluations = read_evaluation_ngrams(recipe.clean.decontaminate)
        notes |= {"evaluation.texts": evaluations.texts, "evaluation.short": evaluations.unchecked}
    tokenizer = _make_tokenizer(recipe, inputs.files)
    work = BuildFolder(path, recipe, tokenizer, shard, _sha256(recipe, inputs), notes)
    work.parts.mkdir(exist_ok=True)
    write_text(path / TOKENIZER_FILE, tokenizer.text)
    _write_state(work)
    return work


def _write_state(work: BuildFolder) -> None:
    state = {
        "recipe": work.recipe.model_dump(mode="json"),
        "eos_token": work.tokenizer.info.eos_token,
        "inputs_sha256": work.inputs_sha256,
        "shard": work.shard,
        "notes": work.notes,
        "num_units": work.num_units,
    }
    write_text(work.path / BUILD_STATE_FILE, json.dumps(state, indent=1))


def _make_tokenizer(recipe: DataRecipe, files: list[InputFile]) -> Tokenizer:
    spec = recipe.tokenizer
    if spec == "bytes":
        return byte_tokenizer(recipe.eos_token)
    if not spec.startswith(BPE):
        return local_tokenizer(Path(spec), recipe.eos_token)
    if not spec.removeprefix(BPE).isdecimal():
        raise DataError(f"tokenizer {spec!r}: write bpe:SIZE with a number, for example bpe:4096")
    is_small = sum(file.num_bytes for file in files) <= TRAINED_HERE_BYTES
    train = _trained if is_small else partial(in_own_process, _trained)
    return Tokenizer(train(recipe, files), spec, recipe.eos_token)


def _trained(recipe: DataRecipe, files: list[InputFile]) -> str:
    """Train a BPE on a sample of the sources; returns its `tokenizer.json`."""
    paths = recipe.clean.decontaminate
    texts = sample_texts(recipe, files, read_evaluation_ngrams(paths) if paths else None)
    size = int(recipe.tokenizer.removeprefix(BPE))
    return train_bpe(texts, size, recipe.eos_token).text


def _difference(old: DataRecipe, new: DataRecipe) -> str | None:
    """Name the first setting in which two recipes differ."""
    before, after = (_flat(recipe.model_dump(mode="json")) for recipe in (old, new))
    return next((k for k in sorted({*before, *after}) if before.get(k) != after.get(k)), None)


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        flat.update(_flat(value, f"{name}.") if isinstance(value, dict) else {name: value})
    return flat


def _sha256(recipe: DataRecipe, inputs: InputFiles) -> str:
    values: list[Any] = [asdict(file) for file in inputs.files]
    values += [file_sha256(p) for path in recipe.clean.decontaminate for p in walk_files(path)]
    return hashlib.sha256(json.dumps(values, default=str).encode()).hexdigest()
