"""Records that are right but calibrate nothing here."""


class UnusedError(Exception):
    """A record of a kind that is not modelled, or not alone; the message says which."""
