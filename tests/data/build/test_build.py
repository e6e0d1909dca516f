"""Builds: shards, restarts, workers give the same bytes; nothing half-made has a store's name."""

import json
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.build.build import build_recipe, build_shard, merge_shards
from data.build.build_folder import BuildFolder
from data.errors import DataError, WorkerError
from data.recipe import DataRecipe, make_recipe, read_recipe
from data.store.reader import Store
from tests.support.store_helpers import build, contents, recipe, texts

WORDS = ["the", "of", "and", "a", "to", "in", "is", "you", "that", "it", "he", "was", "for",
         "on", "are", "as", "with", "his", "they", "at", "be", "this"]  # fmt: skip


def write_corpus(root: Path, num_files: int = 6, num_documents: int = 40, seed: int = 0) -> Path:
    """JSON lines and text files with exact and near duplicates, personal data and a broken line."""
    chance = random.Random(seed)
    root.mkdir(parents=True, exist_ok=True)
    earlier: list[str] = ["first"]
    for number in range(num_files):
        lines = []
        for _ in range(num_documents):
            words = chance.choices(WORDS, k=chance.randint(30, 90))
            text = " ".join(words) + f" u{chance.random()} jane{chance.randint(0, 99)}@example.com"
            if chance.random() < 0.1:
                text = chance.choice(earlier)
            elif chance.random() < 0.1:
                text = chance.choice(earlier) + " more"
            earlier.append(text)
            lines.append(json.dumps({"text": text}))
        lines.insert(number, "{broken")
        (root / f"{number:02d}.jsonl").write_text("\n".join(lines) + "\n")
        (root / f"{number:02d}.txt").write_text(" ".join(chance.choices(WORDS, k=200)))
    return root


def full_recipe(source: Path, **values: Any) -> DataRecipe:
    """Everything on, so that every step must agree between processes."""
    keys: dict[str, Any] = {
        "tokenizer": "bpe:300",
        "held_out_fraction": 0.1,
        "clean": {
            "unicode": "nfc",
            "near_duplicates": 0.7,
            "personal_data": "mask",
            "tag_language": True,
        },
        "canaries": {"count": 2, "repeats": (0, 1, 3)},
    }
    return recipe(source, **{**keys, **values})


@pytest.fixture
def small_units(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut the small corpora of these tests into many units."""
    monkeypatch.setattr("data.sources.work_units.UNIT_BYTES", 3000)


@pytest.mark.usefixtures("small_units")
def test_shards_merged_equal_one_process(tmp_path: Path) -> None:
    wanted = full_recipe(write_corpus(tmp_path / "in"))
    build_recipe(wanted, tmp_path / "one", workers=1)
    expected = contents(tmp_path / "one")
    for count in (1, 3):
        shards = [
            build_shard(wanted, tmp_path / f"of{count}", (index, count), workers=1)
            for index in range(count, 0, -1)
        ]
        manifest = merge_shards(shards, tmp_path / f"merged{count}")
        assert contents(tmp_path / f"merged{count}") == expected
        assert manifest.dropped["near_duplicate"] > 0 and manifest.dropped["bad_json"] == 6
    assert not list(tmp_path.glob(".*"))


@pytest.mark.usefixtures("small_units")
def test_merge_refuses_what_is_not_one_build(tmp_path: Path) -> None:
    wanted = full_recipe(write_corpus(tmp_path / "in"), tokenizer="bytes")
    shards = [build_shard(wanted, tmp_path / "s", (index, 2), workers=1) for index in (1, 2)]
    other = build_shard(
        full_recipe(tmp_path / "in", tokenizer="bytes", held_out_fraction=0.3),
        tmp_path / "other",
        (2, 2),
        workers=1,
    )
    for given, message in (
        (shards[:1], r"shards \[1\] of 2: each is needed, once"),
        ([shards[0], shards[0]], r"shards \[1, 1\] of 2"),
        ([shards[0], other], "from another recipe or other files"),
        ([tmp_path / "in"], "not a folder made by `moe data build --shard`"),
    ):
        with pytest.raises(DataError, match=message):
            merge_shards(given, tmp_path / "merged")
    next((shards[1] / "parts").glob("*.json")).unlink()
    with pytest.raises(DataError, match="parts of"):
        merge_shards(shards, tmp_path / "merged")
    state = json.loads((shards[0] / "work.json").read_text())
    (shards[0] / "work.json").write_text(json.dumps({**state, "num_units": None}))
    with pytest.raises(DataError, match="unfinished: run its"):
        merge_shards(shards, tmp_path / "merged")
    assert not list(tmp_path.glob("*merged*"))


@pytest.mark.parametrize("shard", [(0, 2), (3, 2)])
def test_a_share_that_does_not_exist_is_refused(tmp_path: Path, shard: tuple[int, int]) -> None:
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(DataError, match="write I/N with 1 <= I <= N"):
        build_shard(recipe(tmp_path / "a.txt"), tmp_path / "out", shard)


def stop_at(number: int) -> Any:
    """A report that ends the build at its n-th call, as a crash would."""
    calls = iter(range(number))

    def report(_progress: Any) -> None:
        if next(calls, None) is None:
            raise KeyboardInterrupt

    return report


@pytest.mark.usefixtures("small_units")
def test_a_stopped_build_continues_from_every_point(tmp_path: Path) -> None:
    wanted = full_recipe(write_corpus(tmp_path / "in", num_files=3))
    build_recipe(wanted, tmp_path / "whole", workers=1)
    out = tmp_path / "out"
    stops = 0
    while True:
        try:
            build_recipe(wanted, out, workers=1, progress=stop_at(2 + stops))
            break
        except KeyboardInterrupt:
            stops += 1
            assert not out.exists()
    assert stops > 5
    assert contents(out) == contents(tmp_path / "whole")
    assert not (tmp_path / "out.building").exists()


def test_a_build_killed_just_after_naming_is_done(tmp_path: Path) -> None:
    wanted = recipe(write_corpus(tmp_path / "in", num_files=1))
    build_recipe(wanted, tmp_path / "out", workers=1)
    (tmp_path / "out").rename(tmp_path / "kept")
    build_shard(wanted, tmp_path / "out", (1, 1), workers=1).rename(tmp_path / "out.building")
    (tmp_path / "kept").rename(tmp_path / "out")
    assert (
        build_recipe(wanted, tmp_path / "out", workers=1) == Store.open(tmp_path / "out").manifest
    )
    assert not (tmp_path / "out.building").exists()
    with pytest.raises(DataError, match="exists already: remove it or choose another name"):
        build_recipe(wanted, tmp_path / "out", workers=1)


@pytest.mark.usefixtures("small_units")
def test_another_recipe_does_not_continue_a_build(tmp_path: Path) -> None:
    source = write_corpus(tmp_path / "in", num_files=2)
    with pytest.raises(KeyboardInterrupt):
        build_recipe(full_recipe(source), tmp_path / "out", workers=1, progress=stop_at(4))
    with pytest.raises(DataError, match=r"begun with another recipe \(held_out_fraction\)"):
        build_recipe(full_recipe(source, held_out_fraction=0.2), tmp_path / "out", workers=1)
    (source / "new.txt").write_text("one more")
    with pytest.raises(DataError, match=r"another recipe \(the input files\)"):
        build_recipe(full_recipe(source), tmp_path / "out", workers=1)
    assert BuildFolder.read(tmp_path / "out.building").output_files(), "nothing is lost"


@pytest.mark.usefixtures("small_units")
def test_a_refused_build_loses_no_work_and_blocks_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("data.build.build_folder.KEPT_BYTES", 3000)
    source = tmp_path / "in"
    source.mkdir()
    (source / "a.jsonl").write_text("".join(f'{{"text": "line {n}"}}\n' for n in range(400)))
    (source / "z.txt").write_bytes(b"caf\xe9")
    wanted = recipe(source)
    for _ in range(2):
        with pytest.raises(DataError, match=r"z\.txt, position 0: bad_utf8"):
            build_recipe(wanted, tmp_path / "out", workers=1, strict=True)
        finished = BuildFolder.read(tmp_path / "out.building").output_files()
        assert len(finished) >= 2
    times = {path: path.stat().st_mtime_ns for path in finished}
    with pytest.raises(KeyboardInterrupt):  # without --strict it continues
        build_recipe(wanted, tmp_path / "out", workers=1, progress=stop_at(3))
    assert all(path.stat().st_mtime_ns == time for path, time in times.items())
    with pytest.raises(DataError, match="bad_utf8"):
        build_recipe(wanted, tmp_path / "out", workers=1, strict=True)
    (source / "z.txt").write_text("mended")  # a build of other files takes the refused one's place
    build_recipe(wanted, tmp_path / "out", workers=1)
    assert not (tmp_path / "out.building").exists()
    assert contents(tmp_path / "out") == contents(build(tmp_path / "fresh", source).path)


def test_two_builds_of_one_store_do_not_meet(tmp_path: Path) -> None:
    wanted = recipe(write_corpus(tmp_path / "in", num_files=1))

    def second(_progress: Any) -> None:
        with pytest.raises(DataError, match="another process is building there"):
            build_recipe(wanted, tmp_path / "out", workers=1)

    calls = []

    def report(progress: Any) -> None:
        if progress.stage in ("clean and tokenize", "write"):
            calls.append(progress.stage)
            second(progress)

    build_recipe(wanted, tmp_path / "out", workers=1, progress=report)
    assert set(calls) == {"clean and tokenize", "write"}


def test_who_comes_second_leaves_the_first_one_s_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def busy(folder: Path) -> Iterator[None]:
        (folder / "parts").mkdir(parents=True)
        raise DataError("another process is building there")
        yield

    monkeypatch.setattr("data.build.build.locked_directory", busy)
    with pytest.raises(DataError, match="another process"):
        build_recipe(recipe(write_corpus(tmp_path / "in", num_files=1)), tmp_path / "out")
    assert (tmp_path / "out.building" / "parts").is_dir()


@pytest.mark.parametrize("stage", ["find files and make the tokenizer", "write"])
def test_a_store_that_another_process_finished_is_kept(stage: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    seen = []

    def report(progress: Any) -> None:
        seen.append(progress.stage)
        if progress.stage == stage:
            out.mkdir(exist_ok=True)
            (out / "theirs").touch()

    wanted = recipe(write_corpus(tmp_path / "in", num_files=1))
    with pytest.raises(DataError, match="out: exists already"):
        build_recipe(wanted, out, workers=1, progress=report)
    assert seen[-1] == stage, "no work is done in vain"
    assert [path.name for path in out.iterdir()] == ["theirs"]
    assert not (tmp_path / "out.building").exists()


COMMAND = """
import os, signal, sys
from pathlib import Path
import data.build.worker_pool, data.sources.work_units
data.sources.work_units.UNIT_BYTES = data.build.worker_pool.UNIT_BYTES = 20_000
from data.build.build import build_recipe
from data.recipe import read_recipe

parts_left = int(sys.argv[3])

def die_on_the_way(progress):
    global parts_left
    parts_left -= progress.stage == "clean and tokenize"
    if not parts_left:
        os.killpg(0, signal.SIGKILL)

if __name__ == "__main__":
    build_recipe(read_recipe(Path(sys.argv[1])), Path(sys.argv[2]), workers=2,
                 progress=die_on_the_way)
"""


def test_kill_9_and_continue(tmp_path: Path) -> None:
    """The whole process group is killed three times on its way: the store is equal to the bit."""
    write_corpus(tmp_path / "in", num_files=12, num_documents=150)
    (tmp_path / "recipe.toml").write_text(
        'tokenizer = "bpe:300"\n[[source]]\npaths = ["in"]\n[clean]\nnear_duplicates = 0.8\n'
    )
    script = tmp_path / "build_it.py"
    script.write_text(COMMAND)
    build_recipe(read_recipe(tmp_path / "recipe.toml"), tmp_path / "whole", workers=1)
    command = [sys.executable, str(script), str(tmp_path / "recipe.toml"), str(tmp_path / "out")]
    unfinished = []
    for new_parts in (1, 5, 8, -1):
        done = subprocess.run(
            [*command, str(new_parts)], start_new_session=True, capture_output=True, check=False
        )
        is_killed = new_parts > 0
        assert done.returncode == (-signal.SIGKILL if is_killed else 0), done.stderr.decode()
        assert (tmp_path / "out").exists() != is_killed
        unfinished.append(len(list((tmp_path / "out.building" / "parts").glob("*.json"))))
    assert 0 < unfinished[0] < unfinished[1] < unfinished[2]
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_a_dead_worker_is_one_line_and_the_build_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_corpus(tmp_path / "in")
    wanted = recipe(tmp_path / "in")

    def die(*_: Any) -> None:
        raise WorkerError("a worker process died")

    with monkeypatch.context() as patch:
        patch.setattr("data.build.build.run_units", die)
        with pytest.raises(WorkerError):
            build_recipe(wanted, tmp_path / "out")
    assert (tmp_path / "out.building").is_dir()
    assert build_recipe(wanted, tmp_path / "out").documents > 0


def test_held_out_documents_stay_when_the_corpus_grows(tmp_path: Path) -> None:
    source = write_corpus(tmp_path / "in", num_files=3)
    held = {}
    for size in ("small", "large"):
        store = build(tmp_path / size, source, held_out_fraction=0.2)
        streams = {name: store.split(name).streams[0] for name in ("train", "held_out")}  # type: ignore[arg-type]
        total = sum(stream.num_documents for stream in streams.values())
        assert abs(streams["held_out"].num_documents / total - 0.2) < 0.08
        held[size] = set(texts(store)[streams["train"].num_documents :])
        held[f"{size} train"] = set(texts(store)) - held[size]
        write_corpus(source, num_files=6)
    assert held["small"] < held["large"] and held["small train"] < held["large train"]


def test_canaries_are_planted_so_often_and_nowhere_else(tmp_path: Path) -> None:
    source = write_corpus(tmp_path / "in", num_files=2)
    plain = build(tmp_path / "plain", source, held_out_fraction=0.2)
    store = build(
        tmp_path / "out",
        source,
        held_out_fraction=0.2,
        canaries={"count": 4, "repeats": (0, 1, 5), "seed": 3},
    )
    canaries = {canary.text: canary.repeats for canary in store.manifest.canaries}
    assert sorted(canaries.values()) == [0] * 4 + [1] * 4 + [5] * 4
    found = Counter(text for text in texts(store) if text in canaries)
    assert {text: found[text] for text in canaries} == canaries
    assert [text for text in texts(store) if text not in canaries] == texts(plain)
    held = store.split("held_out").streams[0].num_documents
    assert not set(canaries) & set(texts(store)[-held:])
    places = np.flatnonzero([text in canaries for text in texts(store)])
    assert np.ptp(places) > 0.5 * len(texts(store)), "spread over the corpus"


def test_sources_keep_names_weights_and_order(tmp_path: Path) -> None:
    for name in ("b", "a"):
        (tmp_path / f"{name}.txt").write_text(f"text {name}")
    sources = [
        {"name": name, "paths": [tmp_path / f"{name}.txt"], "weight": weight}
        for name, weight in (("b", 3), ("a", 1))
    ]
    values = {"source": sources, "tokenizer": "bytes", "held_out_fraction": 0}
    manifest = build_recipe(make_recipe(values, "test"), tmp_path / "out", workers=1)
    assert [(source.name, source.weight) for source in manifest.sources] == [("b", 3), ("a", 1)]
    assert texts(Store.open(tmp_path / "out")) == ["text b", "text a"]


def test_a_tokenizer_trained_in_a_process_of_its_own_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = recipe(write_corpus(tmp_path / "in", num_files=2), tokenizer="bpe:300")
    build_recipe(wanted, tmp_path / "here", workers=1)
    monkeypatch.setattr("data.build.recipe_tokenizer.TRAINED_HERE_BYTES", 0)
    build_recipe(wanted, tmp_path / "apart", workers=1)
    assert contents(tmp_path / "here") == contents(tmp_path / "apart")
    small = recipe(tmp_path / "in", tokenizer="bpe:9")
    with pytest.raises(DataError, match="bpe:9: needs at least 257 ids"):
        build_recipe(small, tmp_path / "none", workers=1)
    assert not (tmp_path / "none.building").exists()


def test_a_store_is_a_pure_function_of_recipe_and_sources(tmp_path: Path) -> None:
    source = write_corpus(tmp_path / "in")
    for name in ("a", "b"):
        build_recipe(full_recipe(source), tmp_path / name, workers=1 + (name == "b"))
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
