"""Text as people see it: whether there is any."""

import regex

INVISIBLE = regex.compile(r"\p{Default_Ignorable_Code_Point}+")
# With white space, control characters, and the braille pattern without dots.
_VISIBLE = regex.compile(r"[^\s\p{Cc}\u2800\p{Default_Ignorable_Code_Point}]+")


def has_visible_text(text: str) -> bool:
    """Return whether anything but white space and invisible characters is in a text."""
    return _VISIBLE.search(text) is not None


def visible_text(text: str) -> str:
    """Return what is left of a text without white space and invisible characters."""
    return "".join(_VISIBLE.findall(text))
