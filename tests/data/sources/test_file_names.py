"""Names of the file system are bytes: read in any encoding, and printable wherever they go."""

import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from data.cli.commands import app
from data.errors import DataError, InputError
from data.plain_text import encodable, encodable_values, printable
from data.store.reader import Store
from tests.support.loader_helpers import make
from tests.support.store_helpers import build, texts

LATIN = os.fsdecode(b"caf\xe9")


def moe_data(*arguments: Any) -> str:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.exception
    done.stdout.encode()  # what a terminal or a pipe takes
    return done.stdout


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of such a name, with a file of every format that has one too."""
    folder = tmp_path / LATIN
    folder.mkdir()
    (folder / f"{LATIN}.txt").write_text("a few words of text")
    (folder / f"{LATIN}.jsonl").write_text('{"text": "a line"}\n{"body": "none"}\n')
    (folder / f"x.{LATIN}").write_text("ignored")
    table = pa.table({"text": ["a row", None]})
    pq.write_table(table, tmp_path / "t")
    (tmp_path / "t").rename(folder / f"{LATIN}.parquet")
    pa.feather.write_feather(table, tmp_path / "t")
    (tmp_path / "t").rename(folder / f"{LATIN}.arrow")
    return folder


def test_files_of_any_name_are_read_and_named(folder: Path) -> None:
    out = folder / "store"
    options = ("--tokenizer", "bytes", "--held-out", 0, "--set", "clean.exact_duplicates=false")
    built = json.loads(moe_data("build", folder, "-o", out, *options, "--json"))
    assert built["documents"] == 4 and built["dropped"] == {"no_text": 3}
    assert built["counts"]["ignored.caf\\xe9"] == 1
    assert built["settings"]["source"][0]["paths"] == [printable(folder)]
    found = json.loads(moe_data("dropped", out, "--json"))
    name = f"{printable(folder)}/caf\\xe9"
    assert [row["file"] for row in found] == [f"{name}.arrow", f"{name}.jsonl", f"{name}.parquet"]
    assert name in moe_data("dropped", out)
    assert moe_data("inspect", out).startswith(printable(out))
    page = folder / LATIN / f"{LATIN}.html"
    moe_data("inspect", out, "--html", page)
    assert "surrogate" not in page.read_text(encoding="utf-8")
    assert json.loads(moe_data("verify", out, "--json"))["faults"] == []
    assert printable(out) in moe_data("verify", out)
    moe_data("pack", out, "--seq-len", 8)
    assert sorted(texts(Store.open(out))) == sorted(
        ["a few words of text", "a line", *["a row"] * 2]
    )
    loader = make(out, seq_len=8, global_batch_size=1, packing="best_fit", prefetch_steps=0)
    assert loader.step(0)


def test_megatron_s_files_of_any_name(folder: Path) -> None:
    store = folder / "store"
    build(store, folder / f"{LATIN}.txt")
    assert "caf\\xe9.bin" in moe_data("export", store, folder / LATIN)
    out = folder / "back"
    moe_data("import", folder / LATIN, "-o", out, "--tokenizer", "bytes", "--json")
    imported = Store.open(out).manifest.settings["imported"]
    assert imported == f"{printable(folder)}/caf\\xe9"


def test_shards_below_such_a_folder_merge(folder: Path) -> None:
    arguments = ("-o", folder / "s", "--tokenizer", "bytes", "--held-out", 0)
    (shard,) = json.loads(
        moe_data("build", folder, *arguments, "--shard", "1/1", "--json")
    ).values()
    assert shard == printable(folder / "s.shard-1-of-1")
    moe_data("merge", folder / "s.shard-1-of-1", "-o", folder / "s")
    assert len(texts(Store.open(folder / "s"))) == 3


def test_a_build_that_failed_blocks_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever ended it: a fault of the product, such as an encoding error, as well."""
    (tmp_path / "a.txt").write_text("one")

    def fail(*_: Any) -> None:
        raise UnicodeEncodeError("utf-8", "\udce9", 0, 1, "surrogates not allowed")

    with monkeypatch.context() as patch:
        patch.setattr("data.build.unit_output.UnitProcessor.process", fail)
        with pytest.raises(UnicodeEncodeError):
            build(tmp_path / "out", tmp_path / "a.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    (tmp_path / "b.txt").write_text("two")
    assert texts(build(tmp_path / "out", tmp_path)) == ["one", "two"]


def test_errors_are_printable(folder: Path) -> None:
    with pytest.raises(InputError) as caught:
        build(folder / "out", folder / "missing")
    assert str(caught.value).startswith(f"{printable(folder)}/missing: no such file")
    assert str(DataError(f"{LATIN}: x\ny")) == "caf\\xe9: x\ny"


@given(st.binary(max_size=20).filter(lambda name: b"\0" not in name))
def test_every_name_becomes_text(name: bytes) -> None:
    text = printable(os.fsdecode(name))
    assert text.encode().decode() == text
    assert text.isprintable() or not any(ord(c) < 32 or 0x7F <= ord(c) < 0xA0 for c in text)
    plain = os.fsdecode(name)
    assert encodable_values({plain: [plain, 1, None]}) == {
        encodable(plain): [encodable(plain), 1, None]
    }
