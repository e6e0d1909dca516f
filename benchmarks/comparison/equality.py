"""When two sizes count as equal: one rule for the report's sentence and its tables."""

# Loss falls about as N^-0.076 (arXiv:2001.08361): 5% in size moves it by 0.4%, 0.015 nats at a
# loss of 4, which is what seeds differ by. At 10% size alone would show.
EQUAL_WITHIN = 0.05


def relative_gap(a: float, b: float) -> float:
    """Return the difference of two sizes as a fraction of the larger one, from 0 to 1."""
    return abs(a - b) / max(a, b, 1)


def count_as_equal(a: float, b: float) -> bool:
    """Return whether two sizes (parameters, tokens) are close enough to be called equal."""
    return relative_gap(a, b) <= EQUAL_WITHIN
