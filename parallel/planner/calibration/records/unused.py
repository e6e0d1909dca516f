"""Records that are right but calibrate nothing here."""

MOST_HOST = 0.8
"""Share of a time that the host may take before it says nothing of the card."""

FARTHEST = 100.0
"""How many times a time may be longer or shorter than modelled: beyond, it is another thing's."""
MOST_OF_PEAK = 1.5
"""How many times the data sheet's rate a GPU's products may reach: boost clocks, rounded sheets."""


class UnusedError(Exception):
    """A record of a kind that is not modelled, or not alone; the message says which."""


def check_ratio(ratio: float, kind: str) -> None:
    """Raise UnusedError where measured over modelled seconds are those of no such kernel."""
    if not 1 / FARTHEST <= ratio <= FARTHEST:
        raise UnusedError(
            f"{kind}: over {FARTHEST:g} times {'longer' if ratio > 1 else 'shorter'} than modelled"
        )
