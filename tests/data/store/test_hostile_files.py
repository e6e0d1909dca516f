"""Manifests, indexes and recipes of others: refused in one line, and no other file is opened."""

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.build.build import build_recipe, build_shard, merge_shards
from data.errors import DataError, InputError
from data.loading.packing import pack_store
from data.recipe import make_recipe, read_recipe
from data.sources.discovery import find_input_files
from data.store.manifest import Manifest
from data.store.megatron_indexed import IndexedDataset, export_indexed
from data.store.reader import Store
from tests.support.loader_helpers import make
from tests.support.store_helpers import build, recipe


@pytest.fixture
def store(tmp_path: Path) -> Path:
    (tmp_path / "a.txt").write_text("some text")
    return build(tmp_path / "store", tmp_path / "a.txt").path


def one_line(work: Callable[..., Any], *arguments: Any) -> str:
    with pytest.raises(InputError) as caught:
        work(*arguments)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1000
    return str(caught.value)


def changed(path: Path, change: Callable[[Any], Any]) -> None:
    values = json.loads(path.read_text())
    path.write_text(json.dumps(change(values) or values))


def stream(values: Any) -> Any:
    return values["sources"][0]["splits"]["train"]


@pytest.mark.parametrize(
    "change",
    [
        lambda v: [v],
        lambda v: stream(v)["shards"][0].update(file="../a.txt"),
        lambda v: stream(v)["shards"][0].update(file="/etc/passwd"),
        lambda v: stream(v)["shards"][0].update(file=""),
        lambda v: stream(v)["document_table"].update(file="text/../../a.txt"),
        lambda v: v["dropped_table"].update(file="a\0b"),
        lambda v: v["sources"][0].update(name="../x"),
        lambda v: v["sources"][0].update(name="a/b"),
        lambda v: v["sources"].append(v["sources"][0]),
        lambda v: stream(v).update(tokens=10**30),
        lambda v: stream(v).update(tokens=stream(v)["tokens"] + 1),
        lambda v: stream(v).update(documents=7),
        lambda v: v.update(batch_tokens=0),
        lambda v: v.update(shard_tokens=v["batch_tokens"] + 1),
        lambda v: v.update(dtype="float64"),
        lambda v: v.update(more=1),
        lambda v: v.pop("tokenizer") and None,
    ],
)
def test_a_manifest_of_wrong_values(change: Callable[[Any], Any], store: Path) -> None:
    changed(store / "manifest.json", change)
    assert f"{store}/manifest.json: damaged (" in one_line(Store.open, store)


@pytest.mark.parametrize(
    "content", [b"[" * 100_000, b'{"format_version": ' + b"1" * 5000 + b"}", b"\xff", b"null", b""]
)
def test_a_manifest_that_is_none(content: bytes, store: Path) -> None:
    (store / "manifest.json").write_bytes(content)
    assert "manifest.json" in one_line(Manifest.read, store)


def test_a_manifest_nested_in_its_settings(store: Path) -> None:
    changed(store / "manifest.json", lambda v: v.update(settings=json.loads("[" * 90 + "]" * 90)))
    assert "damaged (nested deeper than 64 levels)" in one_line(Manifest.read, store)


@pytest.mark.parametrize("name", ["manifest.json", "text/train-00000.arrow", "tokenizer.json"])
@pytest.mark.parametrize("kind", ["fifo", "link", "device"])
def test_only_regular_files_inside_are_opened(
    kind: str, name: str, store: Path, tmp_path: Path
) -> None:
    path = store / name
    path.rename(tmp_path / "outside")
    if kind == "fifo":
        os.mkfifo(path)
    else:
        path.symlink_to(tmp_path / "outside" if kind == "link" else "/dev/zero")
    if kind == "link" and name == "manifest.json":
        Store.open(store)  # it is named by whoever names the store
    else:
        assert name in one_line(lambda: Store.open(store).tokenizer)


def test_a_link_inside_and_one_of_the_folder(store: Path, tmp_path: Path) -> None:
    (store / "text").rename(store / "elsewhere")
    (store / "text").symlink_to("elsewhere")
    (tmp_path / "link").symlink_to(store)
    assert Store.open(tmp_path / "link").verify() == []
    (store / "text").unlink()
    (store / "elsewhere").rename(tmp_path / "outside")
    (store / "text").symlink_to(tmp_path / "outside")
    assert "a link that leaves" in one_line(Store.open, store)


def test_a_packing_index_elsewhere(store: Path) -> None:
    pack_store(Store.open(store), 4)
    path = store / "packing/text-train-4.json"
    changed(path, lambda v: v["index"].update(file="../a.txt"))
    options = {"packing": "best_fit", "seq_len": 4, "global_batch_size": 1}
    assert "damaged" in one_line(lambda: make(store, **options))


def test_a_shard_of_other_content_than_its_manifest(store: Path) -> None:
    """Of the right size: a document table that is no list of its tokens' ends."""
    table = store / "text/train-documents.arrow"
    content = table.read_bytes()
    opened = Store.open(store).split("train").streams[0]
    table.write_bytes(content.replace(struct.pack("<q", opened.num_tokens), struct.pack("<q", 99)))
    opened = Store.open(store).split("train").streams[0]
    assert "not the ends of its tokens" in one_line(lambda: opened.ends)


@pytest.mark.parametrize(
    "change",
    [
        lambda v: [v],
        lambda v: v.update(shard=[1]),
        lambda v: v.update(notes=[]),
        lambda v: v.update(recipe={"source": "x"}),
        lambda v: v.update(format_version=1),
        lambda v: v.pop("notes") and None,
    ],
)
def test_a_build_shard_of_wrong_values(change: Callable[[Any], Any], tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x")
    shard = build_shard(recipe(tmp_path / "a.txt"), tmp_path / "s", (1, 1), workers=1)
    changed(shard / "work.json", change)
    assert str(shard) in one_line(merge_shards, [shard], tmp_path / "out")


@pytest.mark.parametrize(
    ("suffix", "content"),
    [
        *((".json", content) for content in (b"[]", b"[" * 9999, b"{}")),
        *((".arrow", content) for content in (b"ARROW1", None)),
    ],
)
def test_a_build_shard_of_damaged_parts(suffix: str, content: bytes | None, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x")
    shard = build_shard(recipe(tmp_path / "a.txt"), tmp_path / "s", (1, 1), workers=1)
    (part,) = (shard / "parts").glob(f"*{suffix}")
    part.unlink()
    if content is None:
        os.mkfifo(part)
    else:
        part.write_bytes(content)
    assert part.name in one_line(merge_shards, [shard], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_saved_dataset_that_names_others_files(tmp_path: Path) -> None:
    saved = tmp_path / "saved"
    saved.mkdir()
    (tmp_path / "secret.arrow").write_bytes(b"x")
    for names in (["../secret.arrow"], ["/etc/passwd"], [7], ["a.fifo"], [{"filename": None}]):
        (saved / "state.json").write_text(json.dumps({"_data_files": names}))
        if names == ["a.fifo"]:
            os.mkfifo(saved / "a.fifo")
        one_line(find_input_files, recipe(saved))
    (saved / "state.json").write_text("[" * 5000)
    assert "not of a dataset saved" in one_line(find_input_files, recipe(saved))


@pytest.mark.parametrize(
    "change",
    [
        lambda lengths, offsets, boundaries: lengths.__setitem__(0, -1),
        lambda lengths, offsets, boundaries: offsets.__setitem__(0, -2),
        lambda lengths, offsets, boundaries: offsets.__setitem__(0, 2**62),
        lambda lengths, offsets, boundaries: boundaries.__setitem__(0, 1),
        lambda lengths, offsets, boundaries: boundaries.__setitem__(1, -1),
        lambda lengths, offsets, boundaries: boundaries.__setitem__(1, 2**40),
    ],
)
def test_a_megatron_index_of_wrong_numbers(
    change: Callable[..., None], store: Path, tmp_path: Path
) -> None:
    export_indexed(Store.open(store), "train", tmp_path / "pair")
    content = bytearray((tmp_path / "pair.idx").read_bytes())
    change(
        np.frombuffer(content, "<i4", 1, 34),
        np.frombuffer(content, "<i8", 1, 38),
        np.frombuffer(content, "<i8", 2, 46),
    )
    (tmp_path / "pair.idx").write_bytes(content)
    one_line(IndexedDataset.open, tmp_path / "pair")


@pytest.mark.parametrize(
    "content",
    [
        "x = " + "[" * 20_000,
        "held_out_fraction = " + "1" * 5000,
        "held_out_fraction = 1" + "0" * 400,
        f"tokenizer = '{'x' * 5000}'\neos_token = 1",
        "[[source]]\npaths = ['/dev/zero']",
        "[[source]]\npaths = ['fifo']",
        "[[source]]\npaths = ['a']\n[clean]\nlanguages = ['german']",
        "[[source]]\npaths = ['a']\n[clean]\nlanguages = ['EN']",
    ],
)
def test_a_recipe_that_is_refused(content: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "r.toml").write_text(content)
    one_line(read_recipe, tmp_path / "r.toml")
    assert "not a regular file" in one_line(read_recipe, tmp_path / "fifo")


@pytest.mark.parametrize("value", ["[" * 20_000, "1" * 5000])
def test_an_override_that_is_refused(value: str) -> None:
    one_line(make_recipe, {"source": []}, "--set", [f"held_out_fraction={value}"])


def test_languages_are_checked_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    wanted = recipe(tmp_path / "a.txt", clean={"languages": ["en", "xq"]})
    with pytest.raises(DataError, match="clean.languages: py3langid knows no 'xq': it knows a"):
        build_recipe(wanted, tmp_path / "out", workers=1)
    assert not (tmp_path / "out.building").exists()
