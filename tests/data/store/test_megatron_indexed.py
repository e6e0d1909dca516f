"""Megatron's .bin and .idx: what its own reader sees, in and out without losing a token."""

import json
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from data.errors import DataError
from data.store.megatron_indexed import (
    HEADER,
    MAGIC,
    IndexedDataset,
    export_indexed,
    import_indexed,
)
from data.store.reader import Store
from data.tokenization.tokenizer import byte_tokenizer, train_bpe
from tests.support.store_helpers import build, contents

EOS = 256


def write_pair(prefix: Path, documents: list[list[int]], dtype: str = "<u2", code: int = 8) -> None:
    """Write a pair by the layout in megatron-core's `indexed_dataset.py`."""
    lengths = np.array([len(document) for document in documents], dtype="<i4")
    item = np.dtype(dtype).itemsize
    offsets = ((np.cumsum(lengths) - lengths) * item).astype("<i8")
    flat = np.array([token for document in documents for token in document], dtype=dtype)
    prefix.with_name(prefix.name + ".bin").write_bytes(flat.tobytes())
    borders = np.arange(len(documents) + 1, dtype="<i8")
    head = HEADER.pack(MAGIC, 1, code, lengths.size, borders.size)
    index = head + lengths.tobytes() + offsets.tobytes() + borders.tobytes()
    prefix.with_name(prefix.name + ".idx").write_bytes(index)


def documents_of(store: Store) -> list[list[int]]:
    found = []
    for name in ("train", "held_out"):
        for stream in store.split(name).streams:  # type: ignore[arg-type]
            ends = stream.ends.tolist()
            found += [
                stream.read(a, b - a).tolist() for a, b in zip([0, *ends], ends, strict=False)
            ]
    return found


@pytest.mark.parametrize(("dtype", "code"), [("<u2", 8), ("<i4", 4), ("<i8", 5)])
def test_import_keeps_tokens_and_adds_missing_ends(tmp_path: Path, dtype: str, code: int) -> None:
    write_pair(tmp_path / "p", [[1, 2, EOS], [3], [], [EOS, EOS], [4, EOS, 5]], dtype, code)
    manifest = import_indexed(tmp_path / "p", tmp_path / "out", byte_tokenizer())
    store = Store.open(tmp_path / "out")
    assert documents_of(store) == [[1, 2, EOS], [3, EOS], [4, EOS, 5, EOS]]
    assert manifest.dropped == {"empty": 1, "only_special_tokens": 1}
    assert manifest.counts == {"read": 5, "changed.end_added": 2}
    assert store.verify() == []
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["out"]


def test_export_and_import_again_is_the_same_store(tmp_path: Path) -> None:
    lines = [json.dumps({"text": f"document {n} " * (n % 5 + 1)}) for n in range(50)]
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    first = build(tmp_path / "first", tmp_path / "in.jsonl")
    written = export_indexed(first, "train", tmp_path / "deep" / "pair")
    assert written == {"documents": 50, "tokens": first.manifest.tokens}
    prefix = tmp_path / "deep" / "pair.idx"  # either file's name will do
    import_indexed(prefix, tmp_path / "second", byte_tokenizer())
    second = Store.open(tmp_path / "second")
    assert documents_of(second) == documents_of(first)
    shards = [contents(tmp_path / name) for name in ("first", "second")]
    assert shards[0]["text/train-00000.arrow"] == shards[1]["megatron/train-00000.arrow"]


MEGATRON = """
import json, sys, warnings
warnings.simplefilter("ignore")
import numpy, torch
from megatron.core.datasets.indexed_dataset import IndexedDataset, IndexedDatasetBuilder

ours = IndexedDataset(sys.argv[1])
read = [ours[n].tolist() for n in range(len(ours))]
builder = IndexedDatasetBuilder(sys.argv[2] + ".bin", dtype=numpy.int32)
for document in ([[1, 2], [3, 256]], [[4, 256]]):  # two sequences in one document
    for sequence in document:
        builder.add_item(torch.tensor(sequence))
    builder.end_document()
builder.finalize(sys.argv[2] + ".idx")
print(json.dumps([read, ours.document_indices.tolist()]))
"""


def test_megatron_reads_what_is_exported_and_we_read_what_it_writes(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"text": "one"}\n{"text": "and two"}\n')
    store = build(tmp_path / "store", tmp_path / "in.jsonl")
    export_indexed(store, "train", tmp_path / "ours")
    command = [sys.executable, "-c", MEGATRON, str(tmp_path / "ours"), str(tmp_path / "theirs")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [documents_of(store), [0, 1, 2]]
    import_indexed(tmp_path / "theirs", tmp_path / "out", byte_tokenizer())
    assert documents_of(Store.open(tmp_path / "out")) == [[1, 2, 3, EOS], [4, EOS]]


def test_wide_vocabularies_are_int32(tmp_path: Path) -> None:
    write_pair(tmp_path / "p", [[70_000, 1]], "<i4", 4)
    tokenizer = train_bpe(["a few words to train on"], 300)
    wide = tokenizer.info.model_copy(update={"vocab_size": 100_000})
    tokenizer.info = wide
    manifest = import_indexed(tmp_path / "p", tmp_path / "out", tokenizer)
    assert manifest.dtype == "uint32"
    store = Store(tmp_path / "out", manifest)
    export_indexed(store, "train", tmp_path / "q")
    assert IndexedDataset.open(tmp_path / "q").tokens.tolist() == [70_000, 1, wide.eos_id]


def test_held_out_documents_are_told_by_their_tokens(tmp_path: Path) -> None:
    write_pair(tmp_path / "p", [[n % 256, n // 256, EOS] for n in range(400)])
    manifest = import_indexed(tmp_path / "p", tmp_path / "out", byte_tokenizer(), 0.25)
    assert 60 < manifest.streams("held_out")[0].documents < 140


def test_bad_pairs_are_refused_and_leave_nothing(tmp_path: Path) -> None:
    write_pair(tmp_path / "good", [[1, 2, EOS], [300, EOS]])
    index = (tmp_path / "good.idx").read_bytes()
    tokens = (tmp_path / "good.bin").read_bytes()
    cases = {
        "missing.idx: missing: name the prefix": None,
        "not a Megatron index": (b"x" * 60, tokens),
        "version 2, dtype code 8": (MAGIC + b"\2" + index[10:], tokens),
        "dtype code 6: not one with integer tokens": (index[:17] + b"\6" + index[18:], tokens),
        r"\.idx: cut short: copy it again": (index[:-1], tokens),
        r"\.bin: cut short: copy it again": (index, tokens[:-1]),
        "shorter than .* says: copy it again": (index, tokens[:-2]),
        "document 1 holds ids 256 to 300, the tokenizer has 257": (index, tokens),
        "no document is left": (HEADER.pack(MAGIC, 1, 8, 0, 1) + bytes(8), b""),
    }
    for message, pair in cases.items():
        prefix = tmp_path / ("missing" if pair is None else "p")
        if pair is not None:
            (tmp_path / "p.idx").write_bytes(pair[0])
            (tmp_path / "p.bin").write_bytes(pair[1])
        with pytest.raises(DataError, match=message) as caught:
            import_indexed(prefix, tmp_path / "out", byte_tokenizer())
        assert "\n" not in str(caught.value)
        assert not list(tmp_path.glob("out*"))


def test_nothing_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("text")
    store = build(tmp_path / "store", tmp_path / "in.txt")
    export_indexed(store, "train", tmp_path / "pair")
    with pytest.raises(DataError, match=r"pair\.idx: exists already"):
        export_indexed(store, "train", tmp_path / "pair")
    with pytest.raises(DataError, match="split held_out holds no documents"):
        export_indexed(store, "held_out", tmp_path / "other")
    with pytest.raises(DataError, match="store: exists already"):
        import_indexed(tmp_path / "pair", tmp_path / "store", byte_tokenizer())


def test_a_pair_takes_its_names_only_when_both_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in.txt").write_text("text")
    store = build(tmp_path / "store", tmp_path / "in.txt")
    monkeypatch.setattr(
        "data.store.megatron_indexed.MAGIC", "no bytes: the index cannot be written"
    )
    with pytest.raises(struct.error):
        export_indexed(store, "train", tmp_path / "pair")
    assert not list(tmp_path.glob("*pair*"))
