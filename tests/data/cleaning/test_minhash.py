"""Near duplicates: recall and precision on planted pairs, agreement with a slow search."""

import json
import random
from itertools import combinations
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest

from data.cleaning.minhash import NUM_HASHES, band_keys, bands_for, minhash_signatures
from data.cleaning.word_hashes import word_hashes
from data.inspection.summary import dropped_documents
from tests.support.store_helpers import build, dropped, texts

WORDS = [f"{a}{b}{c}" for a in "bdfgklmnprst" for b in "aeiou" for c in ("n", "r", "s", "l", "")]
CHANCE = random.Random()


@pytest.fixture(autouse=True)
def _same_chance_for_every_test() -> None:
    CHANCE.seed(20)


def document(num_words: int = 204) -> list[str]:
    return CHANCE.choices(WORDS, k=num_words)


def shingles(words: list[str]) -> set[tuple[str, ...]]:
    return {tuple(words[i : i + 5]) for i in range(len(words) - 4)}


def jaccard(one: list[str], other: list[str]) -> float:
    first, second = shingles(one), shingles(other)
    return len(first & second) / len(first | second)


def changed(words: list[str], similarity: float) -> list[str]:
    """Change single words until the Jaccard similarity of 5-grams is just above `similarity`."""
    new, refused = list(words), 0
    while refused < 25:  # the next change costs up to five 5-grams, beside an earlier one fewer
        trial = list(new)
        trial[CHANCE.randrange(len(words))] = f"x{CHANCE.randrange(10**6)}"
        if jaccard(words, trial) < similarity:
            refused += 1
        else:
            new = trial
    return new


def write(path: Path, documents: list[list[str]]) -> None:
    lines = (json.dumps({"text": " ".join(words)}) for words in documents)
    path.write_text("\n".join(lines))


def test_recall_and_precision_at_jaccard_08(tmp_path: Path) -> None:
    originals = [document() for _ in range(500)]
    copies = [changed(words, 0.8) for words in originals]
    alike = [changed(words, 0.5) for words in originals[:100]]  # half the same: distinct
    distinct = [document() for _ in range(1000)]
    similarities = [jaccard(*pair) for pair in zip(originals, copies, strict=True)]
    assert min(similarities) >= 0.8 and fmean(similarities) < 0.815
    write(tmp_path / "in.jsonl", [*originals, *alike, *distinct, *copies])
    store = build(tmp_path / "out", tmp_path / "in.jsonl", clean={"near_duplicates": 0.8})
    kept = texts(store)
    found = sum(" ".join(words) not in kept for words in copies)
    wrong = sum(" ".join(words) not in kept for words in (*originals, *alike, *distinct))
    print(f"found {found} of {len(copies)}, wrongly dropped {wrong} of {1600}")
    assert found >= 0.95 * len(copies)
    assert wrong <= 0.01 * 1600
    assert store.manifest.dropped == {"near_duplicate": found + wrong}
    assert store.manifest.histograms["copies"]["2"] == found


def test_each_is_dropped_for_one_that_stays(tmp_path: Path) -> None:
    """Against a search over all pairs: the first stays, likeness in a chain drops nothing."""
    first = document()
    chain = [first, changed(first, 0.81)]
    chain.append(changed(chain[1], 0.81))
    assert jaccard(first, chain[2]) < 0.7
    groups = [chain, *([words, changed(words, 0.9), words] for words in (document(), document()))]
    documents = [words for group in groups for words in group] + [document() for _ in range(20)]
    write(tmp_path / "in.jsonl", documents)
    store = build(tmp_path / "out", tmp_path / "in.jsonl", clean={"near_duplicates": 0.8})
    kept: list[list[str]] = []
    for words in documents:
        if not any(jaccard(words, earlier) >= 0.78 for earlier in kept):
            kept.append(words)
    assert texts(store) == [" ".join(words) for words in kept]
    reasons = list(dropped(store).values())
    assert reasons.count("duplicate") == 2
    for row in dropped_documents(store):
        position = int(row["detail"].rpartition(":")[2])
        assert position < row["position"], "dropped for an earlier one"
        assert f"{Path(row['file']).name}:{position}" not in dropped(store), "which stays"


def test_duplicates_across_sources_stay_where_they_came_first(tmp_path: Path) -> None:
    words = document()
    write(tmp_path / "a.jsonl", [words])
    write(tmp_path / "b.jsonl", [words, changed(words, 0.9), document()])
    store = build(
        tmp_path / "out", tmp_path / "a.jsonl", tmp_path / "b.jsonl", clean={"near_duplicates": 0.8}
    )
    assert store.manifest.documents == 2
    assert [Path(key).name for key in dropped(store)] == ["b.jsonl:0", *list(dropped(store))[1:]]


@pytest.mark.parametrize("similarity", [0.5, 0.7, 0.8, 0.9])
def test_bands_propose_nearly_all_pairs(similarity: float) -> None:
    bands = bands_for(similarity)
    assert bands.count * bands.rows == NUM_HASHES
    assert 1 - (1 - similarity**bands.rows) ** bands.count >= 0.99


def test_signatures_estimate_the_similarity() -> None:
    words = document(600)
    for similarity in (0.3, 0.6, 0.9):
        other = changed(words, similarity)
        one, two = minhash_signatures([word_hashes(" ".join(w)) for w in (words, other)])
        deviation = (similarity * (1 - similarity) / NUM_HASHES) ** 0.5
        assert abs((one == two).mean() - jaccard(words, other)) < 4 * deviation


def test_signatures_do_not_depend_on_the_batch() -> None:
    hashes = [word_hashes(" ".join(document(n))) for n in (1, 4, 5, 300)]
    together = minhash_signatures(hashes)
    alone = np.concatenate([minhash_signatures([h]) for h in hashes])
    assert np.array_equal(together, alone)
    keys = band_keys(together, bands_for(0.8))
    assert keys.shape == (bands_for(0.8).count, 4)
    assert all((keys[:, a] != keys[:, b]).all() for a, b in combinations(range(4), 2))


def test_short_texts_are_only_near_to_equal_words(tmp_path: Path) -> None:
    lines = ["one two", "one two!", "one three", "***", "+++", "四 五"]
    (tmp_path / "in.jsonl").write_text("\n".join(json.dumps({"text": line}) for line in lines))
    store = build(tmp_path / "out", tmp_path / "in.jsonl", clean={"near_duplicates": 0.8})
    assert texts(store) == ["one two", "one three", "***", "+++", "四 五"]


def test_near_duplicates_in_a_script_without_spaces(tmp_path: Path) -> None:
    thai = (
        "ชาวนาออกไปที่ทุ่งนาก่อนพระอาทิตย์ขึ้นและลูกชายสองคนของเขาก็ตามไปพร้อมกับม้าเมื่อทำงานเสร็จแล้ว"
        "ทุกคนนั่งใต้ต้นไม้เก่าแก่และพูดคุยเรื่องราคาข้าวถนนสายใหม่กับสะพานที่ต้องซ่อมก่อนฤดูหนาวจะมาถึง"
    )
    documents = [[thai], [thai.replace("ข้าว", "น้ำ")], [thai[::-1]]]
    write(tmp_path / "in.jsonl", documents)
    store = build(tmp_path / "out", tmp_path / "in.jsonl", clean={"near_duplicates": 0.8})
    assert texts(store) == [documents[0][0], documents[2][0]]
