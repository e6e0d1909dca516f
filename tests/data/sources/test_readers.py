"""Every format gives the same documents; what is broken is counted and named, or refused."""

import bz2
import gzip
import json
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.build.build import build_recipe, build_shard, merge_shards
from data.errors import DataError
from data.sources.discovery import find_input_files
from data.sources.work_units import UNIT_BYTES, plan_units
from tests.support.store_helpers import build, contents, dropped, recipe, texts

DOCUMENTS = [f"document {i}: " + "à la carte, \u4f60\u597d. " * (i % 7 + 1) for i in range(300)]

NOISE = [random.Random(i).randbytes(2000).hex() for i in range(300)]


STRINGS = {
    "string": pa.string(),
    "large_string": pa.large_string(),
    "string_view": pa.string_view(),
    "codes": pa.dictionary(pa.int32(), pa.string()),
}


def json_lines(documents: list[str], key: str = "text") -> bytes:
    return b"".join(json.dumps({"id": 1, key: text}).encode() + b"\n" for text in documents)


def write_text_folder(root: Path) -> Path:
    for index, text in enumerate(DOCUMENTS):
        path = root / f"{index // 100}" / f"{index:03d}.{'md' if index % 2 else 'txt'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def write_table(root: Path, form: str) -> Path:
    table = pa.table({"id": range(len(DOCUMENTS)), "text": DOCUMENTS})
    if form == "dictionary":
        table = table.set_column(1, "text", table["text"].dictionary_encode())
    if form == "large":
        table = table.set_column(1, "text", table["text"].cast(pa.large_string()))
    path = root / f"table.{form if form in ('parquet', 'feather') else 'arrow'}"
    if form == "parquet":
        pq.write_table(table, path, row_group_size=64)
    elif form == "stream":
        with pa.ipc.new_stream(path, table.schema) as writer:
            writer.write_table(table, max_chunksize=50)
    else:
        options = pa.ipc.IpcWriteOptions(compression="lz4" if form == "feather" else None)
        with pa.ipc.new_file(path, table.schema, options=options) as writer:
            writer.write_table(table, max_chunksize=50)
    return path


def write(root: Path, form: str) -> Path:
    lines = json_lines(DOCUMENTS)
    compressed = {
        "jsonl": ("a.jsonl", lines),
        "jsonl.gz": ("a.jsonl.gz", gzip.compress(lines[:999]) + gzip.compress(lines[999:])),
        "json.zst": ("a.json.zst", pa.compress(lines, codec="zstd", asbytes=True)),
        "jsonl.bz2": ("a.jsonl.bz2", bz2.compress(lines)),
        "separated": ("a.txt", "<|end|>".join(DOCUMENTS).encode()),
        "separated.gz": ("a.txt.gz", gzip.compress("<|end|>".join(DOCUMENTS).encode())),
    }
    if form == "folder":
        return write_text_folder(root)
    if form == "saved":
        return save_dataset(root)
    if form not in compressed:
        return write_table(root, form)
    name, content = compressed[form]
    (root / name).write_bytes(content)
    return root / name


def save_dataset(root: Path) -> Path:
    """What `datasets.DatasetDict.save_to_disk` writes."""
    train = root / "train"
    train.mkdir()
    table = pa.table({"text": DOCUMENTS})
    for number in range(2):
        with pa.ipc.new_stream(train / f"data-{number:05d}-of-00002.arrow", table.schema) as writer:
            writer.write_table(table.slice(number * 150, 150), max_chunksize=40)
    files = [{"filename": f"data-{number:05d}-of-00002.arrow"} for number in range(2)]
    (train / "state.json").write_text(json.dumps({"_data_files": files}))
    (train / "dataset_info.json").write_text("{}")
    (root / "dataset_dict.json").write_text(json.dumps({"splits": ["train"]}))
    return root


FORMS = ("folder", "jsonl", "jsonl.gz", "json.zst", "jsonl.bz2", "separated", "separated.gz")
FORMS += ("parquet", "feather", "arrow", "stream", "large", "dictionary", "saved")


@pytest.mark.parametrize("form", FORMS)
def test_every_format_gives_the_same_documents(tmp_path: Path, form: str) -> None:
    source = {"separator": "<|end|>"} if form.startswith("separated") else {}
    (tmp_path / "in").mkdir()
    store = build(tmp_path / "out", write(tmp_path / "in", form), source=source)
    assert texts(store) == DOCUMENTS
    assert store.manifest.dropped == {}


@pytest.mark.parametrize("form", ["jsonl", "jsonl.gz", "separated.gz", "parquet", "stream"])
def test_many_small_units_give_the_same_documents(
    tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (
        "data.sources.work_units.UNIT_BYTES",
        "data.sources.work_units.STREAM_BYTES",
        "data.sources.stream_splitter.READ_BYTES",
    ):
        monkeypatch.setattr(name, 1000)
    source = {"separator": "<|end|>"} if form.startswith("separated") else {}
    (tmp_path / "in").mkdir()
    path = write(tmp_path / "in", form)
    wanted = recipe(path, source=source)
    units = list(plan_units(wanted, find_input_files(wanted).files))
    assert len(units) > 3
    shares = [list(plan_units(wanted, find_input_files(wanted).files, (i, 3))) for i in (1, 2, 3)]
    assert sorted(u.name for units in shares for u in units) == [unit.name for unit in units]
    assert sum(unit.num_bytes for unit in units) <= path.stat().st_size
    assert texts(build(tmp_path / "out", path, source=source)) == DOCUMENTS


BLANK = b"\n \n\t\r\n" * 200


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "A.JSONL", "A.Json.GZ"])
def test_blank_lines_cost_nothing_and_positions_stay(name: str, tmp_path: Path) -> None:
    content = BLANK + b'{"text": "one"}\n' + BLANK + b'{"body": 2}\n' + BLANK + b'{"text": "three"}'
    is_compressed = name.lower().endswith("gz")
    (tmp_path / name).write_bytes(gzip.compress(content) if is_compressed else content)
    store = build(tmp_path / "out", tmp_path / name)
    assert texts(store) == ["one", "three"]
    assert dropped(store) == {f"{name}:{content.index(b'{' + bytes([34]) + b'body')}": "no_text"}
    assert store.manifest.counts["read"] == 3


def test_numbers_of_any_length_and_escapes_are_no_fault(tmp_path: Path) -> None:
    long = "\u4f60" * 300_000  # 1.8 MB escaped, 0.9 MB of text
    lines = [json.dumps({"text": long}), '{"n": ' + "5" * 5000 + ', "text": "number"}']
    lines.append('{"n": [-' + "5" * 5000 + '], "text": "' + "\\u000a" * 1000 + 'x"}')
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    store = build(tmp_path / "out", tmp_path / "a.jsonl", max_document_mib=1)
    assert texts(store) == [long, "number", "\n" * 1000 + "x"]


def test_suffixes_in_any_case(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    (source / "A.TXT").write_text("text")
    (source / "B.JsonL").write_bytes(json_lines(["line"]))
    pq.write_table(pa.table({"text": ["row"]}), source / "C.Parquet")
    assert texts(build(tmp_path / "out", source)) == ["text", "line", "row"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"id": 1, "body": "x"}', "no string 'text'; it has id, body: choose one with --text-col"),
        ('[\n{"text": "x"},\n]', "an array is not JSON lines"),
        (
            '[{"text": "x"}]',
            "a list, not an object; an array is not JSON lines: `jq -c",
        ),
        ('"x"', "position 0: bad_json: a str, not an object"),
    ],
)
def test_what_nothing_is_left_of_says_why(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(DataError, match="no document is left") as caught:
        build(tmp_path / "out", tmp_path / "a.json")
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_device_is_not_read_to_its_end(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("fine")
    store = build(tmp_path / "out", tmp_path / "a.txt", Path("/dev/zero"), max_document_mib=1)
    assert dropped(store) == {"zero:0": "too_large"}


def test_text_column_by_name(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(json_lines(["one", "two"], key="body"))
    assert texts(build(tmp_path / "out", tmp_path, source={"text_column": "body"})) == [
        "one",
        "two",
    ]


def test_a_folder_tells_what_it_left_aside(tmp_path: Path) -> None:
    source = tmp_path / "in"
    (source / ".git").mkdir(parents=True)
    for name in ("a.txt", ".hidden.txt", ".git/x.txt", "b.csv", "c.csv", "package.json", "LICENSE"):
        (source / name).write_text(f"text of {name}")
    (source / "loop").symlink_to(source)
    store = build(tmp_path / "out", source)
    assert texts(store) == ["text of a.txt"]
    ignored = {k: n for k, n in store.manifest.counts.items() if k.startswith("ignored")}
    assert ignored == {"ignored.csv": 2, "ignored.json": 1, "ignored.no suffix": 1}


def test_stores_and_builds_below_a_source_are_no_input(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    (source / "a.txt").write_text("one")
    wanted = recipe(source)
    first = build(source / "first", source)
    shards = [build_shard(wanted, source / "second", (n, 2), workers=1) for n in (1, 2)]
    merge_shards(shards, source / "second")
    assert contents(source / "second") == contents(source / "first")
    with pytest.raises(DataError, match="first: a token store, not documents"):
        build(tmp_path / "out", source / "first")

    def stop(progress: Any) -> None:
        if progress.stage == "write":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_recipe(wanted, source / "third", workers=1, progress=stop)
    assert build_recipe(wanted, source / "third", workers=1) == first.manifest


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfmarked")
    (tmp_path / "b.jsonl").write_bytes(b"\xef\xbb\xbf" + json_lines(["marked line"]))
    assert texts(build(tmp_path / "out", tmp_path)) == ["marked", "marked line"]


def broken_inputs(root: Path) -> dict[str, str]:
    """Write every kind of bad input; returns the reason for each `file:position`."""
    good = json_lines(["good line", "another"])
    files: dict[str, bytes] = {
        "utf8.txt": b"caf\xe9",
        "empty.txt": b"",
        "blank.txt": b" \n\t\n",
        "special.txt": b"<|endoftext|> <|endoftext|>\n",
        "large.txt": b"x" * (2 << 20),
        "utf8.jsonl": good + b'{"text": "caf\xe9"}\n',
        "syntax.jsonl": good + b'{"text": "cut\n',
        "deep.jsonl": b"[" * 100_000 + b"\n",
        "key.jsonl": b'{"body": "x"}\n{"text": 7}\n[1]\n\n',
        "line.jsonl": good + b'{"text": "' + b"y" * (3 << 20) + b'"}\n' + json_lines(["after"]),
        "surrogate.jsonl": b'{"text": "\\ud800"}\n',
        "cut.jsonl.gz": gzip.compress(json_lines(NOISE))[:-900],
        "noise.txt.gz": b"no gzip at all",
        "line.jsonl.gz": gzip.compress(b'{"text": "' + b"y" * (3 << 20) + b'"}\n' + good),
        "noise.parquet": b"PAR1 nothing",
        "noise.arrow": b"ARROW1 nothing",
    }
    for name, content in files.items():
        (root / name).write_bytes(content)
    (root / "gone.txt").symlink_to(root / "nowhere")
    table = pa.table({"text": ["row", None]})
    for name, kind in STRINGS.items():
        column = pa.array([f"before {name}", "z" * (2 << 20), None, f"after {name}"], kind)
        with pa.ipc.new_file(root / f"long_{name}.arrow", pa.schema({"text": kind})) as writer:
            writer.write_table(pa.table({"text": column}))
    invalid = pa.array([b"fine", b"\xff"], pa.binary()).view(pa.string())
    pq.write_table(pa.concat_tables([table, pa.table({"text": invalid})]), root / "rows.parquet")
    return {
        "utf8.txt:0": "bad_utf8",
        "empty.txt:0": "empty",
        "blank.txt:0": "empty",
        "special.txt:0": "only_special_tokens",
        "large.txt:0": "too_large",
        f"utf8.jsonl:{len(good)}": "bad_utf8",
        f"syntax.jsonl:{len(good)}": "bad_json",
        "deep.jsonl:0": "bad_json",
        "key.jsonl:0": "no_text",
        "key.jsonl:14": "no_text",
        "key.jsonl:26": "bad_json",
        f"line.jsonl:{len(good)}": "too_large",
        "surrogate.jsonl:0": "bad_utf8",
        "noise.txt.gz:0": "unreadable",
        "line.jsonl.gz:0": "too_large",
        "noise.parquet:0": "unreadable",
        "noise.arrow:0": "unreadable",
        "gone.txt:0": "unreadable",
        "rows.parquet:1": "no_text",
        "rows.parquet:3": "bad_utf8",
        **{f"long_{name}.arrow:1": "too_large" for name in STRINGS},
        **{f"long_{name}.arrow:2": "no_text" for name in STRINGS},
    }


def test_bad_input_is_counted_and_named(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    expected = broken_inputs(tmp_path / "in")
    store = build(tmp_path / "out", tmp_path / "in", max_document_mib=1)
    found = dropped(store)
    (cut,) = (key for key in found if key.startswith("cut.jsonl.gz"))
    assert found.pop(cut) == "truncated"
    repeats = {key.split(":")[0] for key, reason in found.items() if reason == "duplicate"}
    assert repeats == {"syntax.jsonl", "utf8.jsonl", "line.jsonl.gz"}
    assert {key: reason for key, reason in found.items() if reason != "duplicate"} == expected
    kept = texts(store)
    whole = [text for text in kept if text in NOISE]
    assert 250 < len(whole) < 300 and whole == NOISE[: len(whole)]
    around = {f"{place} {name}" for name in STRINGS for place in ("before", "after")}
    expected_texts = {"good line", "another", "after", "row", "fine"} | around
    assert set(kept) - set(whole) == expected_texts


def test_strict_refuses_each(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    broken_inputs(source)
    (source / "gone.txt").unlink()  # named itself, it is refused in any case
    for path in sorted(source.iterdir()):
        wanted = recipe(path, max_document_mib=1)
        with pytest.raises(DataError, match=rf"{path.name}, position \d+: ") as caught:
            build_recipe(wanted, tmp_path / "out", workers=1, strict=True)
        assert "\n" not in str(caught.value)
        assert [p.name for p in tmp_path.iterdir()] == ["in"]


def test_strict_refuses_what_an_unstrict_build_had_passed(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    (source / "a.txt").write_text("fine")
    (source / "b.txt").write_bytes(b"caf\xe9")
    wanted = recipe(source, tokenizer="bytes", clean={"min_characters": 100})
    stopped(tmp_path, wanted)
    with pytest.raises(DataError, match=r"b\.txt, position 0: bad_utf8"):
        build_recipe(wanted, tmp_path / "out", workers=1, strict=True)


def stopped(tmp_path: Path, wanted: Any) -> None:
    """Leave an unfinished build: every part made, no store."""

    def stop(progress: Any) -> None:
        if progress.stage == "find duplicates":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_recipe(wanted, tmp_path / "out", workers=1, progress=stop)
    assert (tmp_path / "out.building").is_dir() and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: root / "missing", "no such file or folder"),
        (lambda root: root, "no documents in it: give text, JSONL, Parquet or Arrow files"),
        (lambda root: table(root, {"body": ["x"]}), "no column 'text'; it has body: choose one"),
        (lambda root: table(root, {"text": [1]}), "column 'text' is int64, not text"),
        (lambda root: root / "corpus.bin", "use `moe data import`"),
        (lambda root: saved(root, '{"splits": ["a", "b"]}'), "a dataset with splits a, b"),
        (lambda root: saved(root, "{"), "not of a dataset saved by Hugging Face"),
    ],
)
def test_refusals_are_one_line(tmp_path: Path, make: Any, message: str) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(DataError, match=message) as caught:
        build_recipe(recipe(make(tmp_path / "in")), tmp_path / "out", workers=1)
    assert "\n" not in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["in"]


def table(root: Path, columns: dict[str, list[Any]]) -> Path:
    pq.write_table(pa.table(columns), root / "t.parquet")
    return root


def saved(root: Path, content: str) -> Path:
    (root / "dataset_dict.json").write_text(content)
    return root


def test_all_documents_dropped_is_refused_with_counts(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_bytes(json_lines(["a", "b"], key="body"))
    with pytest.raises(DataError, match=r"no document is left \(no_text: 2\)"):
        build(tmp_path / "out", tmp_path / "in.jsonl")


def test_lines_are_cut_at_any_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = json_lines([f"{i}" for i in range(40)])
    (tmp_path / "a.jsonl").write_bytes(content)
    for size in (1, 7, 23, 24, 25, len(content) - 1, len(content)):
        monkeypatch.setattr("data.sources.work_units.UNIT_BYTES", size)
        store = build(tmp_path / f"out{size}", tmp_path / "a.jsonl")
        assert texts(store) == [f"{i}" for i in range(40)]
    assert UNIT_BYTES == 1 << 24
