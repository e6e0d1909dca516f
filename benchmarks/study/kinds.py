"""Kinds of models: dense, or of so many experts."""

DENSE = 1
"""Experts of a dense model."""


def kind_name(experts: int) -> str:
    """Return a kind's name in tables and legends."""
    return "dense" if experts == DENSE else f"{experts} experts"
