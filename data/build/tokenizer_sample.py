"""The texts that a BPE is trained on: a bounded sample of the cleaned training split."""

from collections.abc import Iterator

import numpy as np

from data.cleaning.cleaner import Cleaner
from data.cleaning.decontamination import EvaluationNgrams
from data.cleaning.tally import Tally
from data.recipe import DataRecipe
from data.sources.discovery import InputFile
from data.sources.readers import read_unit
from data.sources.work_units import plan_units
from data.store.writer import is_held_out

SAMPLE_CHARACTERS = 64 << 20
SAMPLE_POINTS = 256


def sample_texts(
    recipe: DataRecipe, files: list[InputFile], evaluations: EvaluationNgrams | None
) -> Iterator[str]:
    """Yield cleaned texts of every source, spread over its files; a pure function of both.

    Held-out documents and repeated texts are left out. Each source contributes at most an equal
    part of 64 Mi characters, distributed over its files in proportion to their size.
    """
    cleaner = Cleaner(recipe.clean, recipe.max_document_mib << 20, (), evaluations)
    max_characters = SAMPLE_CHARACTERS // len(recipe.source)
    seen: set[bytes] = set()
    for source in range(len(recipe.source)):
        own = [file for file in files if file.source == source]
        for file, characters in zip(own, _quotas(own, max_characters), strict=True):
            if characters:
                yield from _file_texts(recipe, file, cleaner, seen, characters)


def _quotas(files: list[InputFile], max_characters: int) -> list[int]:
    """Return the characters to read of each file: all of a small source, else by file size."""
    ends = np.cumsum([file.num_bytes for file in files])
    if not files or ends[-1] <= max_characters:
        return [max_characters] * len(files)
    # Systematic sampling: equally spaced points in the source's bytes, counted by file.
    points = (np.arange(SAMPLE_POINTS) + 0.5) * ends[-1] / SAMPLE_POINTS
    counts = np.bincount(np.searchsorted(ends, points, side="right"), minlength=len(files))
    return [int(count) * max_characters // SAMPLE_POINTS for count in counts]


def _file_texts(
    recipe: DataRecipe, file: InputFile, cleaner: Cleaner, seen: set[bytes], max_characters: int
) -> Iterator[str]:
    column = recipe.source[file.source].text_column
    characters = 0
    for unit in plan_units(recipe, [file]):
        for document in read_unit(unit, column, recipe.max_document_mib << 20):
            cleaned = cleaner.clean(document, Tally())
            digest = cleaned.content_hash
            if cleaned.reason is not None or digest in seen:
                continue
            seen.add(digest)
            if not is_held_out(digest, recipe.held_out_fraction):
                yield cleaned.text
                characters += len(cleaned.text)
                if characters >= max_characters:
                    return
