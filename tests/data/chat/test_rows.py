"""Files of conversations: what they may be, and what is refused in one line."""

import bz2
import gzip
import json
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from data.chat.build import build_chat_store
from data.errors import DataError
from data.store.reader import Store
from tests.support.chat_helpers import ask, write_rows
from tests.support.store_helpers import build, contents, texts

ROWS = [ask(f"question {n}", "an answer " * (n + 1)) for n in range(4)]
LINES = "".join(json.dumps(row) + "\n\n" for row in ROWS).encode()


def write(folder: Path, name: str) -> Path:
    path = folder / name
    form = path.suffix
    table = pa.table({"id": range(4), "day": [date(2026, 1, 2)] * 4,
                      "messages": [row["messages"] for row in ROWS]})  # fmt: skip
    if form == ".parquet":
        pq.write_table(table, path, row_group_size=2)
    elif form in {".arrow", ".feather"}:
        pa.feather.write_feather(table, str(path))
    elif form == ".bz2":
        path.write_bytes(bz2.compress(LINES))
    elif form in {".gz", ".gzip"}:
        path.write_bytes(gzip.compress(LINES))
    elif form in {".zst", ".zstd"}:
        path.write_bytes(pa.compress(LINES, codec="zstd", asbytes=True))
    else:
        path.write_bytes(LINES)
    return path


def chats(out: Path, *files: Path) -> Store:
    build_chat_store(files, out, tokenizer="bytes", held_out_fraction=0, strict=True)
    return Store.open(out)


FORMS = ["jsonl", "json", "jsonl.gz", "jsonl.gzip", "ndjson.zst", "jsonl.zstd", "jsonl.bz2"]
FORMS += ["parquet", "arrow", "feather"]


@pytest.mark.parametrize("form", FORMS)
def test_every_format_gives_the_same_store(form: str, tmp_path: Path) -> None:
    store = chats(tmp_path / "out", write(tmp_path, f"a.b.{form}"))
    assert [source.name for source in store.manifest.sources] == ["a.b"]
    expected = chats(tmp_path / "expected", write_rows(tmp_path / "a.b.jsonl", ROWS))
    assert texts(store) == texts(expected) and len(texts(store)) == 4
    less = {"manifest.json"}  # which counts the other columns
    assert {k: v for k, v in contents(store.path).items() if k not in less} == {
        k: v for k, v in contents(expected.path).items() if k not in less
    }


def refusal(folder: Path, *files: Path) -> str:
    """What a build says that leaves nothing."""
    with pytest.raises(DataError) as caught:
        chats(folder / "out", *files)
    assert "\n" not in str(caught.value) and not (folder / "out").exists()
    return str(caught.value)


@pytest.mark.parametrize("content", [json.dumps(ROWS), json.dumps(ROWS, indent=1), "\n[\n"])
@pytest.mark.parametrize("compressed", [False, True])
def test_arrays_are_refused(content: str, compressed: bool, tmp_path: Path) -> None:
    path = tmp_path / ("a.json.gz" if compressed else "a.json")
    path.write_bytes(gzip.compress(content.encode()) if compressed else content.encode())
    expected = "a.json: an array is not JSON lines: `jq -c '.[]'` makes lines of it"
    assert expected in refusal(tmp_path, path).replace(".json.gz", ".json")


@pytest.mark.parametrize("suffix", ["xz", "zip", "tar.gz", "7z", "LZ4"])
def test_other_compressions_are_refused(suffix: str, tmp_path: Path) -> None:
    path = write_rows(tmp_path / f"a.jsonl.{suffix}", ROWS)
    form = suffix.lower().removesuffix(".gz")
    assert f"a.jsonl.{suffix}: .{form} is not read: unpack it" in refusal(tmp_path, path)


@pytest.mark.parametrize("form", FORMS[2:])
def test_a_cut_file_is_refused_as_a_whole(form: str, tmp_path: Path) -> None:
    path = write(tmp_path, f"a.{form}")
    path.write_bytes(path.read_bytes()[:-30])
    assert "give a complete file" in refusal(tmp_path, path)


@pytest.mark.parametrize(
    "name", ["..jsonl", "...jsonl", "tokenizer.json.jsonl", "manifest.json.jsonl.gz"]
)
def test_names_that_no_source_can_have_are_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(gzip.compress(LINES) if name.endswith("gz") else LINES)
    assert f"{name}: a source cannot be named" in refusal(tmp_path, path)


@pytest.mark.parametrize("name", ["tokenizer.json", "manifest.json", "work.json"])
def test_sources_of_a_recipe_cannot_have_them(name: str, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    with pytest.raises(DataError, match=f"a source cannot be named '{name}': rename it"):
        build(tmp_path / "out", tmp_path / "a.txt", source={"name": name})
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
