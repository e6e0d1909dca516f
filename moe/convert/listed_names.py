"""Names that strangers chose, for a message."""

from collections.abc import Sequence

from data.plain_text import printable

MAX_SHOWN = 200
"""Most characters of a name that a message repeats."""


def listed(names: Sequence[str], most: int = 3) -> str:
    """Return the first of some names in one line that no terminal obeys."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(_shown, names[:most])) + more


def _shown(name: str) -> str:
    return printable(name if len(name) <= MAX_SHOWN else f"{name[:MAX_SHOWN]}...")
