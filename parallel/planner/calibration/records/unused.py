"""Records that are right but calibrate nothing here."""

MOST_HOST = 0.8
"""Share of a time that the host may take before it says nothing of the card."""


class UnusedError(Exception):
    """A record of a kind that is not modelled, or not alone; the message says which."""
