"""The texts a BPE is trained on: a bounded sample of the cleaned training split."""

from collections.abc import Iterator

from data.clean import Cleaner, Tally
from data.contamination import EvaluationRuns
from data.readers import read_unit
from data.recipe import Recipe
from data.sources import InputFile
from data.units import plan_units
from data.writer import is_held_out

SAMPLE_BYTES = 64 << 20


def sample_texts(
    recipe: Recipe, files: list[InputFile], evaluations: EvaluationRuns | None
) -> Iterator[str]:
    """Yield cleaned texts of every source, spread over its files; a pure function of both.

    Held-out documents and equal texts are left out; each source gives at most an even share of
    64 MiB, and each of its files an even share of that.
    """
    cleaner = Cleaner(recipe.clean, recipe.max_document_mib << 20, (), evaluations)
    share = SAMPLE_BYTES // len(recipe.source)
    seen: set[bytes] = set()
    for source in range(len(recipe.source)):
        mine = [file for file in files if file.source == source]
        stride = max(1, sum(file.num_bytes for file in mine) // share)
        chosen = mine[::stride]
        for file in chosen:
            yield from _file_texts(recipe, file, cleaner, seen, share // len(chosen))


def _file_texts(
    recipe: Recipe, file: InputFile, cleaner: Cleaner, seen: set[bytes], max_characters: int
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
