"""The study's text as a token store."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data.build.build import build_recipe
from data.recipe import CleanRecipe, DataRecipe, SourceRecipe
from data.store.reader import Store

HELD_OUT = 0.05
NEAR_DUPLICATES = 0.8
"""Python's library holds texts twice, nearly: one in each split would lower held-out losses."""


def build_corpus(sources: Sequence[Path], path: Path, vocabulary: int) -> dict[str, Any]:
    """Build the store unless it is there; returns what it is made of.

    Raises:
        DataError: The text is missing or too little.
    """
    if not path.exists():
        recipe = DataRecipe(
            source=(SourceRecipe(paths=tuple(sources)),),
            tokenizer=f"bpe:{vocabulary}",
            held_out_fraction=HELD_OUT,
            clean=CleanRecipe(near_duplicates=NEAR_DUPLICATES),
        )
        build_recipe(recipe, path)
    manifest = Store.open(path).manifest
    tokens = {
        split: sum(stream.tokens for stream in manifest.streams(split))
        for split in ("train", "held_out")
    }
    return {"documents": manifest.documents, "tokens": tokens, "vocabulary": vocabulary}
