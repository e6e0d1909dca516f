"""The models worth a look: of each proportion those near the size that a law likes best."""

from collections.abc import Callable, Iterator
from math import inf

from benchmarks.decisions.candidates import (
    WIDTHS,
    Candidate,
    Proportions,
    candidate,
    proportions_of,
)
from benchmarks.decisions.pricing import Pricer
from benchmarks.laws.fitted_law import FittedLaw

COARSE = 4
"""Of every so many widths one is looked at first."""
AROUND = 8
"""Widths on both sides of the best one that are looked at then: a factor of 6 in size."""
LEAST_BYTES = 12
"""Of a parameter in training, spread over all cards: its FP32 master and Adam's two moments."""

Fits = Callable[[Candidate], bool]


class Shortlist:
    """Models of every proportion that the law knows, near the best at the cards' whole rate.

    Losses at that rate are taken to fall up to a best width and to rise beyond it: a model outside
    comes in question only once that at the end of its proportions' widths does.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - what a choice of models depends on
        self,
        fitted: FittedLaw,
        pricer: Pricer,
        fits: Fits,
        seq_len: int,
        bits: float,
        loss: Callable[[Candidate, float], float],
    ) -> None:
        """Choose the models.

        Raises:
            BenchmarkError: The law does not tell which model to train.
        """
        self._fitted, self._fits, self._seq_len, self._bits = fitted, fits, seq_len, bits
        self._loss, self._pricer = loss, pricer
        self._models: dict[Proportions, list[Candidate]] = {}
        self._next: dict[tuple[Proportions, int], Iterator[Candidate]] = {}
        """What lies beyond the smallest (-1) and the largest (1) width of a proportion."""
        for proportions in proportions_of(fitted):
            middle = self._best_width(proportions)
            if middle is not None:
                self._look_around(proportions, middle)

    @property
    def models(self) -> list[Candidate]:
        """All that came in question so far."""
        return [one for models in self._models.values() for one in models]

    def beside(self, one: Candidate) -> list[Candidate]:
        """Return the next models beyond the ends of its proportions' widths, where it is an end."""
        models = self._models[one.proportions]
        found = []
        for step, end in ((-1, models[0]), (1, models[-1])):
            if one is end and (other := next(self._next[one.proportions, step], None)):
                models.insert(0 if step < 0 else len(models), other)
                found.append(other)
        return found

    def _look_around(self, proportions: Proportions, middle: int) -> None:
        low, high = max(0, middle - AROUND), middle + AROUND + 1
        self._models[proportions] = list(
            self._walk(proportions, range(low, min(high, len(WIDTHS))))
        )
        self._next[proportions, -1] = self._walk(proportions, range(low - 1, -1, -1))
        self._next[proportions, 1] = self._walk(proportions, range(high, len(WIDTHS)))

    def _walk(self, proportions: Proportions, numbers: range) -> Iterator[Candidate]:
        """Return the models of widths that the law knows, until one does not fit."""
        for number in numbers:
            one = candidate(self._fitted, proportions, WIDTHS[number], self._seq_len, self._bits)
            if one is not None and not self._fits(one):
                return
            if one is not None:
                yield one

    def _best_width(self, proportions: Proportions) -> int | None:
        """Return the best of the coarse widths, the first of equals; None where none fits.

        It looks no further once losses have risen twice.
        """
        best, at, risen = inf, None, 0
        for number in range(0, len(WIDTHS), COARSE):
            found = next(self._walk(proportions, range(number, number + 1)), None)
            if found is None:
                break
            reached = self._loss(found, self._pricer.most_tokens(found))
            risen = risen + 1 if reached >= best < inf else 0
            if risen == 2:
                break
            if reached < best or at is None:
                best, at = reached, number
        return at


def is_at_edge(one: Candidate) -> bool:
    """Whether a model is the smallest or the largest that is looked at."""
    return one.model.hidden_size in (WIDTHS[0], WIDTHS[-1])
