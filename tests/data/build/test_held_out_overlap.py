"""Held-out documents that nearly equal one in train are counted, against exact Jaccard."""

import json
import random
from pathlib import Path

import pytest

from data.inspection.summary import summary, summary_text
from tests.support.store_helpers import build, stream_texts


def shingles(text: str) -> set[tuple[str, ...]]:
    words = text.split()
    return {tuple(words[i : i + 5]) for i in range(len(words) - 4)}


def corpus(path: Path) -> Path:
    """Documents of which every fourth has a copy with one other word."""
    chance = random.Random(0)
    vocabulary = [f"w{number}" for number in range(2000)]
    texts = []
    for number in range(200):
        words = chance.choices(vocabulary, k=chance.randint(60, 200))
        texts.append(" ".join(words))
        if number % 4 == 0:
            words[chance.randrange(len(words))] = "changed"
            texts.append(" ".join(words))
    path.write_text("\n".join(json.dumps({"text": text}) for text in texts))
    return path


@pytest.mark.parametrize("tokenizer", ["bytes", "bpe:400"])
def test_the_count_is_nearly_that_of_exact_jaccard(tokenizer: str, tmp_path: Path) -> None:
    store = build(
        tmp_path / "out", corpus(tmp_path / "a.jsonl"), tokenizer=tokenizer, held_out_fraction=0.3
    )
    train, held_out = (
        [shingles(text) for text in stream_texts(store, store.split(name).streams[0])]
        for name in ("train", "held_out")
    )
    exact = sum(any(len(a & b) >= 0.8 * len(a | b) for b in train) for a in held_out)
    counts = store.manifest.counts
    assert exact >= 20 and counts["held_out.checked"] == len(held_out)
    assert abs(counts["held_out.near_train"] - exact) <= 2
    text = summary_text(store.path, summary(store.manifest))
    assert f"{counts['held_out.near_train']} of {len(held_out)} held-out documents compared" in text


def test_what_is_not_measured_is_not_told(tmp_path: Path) -> None:
    path = corpus(tmp_path / "a.jsonl")
    for name, values in (
        ("none", {"held_out_fraction": 0.0}),
        ("near", {"held_out_fraction": 0.3, "clean": {"near_duplicates": 0.8}}),
    ):
        store = build(tmp_path / name, path, **values)
        assert not [key for key in store.manifest.counts if key.startswith("held_out")]
        assert "held-out documents compared" not in summary_text(path, summary(store.manifest))


def test_a_sample_of_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data.build.held_out_overlap.MAX_DOCUMENTS", 10)
    store = build(tmp_path / "out", corpus(tmp_path / "a.jsonl"), held_out_fraction=0.3)
    assert store.manifest.counts["held_out.checked"] == 10
