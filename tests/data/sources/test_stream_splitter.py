"""Streams are split as a slow reference splits them, wherever reads end."""

import gzip
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.sources.stream_splitter import split_stream
from tests.data.sources.test_readers import build, dropped, texts


def reference(content: bytes, separator: bytes) -> list[tuple[int, bytes]]:
    """Return offset and bytes of every piece that is more than white space."""
    found, position = [], 0
    for piece in content.split(separator):
        if piece.strip():
            found.append((position, piece))
        position += len(piece) + len(separator)
    return found


@settings(max_examples=100, deadline=None)
@given(
    pieces=st.lists(
        st.sampled_from([b"\n", b" ", b"\r\n", b"a", b"bc", b"<e>", b"<"]), max_size=40
    ),
    separator=st.sampled_from([b"\n", b"\n\n", b"\r\n", b"<e>", b" "]),
    read_bytes=st.integers(1, 9),
)
def test_documents_and_positions_are_those_of_a_slow_split(
    pieces: list[bytes], separator: bytes, read_bytes: int
) -> None:
    content = b"".join(pieces)
    with (
        TemporaryDirectory() as folder,
        patch("data.sources.stream_splitter.READ_BYTES", read_bytes),
    ):
        path = Path(folder, "a.txt")
        path.write_bytes(content)
        chunks = list(split_stream(path, None, separator, 64, 1000))
    found = [pair for c in chunks for pair in zip(c.positions, c.documents, strict=True)]
    assert found == reference(content, separator)
    assert sum(chunk.num_bytes for chunk in chunks) == len(content)


def read_gzip(path: Path, content: bytes) -> tuple[list[bytes], list[str]]:
    """The lines that a gzip file gives, and the reasons of what it does not."""
    path.write_bytes(content)
    chunks = list(split_stream(path, "gzip", b"\n", 1 << 20, 1 << 20))
    faults = [fault.reason for chunk in chunks for fault in chunk.faults]
    return [line for chunk in chunks for line in chunk.documents], faults


def test_zeros_behind_a_gzip_file_are_none_of_it(tmp_path: Path) -> None:
    lines = [b"line %d" % n for n in range(30_000)]
    packed = gzip.compress(b"\n".join(lines[:99]) + b"\n") + gzip.compress(b"\n".join(lines[99:]))
    for zeros in (0, 1, 512, 9000):
        assert read_gzip(tmp_path / "a.gz", packed + bytes(zeros)) == (lines, [])
    assert read_gzip(tmp_path / "a.gz", packed + b"noise") == (lines[:-1], ["unreadable"])
    found, faults = read_gzip(tmp_path / "a.gz", packed[:-2000])
    assert faults == ["truncated"] and found == lines[: len(found)] and len(found) > 20_000
    damaged = packed[:-2000] + bytes([packed[-2000] ^ 255]) + packed[-1999:]
    assert read_gzip(tmp_path / "a.gz", damaged)[1] == ["unreadable"]


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz"])
@pytest.mark.parametrize("separator", ["\n", "\n\n", "<|e|>"])
def test_blank_pieces_are_no_documents(name: str, separator: str, tmp_path: Path) -> None:
    blank = (separator + " \t" + separator * 3) * 500
    content = f"{blank}one{separator}{blank}\xfftwo{separator}{blank} ".encode("latin-1")
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    store = build(tmp_path / "out", tmp_path / name, source={"separator": separator})
    assert [text.strip() for text in texts(store)] == ["one"]
    assert store.manifest.counts["read"] == 2
    assert dropped(store) == {f"{name}:{content.index(bytes([0xFF]))}": "bad_utf8"}


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz"])
def test_a_blank_file_is_one_empty_document_where_nothing_separates(
    name: str, tmp_path: Path
) -> None:
    (tmp_path / "b.txt").write_text("text")
    (tmp_path / name).write_bytes(gzip.compress(b" \n\n") if name.endswith("gz") else b" \n\n")
    assert dropped(build(tmp_path / "out", tmp_path)) == {f"{name}:0": "empty"}
