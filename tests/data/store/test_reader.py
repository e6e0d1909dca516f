import gc
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from data.errors import DataError
from data.store.manifest import HELD_OUT, TRAIN, Manifest
from data.store.reader import Store, TokenStream
from data.store.writer import StreamFormat, StreamWriter


def write_stream(root: Path, documents: list[Any], **sizes: int) -> tuple[Any, StreamFormat]:
    form = StreamFormat(dtype="uint16", tokenizer_sha256="t", **sizes)
    writer = StreamWriter(root, "s/train", form)
    for index, document in enumerate(documents):
        writer.append(np.asarray(document, dtype=np.uint16), index.to_bytes(16, "big"))
    return writer.close(), form


def open_stream(root: Path, byte_store: Path, documents: list[Any], **sizes: int) -> TokenStream:
    info, form = write_stream(root, documents, **sizes)
    manifest = Manifest.read(byte_store)
    tokenizer = manifest.tokenizer.model_copy(update={"sha256": form.tokenizer_sha256})
    manifest = manifest.model_copy(update={**sizes, "tokenizer": tokenizer})
    return TokenStream(root, "s", info, manifest)


def test_reads_equal_what_was_written(tmp_path: Path, byte_store: Path) -> None:
    chance = np.random.default_rng(0)
    documents = [chance.integers(0, 60_000, size=n) for n in (1, 63, 64, 65, 700, 2, 300)]
    stream = open_stream(tmp_path, byte_store, documents, batch_tokens=64, shard_tokens=192)
    whole = np.concatenate(documents)
    assert stream.num_tokens == whole.size
    assert stream.ends.tolist() == np.cumsum([d.size for d in documents]).tolist()
    for start in range(0, whole.size, 37):
        for length in (1, 64, 130, 400):
            expected = whole[start : start + length]
            if expected.size == length:
                assert np.array_equal(stream.read(start, length), expected)
            else:
                with pytest.raises(IndexError):
                    stream.read(start, length)


def test_plain_pyarrow_reads_a_shard_without_copying(byte_store: Path) -> None:
    gc.collect()  # what earlier tests left
    before = pa.total_allocated_bytes()
    shard = byte_store / Manifest.read(byte_store).streams(TRAIN)[0].shards[0].file
    tokens = pa.ipc.open_file(pa.memory_map(str(shard))).read_all()["tokens"]
    assert tokens.type == pa.uint16() and tokens.null_count == 0
    assert tokens.to_numpy()[:1] >= 0
    assert pa.total_allocated_bytes() == before


def test_reading_copies_nothing(byte_store: Path) -> None:
    gc.collect()  # what earlier tests left
    before = pa.total_allocated_bytes()
    stream = Store.open(byte_store).split(TRAIN).streams[0]
    view = stream.read(5, 100)
    assert not view.flags.owndata and not view.flags.writeable
    assert pa.total_allocated_bytes() == before


def test_text_comes_back_from_its_tokens(byte_store: Path, corpus: Path) -> None:
    store = Store.open(byte_store)
    texts = set()
    for name in (TRAIN, HELD_OUT):
        for stream in store.split(name).streams:
            starts = [0, *stream.ends[:-1]]
            for start, end in zip(starts, stream.ends, strict=True):
                ids = stream.read(int(start), int(end - start))
                assert ids[-1] == store.manifest.tokenizer.eos_id
                texts.add(store.tokenizer.decode(ids.tolist()))
    assert texts == {file.read_text() for file in corpus.iterdir()}


@pytest.fixture
def copy(byte_store: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(byte_store, tmp_path / "store"))


def damage(path: Path, offset: int) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)


def test_verify_names_the_shard_with_a_flipped_bit(copy: Path) -> None:
    shard = copy / Manifest.read(copy).streams(HELD_OUT)[0].shards[0].file
    assert Store.open(copy).verify() == []
    damage(shard, shard.stat().st_size // 2)
    faults = Store.open(copy).verify()
    assert len(faults) == 1
    assert faults[0].startswith(f"{shard}: damaged")


@pytest.mark.parametrize("victim", ["shard", "documents", "tokenizer.json", "manifest.json"])
def test_missing_files_are_named(copy: Path, victim: str) -> None:
    stream = Manifest.read(copy).streams(TRAIN)[0]
    names = {"shard": stream.shards[0].file, "documents": stream.document_table.file}
    (copy / names.get(victim, victim)).unlink()
    with pytest.raises(DataError, match=Path(names.get(victim, victim)).name):
        _ = Store.open(copy).tokenizer


def test_a_cut_shard_is_refused_on_opening(copy: Path) -> None:
    shard = copy / Manifest.read(copy).streams(TRAIN)[0].shards[0].file
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(DataError, match="train-00000"):
        Store.open(copy)


def test_another_tokenizer_is_refused(copy: Path) -> None:
    damage(copy / "tokenizer.json", 3)
    with pytest.raises(DataError, match=r"tokenizer\.json: is not the tokenizer"):
        _ = Store.open(copy).tokenizer
    values = json.loads((copy / "manifest.json").read_text())
    values["tokenizer"]["sha256"] = "0" * 64
    (copy / "manifest.json").write_text(json.dumps(values))
    with pytest.raises(DataError, match="tokenized with another tokenizer"):
        Store.open(copy).split(TRAIN).streams[0].read(0, 1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "damaged"),
        ("[]", "damaged"),
        ('{"format_version": 1}', "damaged"),
        ('{"format_version": 99}', "format_version 99"),
    ],
)
def test_a_damaged_manifest_is_one_line(copy: Path, content: str, message: str) -> None:
    (copy / "manifest.json").write_text(content)
    with pytest.raises(DataError, match=message) as caught:
        Store.open(copy)
    assert "\n" not in str(caught.value)
