"""Documents that somebody else may have written: a good one with any value put somewhere in it."""

import copy
import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tomli_w
from hypothesis import strategies as st

Keys = tuple[str | int, ...]
# Edges first: hypothesis shrinks to the simplest.
_SCALARS = (
    st.none()
    | st.booleans()
    | st.sampled_from([0, 1, -1, 2**31, 2**63, 2**64, 10**30, 0.5, -0.0, 1e308])
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["", "..", "/etc/passwd", "a/b", "\0", "²", "\ud800", "0", "step"])
    | st.text(max_size=8)
)
ANY_JSON = st.recursive(
    _SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=5,
)


def mutations(document: Any) -> st.SearchStrategy[Any]:
    """Return documents with one value replaced, removed, or added."""
    paths = list(_paths(document))

    @st.composite
    def mutated(draw: st.DrawFn) -> Any:
        changed = copy.deepcopy(document)
        path = draw(st.sampled_from(paths))
        if not path:
            return draw(ANY_JSON)
        parent = changed
        for key in path[:-1]:
            parent = parent[key]
        act = draw(st.sampled_from(["replace", "remove", "add"]))
        if act == "replace":
            parent[path[-1]] = draw(ANY_JSON)
        elif act == "remove":
            del parent[path[-1]]
        elif isinstance(parent, dict):
            parent[draw(st.text(max_size=6))] = draw(ANY_JSON)
        else:
            parent.append(draw(ANY_JSON))
        return changed

    return mutated()


def read_document(file: Path) -> Any:
    """Return what a JSON, TOML or JSON lines file holds."""
    text = file.read_text()
    if file.suffix == ".toml":
        return tomllib.loads(text)
    return list(map(json.loads, text.splitlines())) if "jsonl" in file.name else json.loads(text)


def write_document(file: Path, value: Any) -> bool:
    """Write a mutated document; returns whether the format can hold it."""
    if file.suffix == ".toml":
        try:
            file.write_text(tomli_w.dumps(value))
        except (AttributeError, TypeError, ValueError):
            return False
    elif file.suffix == ".jsonl" and isinstance(value, list):
        file.write_text("".join(json.dumps(row) + "\n" for row in value))
    else:
        file.write_text(json.dumps(value))
    return True


def damaged(content: bytes) -> st.SearchStrategy[bytes]:
    """Return a file's content cut short, or with one bit flipped."""
    cut = st.integers(0, len(content) - 1).map(lambda end: content[:end])
    position = st.tuples(st.integers(0, len(content) - 1), st.integers(0, 7))
    return cut | position.map(lambda at: _flipped(content, *at))


def _flipped(content: bytes, at: int, bit: int) -> bytes:
    return content[:at] + bytes([content[at] ^ (1 << bit)]) + content[at + 1 :]


def _paths(document: Any, prefix: Keys = ()) -> Iterator[Keys]:
    yield prefix
    items: Any = ()
    if isinstance(document, dict):
        items = document.items()
    elif isinstance(document, list):
        # Entries of a list are alike: the first two stand for all.
        items = enumerate(document[:2])
    for key, value in items:
        yield from _paths(value, (*prefix, key))
