"""`moe data` as people use it: commands, JSON, exit codes, one line for a mistake."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import typer
from typer.testing import CliRunner

import moescale
from data.cli.commands import app
from data.errors import DataError, DiskError, InputError, StoppedError
from tests.support.chat_helpers import ask, write_rows
from tests.support.store_helpers import contents

HERE = Path(moescale.__file__).parent


def moe_data(*arguments: Any, code: int = 0) -> str:
    """Run a command in this process; returns its standard output."""
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == code, done.output
    return done.stdout


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    lines = [{"body": f"document {n}, jane{n}@example.com"} for n in range(20)]
    (folder / "a.jsonl").write_text("\n".join(map(json.dumps, [*lines, lines[0]])))
    (folder / "b.txt").write_bytes(b"caf\xe9")
    return folder


def build(source: Path, out: Path, *options: Any) -> dict[str, Any]:
    values = ("--tokenizer", "bytes", "--text-column", "body", "--held-out", "0", "--json")
    found: dict[str, Any] = json.loads(moe_data("build", source, "-o", out, *values, *options))
    return found


def test_build_inspect_dropped_verify(source: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    built = build(source, store, "--set", "clean.personal_data=mask", "--set", "clean.unicode=nfc")
    assert built["dropped"] == {"bad_utf8": 1, "duplicate": 1}
    assert json.loads(moe_data("inspect", store, "--json")) == built
    text = moe_data("inspect", store)
    assert "dropped    duplicate: 1" in text and "cleaning   found.email: 21" in text
    assert "Characters a document" in text
    (source.with_name("x.txt")).write_text("x")
    brief = moe_data(
        "build", source.with_name("x.txt"), "-o", tmp_path / "b", "--tokenizer", "bytes"
    )
    assert "Characters a document" not in brief
    rows = json.loads(moe_data("dropped", store, "--reason", "bad_utf8", "--json"))
    assert [(Path(r["file"]).name, r["position"], r["reason"]) for r in rows] == [
        ("b.txt", 0, "bad_utf8")
    ]
    assert len(moe_data("dropped", store, "--limit", 1).splitlines()) == 1
    assert f"duplicate\tof {source}/a.jsonl:0" in moe_data("dropped", store)
    assert json.loads(moe_data("verify", store, "--json")) == {"files": 6, "faults": []}


@pytest.mark.parametrize(
    "victim",
    ["text/train-00000.arrow", "text/train-documents.arrow", "dropped.arrow", "tokenizer.json"]
    + ["manifest.json"],
)
def test_verify_names_the_file_with_a_flipped_bit(
    source: Path, tmp_path: Path, victim: str
) -> None:
    build(source, tmp_path / "store")
    path = tmp_path / "store" / victim
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=victim.replace(".", r"\.")):
        moe_data("verify", tmp_path / "store")


def test_shards_and_merge(source: Path, tmp_path: Path) -> None:
    build(source, tmp_path / "one")
    for number in (1, 2):
        built = build(source, tmp_path / "s", "--shard", f"{number}/2")
        assert built == {"shard": str(tmp_path / f"s.shard-{number}-of-2")}
    shards = sorted(tmp_path.glob("s.shard-*"))
    moe_data("merge", *shards, "-o", tmp_path / "s")
    assert contents(tmp_path / "s") == contents(tmp_path / "one")


def test_a_recipe_file_and_overrides(source: Path, tmp_path: Path) -> None:
    recipe = source.with_name("recipe.toml")
    recipe.write_text('tokenizer = "bytes"\n[[source]]\npaths = ["in"]\ntext_column = "body"\n')
    out = tmp_path / "store"
    text = moe_data(
        "build", "--recipe", recipe, "-o", out, "--held-out", 0.5, "--set", "canaries.count=1"
    )
    assert "canaries   3, planted 11 times" in text
    settings = json.loads(moe_data("inspect", out, "--json"))["settings"]
    assert settings["held_out_fraction"] == 0.5 and settings["tokenizer"] == "bytes"


def test_import_and_export(source: Path, tmp_path: Path) -> None:
    build(source, tmp_path / "store")
    written = json.loads(moe_data("export", tmp_path / "store", tmp_path / "pair", "--json"))
    assert written["documents"] == 20
    imported = json.loads(
        moe_data(
            "import", tmp_path / "pair", "-o", tmp_path / "back", "--tokenizer", "bytes", "--json"
        )
    )
    assert imported["tokens"] == written["tokens"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["build", "-o", "OUT"], r"name SRC\.\.\. or --recipe FILE: one of them"),
        (["build", "IN", "--recipe", "r.toml", "-o", "OUT"], "one of them"),
        (["build", "IN", "-o", "IN"], "exists already: remove it or choose another name"),
        (["build", "IN", "-o", "."], "exists already: remove it or choose another name"),
        (["build", "IN", "-o", "OUT", "--shard", "1"], "write I/N, for example 1/4"),
        (["build", "IN", "-o", "OUT", "--set", "clean"], "write KEY=VALUE"),
        (["build", "IN", "-o", "OUT", "--set", "clean.x=1"], r"unknown key clean\.x"),
        (["build", "IN", "-o", "OUT", "--strict"], r"b\.txt, position 0: bad_utf8"),
        (["build", "--recipe", "no.toml", "-o", "OUT"], r"no\.toml: No such file"),
        (["merge", "IN", "-o", "OUT"], "not a folder made by"),
        (["inspect", "IN"], r"no manifest\.json"),
    ],
)
def test_mistakes_are_one_line(
    source: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    (source / "a.jsonl").write_text('{"text": "x"}\n')
    places = {"IN": source, "OUT": tmp_path / "out"}
    with pytest.raises(InputError, match=message) as caught:
        moe_data(*(places.get(argument, argument) for argument in arguments))
    assert "\n" not in str(caught.value) and caught.value.exit_code == 2
    assert not list(tmp_path.glob("out*"))


def test_progress_goes_to_stderr_and_a_signal_ends_with_75(tmp_path: Path) -> None:
    """The real command, stopped while it works, says so in one line and continues."""
    fifo = tmp_path / "in.txt"
    os.mkfifo(fifo)  # reading it waits: the build stands still until it is stopped
    command = [sys.executable, "-m", "moescale", "data", "build", str(fifo), "-o"]
    command += [str(tmp_path / "out"), "--tokenizer", "bytes", "--json"]
    environment = {**os.environ, "PYTHONPATH": str(HERE)}
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while process.poll() is None and not list(tmp_path.glob("out.building/parts/*")):
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    out, error = process.communicate(timeout=600)
    assert (process.returncode, out) == (75, "")
    assert error.splitlines()[0] == "find files and make the tokenizer ..."
    assert error.splitlines()[-1] == f"moe: {tmp_path / 'out'}: stopped: the same command continues"
    assert (tmp_path / "out.building").is_dir() and not (tmp_path / "out").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_training_of_a_tokenizer(number: signal.Signals, tmp_path: Path) -> None:
    text, fifo, out = tmp_path / "text.txt", tmp_path / "z.txt", tmp_path / "out"
    text.write_text("too much to be trained on in the command's own process " * (1 << 15))
    os.mkfifo(fifo)
    command = [sys.executable, "-m", "moescale", "data", "build", str(text), str(fifo), "-o"]
    process = subprocess.Popen(
        [*command, str(out), "--tokenizer", "bpe:300"],
        cwd=HERE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    writer = os.open(fifo, os.O_WRONLY)  # waits until the training reads
    if number == signal.SIGINT:
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    _, error = process.communicate(timeout=600)
    assert process.returncode == 75
    assert error.splitlines()[-1] == f"moe: {out}: stopped: the same command continues"
    with pytest.raises(BrokenPipeError):
        os.write(writer, b"nobody reads any more")
    os.close(writer)
    assert not out.exists()
    found = moe_data("build", text, "-o", out, "--tokenizer", "bpe:300", "--json")
    assert json.loads(found)["documents"] == 1


def test_a_full_disk_is_one_line(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device", "part.arrow")

    monkeypatch.setattr("data.build.unit_output.UnitProcessor.process", full)
    with pytest.raises(RuntimeError, match=r"part\.arrow: No space left on device") as caught:
        build(source, tmp_path / "out")
    assert getattr(caught.value, "exit_code", None) == 1


def refuse(*_: Any, **__: Any) -> None:
    raise OSError(30, "Read-only file system", "place")


@pytest.mark.parametrize(
    ("place", "arguments"),
    [
        ("data.chat.build.new_directory", ["chat", "CHAT", "-o", "OUT", "--tokenizer", "bytes"]),
        ("data.loading.packing.atomic_file", ["pack", "STORE", "--seq-len", "8"]),
        ("data.inspection.html.write_text", ["inspect", "STORE", "--html", "OUT"]),
    ],
)
def test_a_place_that_cannot_be_written_is_one_line(
    place: str, arguments: list[str], source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(source, tmp_path / "store")
    places = {"CHAT": source / "a.jsonl", "OUT": tmp_path / "out", "STORE": tmp_path / "store"}
    monkeypatch.setattr(place, refuse)
    with pytest.raises(DiskError, match="place: Read-only file system"):
        moe_data(*(places.get(argument, argument) for argument in arguments))


def test_files_of_a_store_that_cannot_be_read_are_named(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "store"
    build(source, store)
    with monkeypatch.context() as patch:
        patch.setattr("data.store.reader.file_sha256", refuse)
        with pytest.raises(DataError, match=r"train-00000\.arrow: Read-only") as caught:
            moe_data("verify", store)
    assert "tokenizer.json: Read-only" in str(caught.value)
    monkeypatch.setattr("data.described_files.read_regular", refuse)
    with pytest.raises(DataError, match=r"manifest\.json: Read-only .*: make it readable"):
        moe_data("inspect", store)


def test_what_takes_a_tokenizer_takes_its_end() -> None:
    """The remedy that a tokenizer without a usual end names."""
    group: Any = typer.main.get_command(app)
    options = {name: {p.name for p in command.params} for name, command in group.commands.items()}
    taking = {name for name, names in options.items() if "tokenizer" in names}
    assert taking == {"build", "import", "chat"}
    assert all("eos" in options[name] for name in taking)


def test_chats_end_with_the_named_token(tmp_path: Path) -> None:
    words = {"[UNK]": 0, "q": 1, "a": 2, "END": 3}
    model = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]"))
    model.save(str(tmp_path / "words.json"))
    chats = write_rows(tmp_path / "chats.jsonl", [ask("q", "a")])
    values = ("--tokenizer", tmp_path / "words.json", "--held-out", 0, "--json")
    with pytest.raises(DataError, match="with --eos"):
        moe_data("chat", chats, "-o", tmp_path / "out", *values)
    built = json.loads(moe_data("chat", chats, "-o", tmp_path / "out", *values, "--eos", "END"))
    assert built["tokenizer"]["eos_id"] == 3
    again = ("--tokenizer", tmp_path / "out", "--held-out", 0, "--json", "--eos", "q")
    built = json.loads(moe_data("chat", chats, "-o", tmp_path / "again", *again))
    assert built["tokenizer"]["eos_token"] == "q"


@pytest.mark.parametrize("command", ["merge", "import", "export", "chat"])
def test_a_stopped_command_that_does_not_continue_says_so(
    command: str, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    build(source, tmp_path / "store")
    for name in (
        "build.build.merge_shards",
        "store.megatron_indexed.import_indexed",
        "store.megatron_indexed.export_indexed",
    ):
        monkeypatch.setattr(f"data.{name}", stopped)
    monkeypatch.setattr("data.chat.build.build_chat_store", stopped)
    out = ["-o", tmp_path / "out"] if command != "export" else [tmp_path / "out"]
    tokenizer = ["--tokenizer", "bytes"] if command in {"import", "chat"} else []
    with pytest.raises(StoppedError, match="out: stopped: start it again"):
        moe_data(command, tmp_path / "store", *out, *tokenizer)
