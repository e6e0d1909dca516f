"""Tables in bounded memory: `max_document_mib` bounds what a Parquet file may ask for."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.build.build import build_recipe
from data.errors import DataError
from data.sources.discovery import find_input_files
from data.sources.parquet_pages import PageSizes, _CompactReader, page_sizes
from data.sources.readers import Document, read_unit
from data.sources.work_units import plan_units
from tests.support.store_helpers import build, dropped, recipe, texts

MIB = 1 << 20


@contextmanager
def counted_pool() -> Iterator[Any]:
    """Count the bytes that pyarrow asks for."""
    former = pa.default_memory_pool()
    pool = pa.proxy_memory_pool(former)
    pa.set_memory_pool(pool)
    try:
        yield pool
    finally:
        pa.set_memory_pool(former)


def read(path: Path, max_document_bytes: int) -> list[Document]:
    wanted = recipe(path)
    units = plan_units(wanted, find_input_files(wanted).files)
    return [d for unit in units for d in read_unit(unit, "text", max_document_bytes)]


def repeated(path: Path, value_bytes: int, rows: int) -> Path:
    """One value in a dictionary, for many rows."""
    indices = pa.array([0] * rows, pa.int32())
    words = pa.DictionaryArray.from_arrays(indices, pa.array(["x" * value_bytes]))
    pq.write_table(pa.table({"text": words}), path, compression="zstd")
    return path


def test_a_dictionary_is_not_written_out(tmp_path: Path) -> None:
    path = repeated(tmp_path / "a.parquet", MIB, 600)
    assert path.stat().st_size < 4000
    with counted_pool() as pool:
        found = [len(document.text) for document in read(path, 2 * MIB)]
        assert found == [MIB] * 600
        assert pool.max_memory() < 24 * MIB


def test_a_page_beyond_the_limit_is_never_decoded(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    long = pa.table({"text": pa.array(["y" * (32 * MIB)])})
    options: dict[str, Any] = {"compression": "zstd", "use_dictionary": False}
    with pq.ParquetWriter(path, long.schema, **options) as writer:
        writer.write_table(pa.table({"text": ["before"]}))
        writer.write_table(long)
        writer.write_table(pa.table({"text": ["after"]}))
    with counted_pool() as pool:
        before, fault, after = read(path, MIB)
        assert pool.max_memory() < 4 * MIB
    assert (before.text, after.text, after.position) == ("before", "after", 2)
    assert (fault.reason, fault.position) == ("too_large", 1)
    assert fault.detail is not None
    assert fault.detail.startswith("row group 1, 1 rows: a page of 33,554,")
    assert fault.detail.endswith("at most 20,971,520, 20 times max_document_mib")
    repeated(tmp_path / "b.parquet", 32 * MIB, 9)
    with counted_pool() as pool:
        large_dictionary = read(tmp_path / "b.parquet", MIB)
        assert pool.max_memory() < 4 * MIB
    assert [d.reason for d in large_dictionary] == ["too_large"]


@pytest.mark.parametrize("encoding", ["PLAIN", "DELTA_BYTE_ARRAY"])
def test_large_rows_are_decoded_a_few_at_a_time(encoding: str, tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    table = pa.table({"text": ["z" * (MIB // 2) + str(n) for n in range(200)]})
    pq.write_table(
        table, path, use_dictionary=False, column_encoding={"text": encoding}, write_batch_size=1
    )
    with counted_pool() as pool:
        assert len(read(path, MIB)) == 200
        assert pool.max_memory() < 80 * MIB


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("compression", ["none", "snappy", "gzip", "zstd"])
def test_page_sizes_are_those_of_the_metadata(
    version: str, compression: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.parquet"
    rows = [f"{n} " * (n % 50 + 1) for n in range(3000)]
    pq.write_table(
        pa.table({"id": range(3000), "text": rows}), path, compression=compression,
        data_page_version=version, write_page_checksum=True, row_group_size=1000,
        use_dictionary=False,
    )  # fmt: skip
    metadata = pq.ParquetFile(path).metadata
    for index in range(3):
        chunk = metadata.row_group(index).column(1)
        sizes = page_sizes(path, chunk)
        # One page a row group: what is left of the chunk is the page's header.
        assert 0 <= chunk.total_uncompressed_size - sizes.data < 400 and sizes.dictionary == 0
    pq.write_table(pa.table({"text": rows[:100]}), path)
    sizes = page_sizes(path, pq.ParquetFile(path).metadata.row_group(0).column(0))
    assert sizes.dictionary == sum(map(len, rows[:100])) + 4 * 100 and sizes.data < 200


@given(st.binary(max_size=80))
def test_any_bytes_as_a_page_header_end(content: bytes) -> None:
    try:
        fields = _CompactReader(content).integers()
    except (IndexError, ValueError):
        return
    assert all(isinstance(value, int) for value in fields.values())


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
@pytest.mark.parametrize("sizes", [(10, 0, 990), (0, 5), (5, 0), (0, 0, 1, 0), (0,), ()])
def test_groups_without_rows_hide_no_others(
    sizes: tuple[int, ...], kind: str, tmp_path: Path
) -> None:
    path = tmp_path / f"a.{kind}"
    schema = pa.schema([("id", pa.int64()), ("text", pa.string())])
    write = pq.ParquetWriter if kind == "parquet" else pa.ipc.new_stream
    first = 0
    with write(str(path), schema) as writer:
        for size in sizes:
            rows = range(first, first + size)
            writer.write_table(pa.table({"id": rows, "text": list(map(str, rows))}, schema))
            first += size
    found = read(path, MIB)
    assert [document.reason for document in found] == [None] * first
    assert [document.text for document in found] == list(map(str, range(first)))
    assert [document.position for document in found] == list(range(first))


def test_damaged_pages_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": ["one", "two"]}), path)
    assert page_sizes(path, pq.ParquetFile(path).metadata.row_group(0).column(0)) != PageSizes()
    content = bytearray(path.read_bytes())
    content[4:24] = b"\xff" * 20
    path.write_bytes(content)
    (tmp_path / "b.txt").write_text("fine")
    store = build(tmp_path / "out", path, tmp_path / "b.txt")
    assert texts(store) == ["fine"] and dropped(store) == {"a.parquet:0": "unreadable"}


def test_every_table_is_looked_at_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.txt").write_text("text")
    for name, columns in (("y.PARQUET", {"text": ["fine"]}), ("z.parquet", {"body": ["x"]})):
        pq.write_table(pa.table(columns), tmp_path / "in" / name)
    stages = []
    with pytest.raises(DataError, match=r"z\.parquet: no column 'text'; it has body"):
        build_recipe(recipe(tmp_path / "in"), tmp_path / "out", progress=stages.append)
    assert {progress.stage for progress in stages} == {"find files and make the tokenizer"}
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
    pq.write_table(pa.table([["a"], ["b"]], names=["text", "text"]), tmp_path / "in/z.parquet")
    with pytest.raises(DataError, match="two columns are named 'text': rename one"):
        build_recipe(recipe(tmp_path / "in"), tmp_path / "out", workers=1)
