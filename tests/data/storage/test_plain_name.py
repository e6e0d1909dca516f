"""Names in an index stay in its folder, whatever they are made of."""

from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.storage.plain_name import is_inner_name, is_plain_name

PARTS = st.sampled_from(["a", "..", ".", "", "/", "\\", "\0", "\n", "\ud800", "\u202e", "b.txt"])


@given(st.lists(PARTS, max_size=5).map("".join) | st.text(max_size=8))
def test_a_name_that_is_taken_stays_inside(name: str) -> None:
    inside = Path("/folder")
    joined = PurePosixPath(inside / name) if "\0" not in name else inside
    if is_plain_name(name):
        assert joined.parent == inside and joined.name == name
    if is_inner_name(name):
        assert ".." not in joined.parts and joined.is_relative_to(inside) and joined != inside
        assert str(joined) == f"{inside}/{name}"


@pytest.mark.parametrize("name", [None, 1, ["a"], b"a", "", ".", "..", "a/b", "/a", "a" * 256])
def test_what_is_no_plain_name(name: object) -> None:
    assert not is_plain_name(name)


def test_what_is_an_inner_name() -> None:
    assert all(map(is_inner_name, ["a", "a/b.arrow", "train/d\u00e9j\u00e0 vu.bin"]))
    assert not any(map(is_inner_name, ["a/", "/a", "a//b", "a/./b", "a/../b", "a\\b"]))
