"""The models worth a look: of each proportion those near the size that a law likes best."""

from collections.abc import Callable, Sequence
from math import inf

from benchmarks.decisions.best_first import MOST_UTILISATION
from benchmarks.decisions.candidates import WIDTHS, Candidate, Proportions, proportions_of, sizes
from benchmarks.decisions.pricing import Pricer
from benchmarks.laws.fitted_law import FittedLaw

COARSE = 4
"""Of every so many widths one is looked at first."""
AROUND = 8
"""Widths on both sides of the best one that are looked at then: a factor of 6 in size."""
LEAST_BYTES = 12
"""Of a parameter in training, spread over all cards: its FP32 master and Adam's two moments."""

Fits = Callable[[Candidate], bool]


def shortlist(
    fitted: FittedLaw,
    pricer: Pricer,
    fits: Fits,
    seq_len: int,
    bits: float,
    loss: Callable[[Candidate, float], float],
) -> list[Candidate]:
    """Return models of every proportion that the law knows, near the best by an optimistic cost.

    Raises:
        BenchmarkError: The law does not tell which model to train.
    """

    def look(proportions: Proportions, widths: Sequence[int]) -> list[Candidate]:
        return [one for one in sizes(fitted, proportions, widths, seq_len, bits) if fits(one)]

    def best_width(proportions: Proportions) -> int | None:
        """Return the best of the coarse widths, the first of equals; None where none fits.

        It looks no further once losses have risen twice.
        """
        best, at, risen = inf, None, 0
        for number in range(0, len(WIDTHS), COARSE):
            found = look(proportions, WIDTHS[number : number + 1])
            if not found:
                break
            reached = loss(found[0], pricer.optimistic_tokens(found[0], MOST_UTILISATION))
            risen = risen + 1 if reached >= best < inf else 0
            if risen == 2:
                break
            if reached < best or at is None:
                best, at = reached, number
        return at

    found: list[Candidate] = []
    for proportions in proportions_of(fitted):
        middle = best_width(proportions)
        if middle is not None:
            found += look(proportions, WIDTHS[max(0, middle - AROUND) : middle + AROUND + 1])
    return found


def is_at_edge(one: Candidate) -> bool:
    """Whether a model is the smallest or the largest that is looked at."""
    return one.model.hidden_size in (WIDTHS[0], WIDTHS[-1])
