"""Files and folders that may not be read, or are gone: counted and named, or refused."""

import bz2
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from data.build.build import build_recipe
from data.errors import DataError
from data.progress import BuildProgress
from data.sources.discovery import find_input_files
from data.sources.readers import read_unit
from data.sources.work_units import plan_units
from data.store.reader import Store
from tests.support.store_helpers import build, dropped, recipe, texts

NOBODY = 65534
LINE = json.dumps({"text": "one line"}).encode() + b"\n"
NAMES = ["a.txt", "b.jsonl", "c.jsonl.bz2", "d.txt.bz2", "e.parquet", "f.arrow"]


def write_all(folder: Path) -> list[Path]:
    """A file of each kind."""
    table = pa.table({"text": ["a row"]})
    for name, content in zip(
        NAMES, [b"text", LINE, bz2.compress(LINE), bz2.compress(b"t")], strict=False
    ):
        (folder / name).write_bytes(content)
    pq.write_table(table, folder / NAMES[4])
    pa.feather.write_feather(table, folder / NAMES[5])
    return [folder / name for name in NAMES]


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder of the user nobody, with one file in `in/` that can be read."""
    root = Path(tempfile.mkdtemp())
    (root / "in").mkdir()
    (root / "in/fine.txt").write_text("fine")
    os.chown(root, NOBODY, NOBODY)
    build(root / "warm", root / "in")  # what is imported on the way lies where nobody may not read
    yield root
    shutil.rmtree(root)


@contextmanager
def as_nobody() -> Iterator[None]:
    """Be a user to whom permissions apply."""
    os.setegid(NOBODY)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


@pytest.mark.needs("root")
def test_files_that_may_not_be_read_are_counted_and_named(place: Path) -> None:
    for path in write_all(place / "in"):
        path.chmod(0)
    with as_nobody():
        store = build(place / "out", place / "in")
    assert dropped(store) == {f"{name}:0": "unreadable" for name in NAMES}
    assert texts(store) == ["fine"]
    for name in NAMES:
        with as_nobody(), pytest.raises(DataError) as caught:
            build_recipe(recipe(place / "in" / name), place / "strict", workers=1, strict=True)
        assert f"{name}, position 0: unreadable (" in str(caught.value)
        assert "ermission denied" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.needs("root")
@pytest.mark.parametrize("closed", ["in", "in/below"])
def test_a_folder_that_cannot_be_listed_is_refused(closed: str, place: Path) -> None:
    (place / "in/below").mkdir()
    (place / closed).chmod(0)
    with as_nobody(), pytest.raises(DataError) as caught:
        build_recipe(recipe(place / "in"), place / "out", workers=1)
    expected = f"{place / closed}: Permission denied: make it readable or name others"
    assert str(caught.value) == expected
    assert {path.name for path in place.iterdir()} == {"in", "warm"}


@pytest.mark.needs("root")
def test_a_folder_that_can_only_be_listed_tells_its_files(place: Path) -> None:
    (place / "in/below").mkdir()
    write_all(place / "in/below")
    (place / "in/below").chmod(0o444)
    with as_nobody():
        store = build(place / "out", place / "in")
        assert dropped(store) == {f"{name}:0": "unreadable" for name in NAMES}
        with pytest.raises(DataError, match="Permission denied: make it readable") as caught:
            find_input_files(recipe(place / "in/below" / NAMES[0]))
    assert "\n" not in str(caught.value)


@pytest.mark.needs("root")
@pytest.mark.parametrize("key", ["tokenizer", "clean"])
def test_other_files_that_may_not_be_read_are_refused(key: str, place: Path) -> None:
    locked = place / "locked.json"
    locked.write_text("{}")
    locked.chmod(0)
    values = {"tokenizer": str(locked), "clean": {"decontaminate": [locked]}}
    with as_nobody(), pytest.raises(DataError, match=r"locked\.json.*ermission denied") as caught:
        build_recipe(recipe(place / "in", **{key: values[key]}), place / "out", workers=1)
    assert "\n" not in str(caught.value)


def test_links_to_nothing_are_counted_and_named(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/fine.txt").write_text("fine")
    for name in NAMES:
        (tmp_path / "in" / name).symlink_to(tmp_path / "nowhere")
    store = build(tmp_path / "out", tmp_path / "in")
    assert dropped(store) == {f"{name}:0": "unreadable" for name in NAMES}
    with pytest.raises(DataError, match="a.txt, position 0: unreadable"):
        build_recipe(recipe(tmp_path / "in"), tmp_path / "strict", workers=1, strict=True)


def test_files_that_vanish_are_counted_and_named(tmp_path: Path) -> None:
    """Some once they are listed, before they are looked into."""
    paths = write_all(tmp_path)
    (tmp_path / "0.jsonl").write_bytes(LINE)

    def remove(progress: BuildProgress) -> None:
        for path in paths if progress.stage == "clean and tokenize" else ():
            path.unlink(missing_ok=True)

    build_recipe(recipe(tmp_path), tmp_path / "out", workers=1, progress=remove)
    found = dropped(Store.open(tmp_path / "out"))
    assert found == {f"{name}:0": "unreadable" for name in NAMES}


def test_files_that_vanish_once_units_are_planned(tmp_path: Path) -> None:
    paths = write_all(tmp_path)
    wanted = recipe(tmp_path)
    units = list(plan_units(wanted, find_input_files(wanted).files))
    for path in paths:
        path.unlink()
    found = [document for unit in units for document in read_unit(unit, "text", 1 << 20)]
    assert [(Path(d.file).name, d.reason) for d in found] == [(n, "unreadable") for n in NAMES]
