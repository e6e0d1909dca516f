"""The texts a BPE is trained on: a bounded sample of the cleaned training split."""

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
NUM_PARTS = 256


def sample_texts(
    recipe: DataRecipe, files: list[InputFile], evaluations: EvaluationNgrams | None
) -> Iterator[str]:
    """Yield cleaned texts of every source, spread over its files; a pure function of both.

    Held-out documents and equal texts are left out. Each source gives at most an even share of
    64 Mi characters, spread over its files in proportion to their size.
    """
    cleaner = Cleaner(recipe.clean, recipe.max_document_mib << 20, (), evaluations)
    share = SAMPLE_CHARACTERS // len(recipe.source)
    seen: set[bytes] = set()
    for source in range(len(recipe.source)):
        mine = [file for file in files if file.source == source]
        for file, characters in zip(mine, _quotas(mine, share), strict=True):
            if characters:
                yield from _file_texts(recipe, file, cleaner, seen, characters)


def _quotas(files: list[InputFile], share: int) -> list[int]:
    """Return the characters to take of each file: all of a small source, else by size."""
    ends = np.cumsum([file.num_bytes for file in files])
    if not files or ends[-1] <= share:
        return [share] * len(files)
    # Even places in the source's bytes; each file gives one part for every place that it holds.
    places = (np.arange(NUM_PARTS) + 0.5) * ends[-1] / NUM_PARTS
    parts = np.bincount(np.searchsorted(ends, places, side="right"), minlength=len(files))
    return [int(count) * share // NUM_PARTS for count in parts]


def _file_texts(
    recipe: DataRecipe, file: InputFile, cleaner: Cleaner, seen: set[bytes], max_characters: int
) -> Iterator[str]:
    column = recipe.source[file.source].text_column
    taken = 0
    for unit in plan_units(recipe, [file]):
        for document in read_unit(unit, column, recipe.max_document_mib << 20):
            cleaned = cleaner.clean(document, Tally())
            digest = cleaned.content_hash
            if cleaned.reason is not None or digest in seen:
                continue
            seen.add(digest)
            if not is_held_out(digest, recipe.held_out_fraction):
                yield cleaned.text
                taken += len(cleaned.text)
                if taken >= max_characters:
                    return
