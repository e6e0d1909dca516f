"""Documents that somebody else may have written: a good one with any value put somewhere in it."""

import copy
from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

Path = tuple[str | int, ...]
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


def damaged(content: bytes) -> st.SearchStrategy[bytes]:
    """Return a file's content cut short, or with one bit flipped."""
    cut = st.integers(0, len(content) - 1).map(lambda end: content[:end])
    position = st.tuples(st.integers(0, len(content) - 1), st.integers(0, 7))
    return cut | position.map(lambda at: _flipped(content, *at))


def _flipped(content: bytes, at: int, bit: int) -> bytes:
    return content[:at] + bytes([content[at] ^ (1 << bit)]) + content[at + 1 :]


def _paths(document: Any, prefix: Path = ()) -> Iterator[Path]:
    yield prefix
    items: Any = ()
    if isinstance(document, dict):
        items = document.items()
    elif isinstance(document, list):
        # Entries of a list are alike: the first two stand for all.
        items = enumerate(document[:2])
    for key, value in items:
        yield from _paths(value, (*prefix, key))
