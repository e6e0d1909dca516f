"""Turn a validation error into one line: which key, what is wrong, what is near."""

import difflib
from typing import Any

from pydantic import BaseModel, ValidationError

MAX_SHOWN = 100
MAX_MESSAGE = 400
"""Most characters of a key or value, and of a rule, that a message repeats."""


def explain(
    error: ValidationError,
    kind: type[BaseModel],
    prefix: tuple[str, ...] = (),
    *,
    by_hand: bool = True,
) -> str:
    """Describe the first fault of `error` (and how many follow) for a user, in one line.

    An unknown key is a slip in a file written `by_hand`; else, a later version wrote it.
    """
    faults = error.errors(include_url=False)
    unknown_first = sorted(faults, key=lambda fault: fault["type"] != "extra_forbidden")
    text = _fault_text(dict(unknown_first[0]), kind, prefix, by_hand)
    more = len(faults) - 1
    return f"{text} (and {more} more)" if more else text


def _fault_text(
    fault: dict[str, Any], kind: type[BaseModel], prefix: tuple[str, ...], by_hand: bool
) -> str:
    location = tuple(_one_line(str(part)) for part in fault["loc"])
    key = ".".join((*prefix, *location)) or ("experiment" if by_hand else "")
    if fault["type"] == "extra_forbidden":
        later = ": read it with the version of moescale that wrote it"
        return f"unknown key {key}{_nearest(location, kind, prefix) if by_hand else later}"
    if fault["type"] == "missing":
        return f"{key} is missing"
    message = _one_line(fault["msg"].removeprefix("Value error, "), MAX_MESSAGE)
    if fault["type"] == "value_error":
        return f"{key}: {message}" if key else message
    given = _one_line(repr(fault["input"]))
    return f"{key} = {given}: {message[0].lower()}{message[1:]}"


def _one_line(text: str, limit: int = MAX_SHOWN) -> str:
    """Return text for a message: what no terminal prints is escaped, and a long end left out."""
    shown = text if len(text) <= limit else f"{text[:limit]}..."
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in shown)


def _nearest(location: tuple[str, ...], kind: type[BaseModel], prefix: tuple[str, ...]) -> str:
    names = key_names(kind)
    wrong = ".".join(location)
    near = difflib.get_close_matches(wrong, names, n=1, cutoff=0.6)
    if not near:
        leaves = {name.rpartition(".")[2]: name for name in reversed(names)}
        near = [leaves[leaf] for leaf in difflib.get_close_matches(location[-1], leaves, n=1)]
    return f": did you mean {'.'.join((*prefix, near[0]))}?" if near else ""


def key_names(kind: type[BaseModel], prefix: str = "") -> list[str]:
    """Return all dotted keys of a section and its sub-sections, in file order."""
    names = []
    for name, field in kind.model_fields.items():
        names.append(prefix + name)
        for part in (field.annotation, *getattr(field.annotation, "__args__", ())):
            if isinstance(part, type) and issubclass(part, BaseModel):
                names += key_names(part, f"{prefix}{name}.")
    return names
