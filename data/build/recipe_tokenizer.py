"""The tokenizer that a recipe asks for: bytes, a local one, or a BPE trained on its sources."""

from functools import partial
from pathlib import Path

from data.build.tokenizer_sample import sample_texts
from data.build.worker_pool import run_in_subprocess
from data.cleaning.decontamination import read_evaluation_ngrams
from data.errors import DataError
from data.recipe import DataRecipe
from data.sources.discovery import InputFile
from data.tokenization.tokenizer import Tokenizer, byte_tokenizer, local_tokenizer, train_bpe

BPE = "bpe:"
TRAINED_HERE_BYTES = 1 << 20
"""Largest input on which a BPE is trained in this process, which handles no signal meanwhile."""


def make_tokenizer(recipe: DataRecipe, files: list[InputFile]) -> Tokenizer:
    """Read or train the tokenizer of a recipe.

    Raises:
        DataError: It cannot be read, or `bpe:SIZE` has no usable size.
    """
    spec = recipe.tokenizer
    if spec == "bytes":
        return byte_tokenizer(recipe.eos_token)
    if not spec.startswith(BPE):
        return local_tokenizer(Path(spec), recipe.eos_token)
    if not spec.removeprefix(BPE).isdecimal():
        raise DataError(f"tokenizer {spec!r}: write bpe:SIZE with a number, for example bpe:4096")
    is_small = sum(file.num_bytes for file in files) <= TRAINED_HERE_BYTES
    train = _train if is_small else partial(run_in_subprocess, _train)
    return Tokenizer(train(recipe, files), spec, recipe.eos_token)


def _train(recipe: DataRecipe, files: list[InputFile]) -> str:
    """Train a BPE on a sample of the sources; returns its `tokenizer.json`."""
    paths = recipe.clean.decontaminate
    texts = sample_texts(recipe, files, read_evaluation_ngrams(paths) if paths else None)
    size = int(recipe.tokenizer.removeprefix(BPE))
    return train_bpe(texts, size, recipe.eos_token).text
