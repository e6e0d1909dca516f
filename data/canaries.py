"""Secrets planted in the training split, for memorisation tests.

After Carlini et al., "The Secret Sharer" (arXiv:1802.08232): random sequences in a fixed frame,
some planted a known number of times, some never; how much more likely a trained model finds the
planted ones measures what it has memorised.
"""

import hashlib

import numpy as np
from numpy.typing import NDArray

from data.recipe import CanaryRecipe
from data.store.manifest import Canary

SECRET_WORDS = 8
SAYS = " says: "


def make_canaries(recipe: CanaryRecipe) -> tuple[Canary, ...]:
    """Return the canaries of a recipe: for each count of repeats, `recipe.count` of them."""
    return tuple(
        Canary(text=_text(recipe.seed, repeats, number), repeats=repeats)
        for repeats in recipe.repeats
        for number in range(recipe.count)
    )


def planting_positions(
    canaries: tuple[Canary, ...], seed: int, num_documents: int
) -> NDArray[np.int64]:
    """Return for each planting (canaries in order, repeats together) the document it follows.

    Values are in 0..num_documents: how many documents come before it.
    """
    total = sum(canary.repeats for canary in canaries)
    draws = [_digest(f"place {seed} {number}", 8) for number in range(total)]
    return np.array([int.from_bytes(d, "big") % (num_documents + 1) for d in draws], dtype=np.int64)


def split_secret(text: str) -> tuple[str, str]:
    """Return a canary's frame, which others share, and its secret."""
    frame, mark, secret = text.partition(SAYS)
    return frame + mark.rstrip(" "), secret


def alternatives(text: str, count: int) -> list[str]:
    """Return other secrets in a canary's frame, drawn alike and planted nowhere."""
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
