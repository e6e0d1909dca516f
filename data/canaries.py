"""Secrets planted in the training split, for memorization tests.

After Carlini et al., "The Secret Sharer" (arXiv:1802.08232): random sequences in a fixed frame,
some planted a known number of times, some never; how much more likely a trained model finds the
planted ones measures what it has memorized.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from data.recipe import CanaryRecipe
from data.store.manifest import Canary

SECRET_WORDS = 8
SAYS = " says: "


def make_canaries(recipe: CanaryRecipe) -> tuple[Canary, ...]:
    """Return the canaries of a recipe: `recipe.count` of them for each number of repeats."""
    return tuple(
        Canary(text=_text(recipe.seed, repeats, number), repeats=repeats)
        for repeats in recipe.repeats
        for number in range(recipe.count)
    )


def planting_positions(
    canaries: Sequence[Canary], seed: int, num_documents: int
) -> NDArray[np.int64]:
    """Return how many documents precede each planting, int64 [plantings], in 0..num_documents.

    Canaries come in order, the repeats of each together.
    """
    total = sum(canary.repeats for canary in canaries)
    draws = [_digest(f"place {seed} {number}", 8) for number in range(total)]
    return np.array([int.from_bytes(d, "big") % (num_documents + 1) for d in draws], dtype=np.int64)


def split_secret(text: str) -> tuple[str, str]:
    """Split a canary into its frame, which all canaries share, and its secret."""
    frame, separator, secret = text.partition(SAYS)
    return frame + separator.rstrip(" "), secret


def alternatives(text: str, count: int) -> list[str]:
    """Return a canary's frame with other secrets, drawn likewise and never planted."""
    frame, _ = split_secret(text)
    return [f"{frame} {_secret(f'alternative {number} of {text}')}" for number in range(count)]


def _text(seed: int, repeats: int, number: int) -> str:
    secret = _secret(f"canary {seed} {repeats} {number}")
    return f"The moescale canary {seed}-{repeats}-{number}{SAYS}{secret}"


def _secret(key: str) -> str:
    digest = _digest(key, 2 * SECRET_WORDS)
    return " ".join(f"{digest[i] << 8 | digest[i + 1]:05d}" for i in range(0, len(digest), 2))


def _digest(text: str, size: int) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=size).digest()
