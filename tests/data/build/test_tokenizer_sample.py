"""The sample that a tokenizer is trained on: bounded, spread, and without held-out documents."""

from pathlib import Path

import pytest

from data.build import tokenizer_sample
from data.build.build import build_recipe
from data.build.tokenizer_sample import sample_texts
from data.recipe import DataRecipe
from data.sources.discovery import find_input_files
from data.store.manifest import TRAIN


def write(folder: Path, sizes: list[int]) -> None:
    """One file for each size, of documents of 100 characters, all different."""
    folder.mkdir(parents=True)
    for number, size in enumerate(sizes):
        lines = [f"{folder.name} {number:03d} {i:05d} ".ljust(99, "x") for i in range(size)]
        (folder / f"{number:03d}.txt").write_text("\n".join(lines))


def recipe(root: Path, **keys: object) -> DataRecipe:
    sources = [
        {"name": path.name, "paths": [path], "separator": "\n"} for path in sorted(root.iterdir())
    ]
    return DataRecipe.model_validate({"source": sources, "held_out_fraction": 0.0, **keys})


def sample(wanted: DataRecipe) -> list[str]:
    return list(sample_texts(wanted, find_input_files(wanted).files, None))


def test_a_small_corpus_is_taken_whole_but_for_what_is_held_out(tmp_path: Path) -> None:
    write(tmp_path / "a", [50, 1, 30])
    write(tmp_path / "b", [20])
    assert len(sample(recipe(tmp_path))) == 101
    held = sample(recipe(tmp_path, held_out_fraction=0.3))
    assert 40 < len(held) < 100
    assert set(held) < set(sample(recipe(tmp_path)))
    built = build_recipe(
        recipe(tmp_path, held_out_fraction=0.3, tokenizer="bytes"), tmp_path.with_name("store")
    )
    train = built.streams(TRAIN)
    assert len(held) == sum(stream.documents for stream in train)
    assert sample(recipe(tmp_path, held_out_fraction=0.3)) == held


def test_a_large_corpus_is_bounded_and_spread_by_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A great file after many small ones gives most of the sample; sources share evenly."""
    monkeypatch.setattr(tokenizer_sample, "SAMPLE_CHARACTERS", 40_000)
    write(tmp_path / "a", [1] * 40 + [960])
    write(tmp_path / "b", [1000])
    found = sample(recipe(tmp_path))
    by_source = {name: [t for t in found if t.startswith(name)] for name in "ab"}
    for texts in by_source.values():
        assert 180 <= len(texts) <= 220
    great = [text for text in by_source["a"] if text.startswith("a 040")]
    assert len(great) > 0.9 * len(by_source["a"]) and len(great) < len(by_source["a"])


def test_equal_texts_count_once(tmp_path: Path) -> None:
    write(tmp_path / "a", [5])
    (tmp_path / "a" / "copy.txt").write_text((tmp_path / "a" / "000.txt").read_text())
    assert len(sample(recipe(tmp_path))) == 5
