"""Cleaning: each step by hand-worked examples, counted, and off unless asked for."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.build.build import build_recipe
from data.cleaning.decontamination import read_evaluation_ngrams
from data.cleaning.quality import c4_text, gopher_quality, gopher_repetition
from data.cleaning.word_hashes import ngram_hashes, word_hashes
from data.errors import DataError
from data.inspection.summary import dropped_documents
from data.store.reader import Store
from tests.support.store_helpers import build, dropped, recipe, stream_texts, texts

PROSE = (
    "It was the best of days and the worst of days for those who have to work with their hands."
    " The farmer went to the field before the sun had come up, and his two sons followed with the"
    " horses. When they were done, all three sat under an old tree and talked about the price of"
    " wheat, the new road, and the bridge that somebody would have to mend before winter came."
)


def corpus(root: Path, documents: list[str]) -> Path:
    root.mkdir(exist_ok=True)
    path = root / "in.jsonl"
    path.write_text("\n".join(json.dumps({"text": text}) for text in documents))
    return path


def cleaned(tmp_path: Path, documents: list[str], **clean: Any) -> tuple[list[str], Any]:
    store = build(tmp_path / "out", corpus(tmp_path, documents), clean=clean)
    return texts(store), store


def test_without_steps_every_text_stays_as_it_is(tmp_path: Path) -> None:
    documents = ["ﬁne, café", "x", "jane@example.com " * 40, PROSE, "a" * 5000]
    kept, store = cleaned(tmp_path, documents)
    assert kept == documents
    assert store.manifest.dropped == {} and store.manifest.counts["read"] == 5


def test_unicode_and_length(tmp_path: Path) -> None:
    documents = ["ﬁne cafe\u0301 here", "short", "long " * 100]
    kept, store = cleaned(
        tmp_path, documents, unicode="nfkc", min_characters=10, max_characters=100
    )
    assert kept == ["fine caf\u00e9 here"]
    assert store.manifest.counts["changed.unicode"] == 1
    assert [(row["reason"], row["detail"]) for row in dropped_documents(store)] == [
        ("too_short", "5 characters"),
        ("too_long", "500 characters"),
    ]


def test_equal_after_cleaning_is_a_duplicate(tmp_path: Path) -> None:
    kept, store = cleaned(tmp_path, ["cafe\u0301", "caf\u00e9"], unicode="nfc")
    assert kept == ["caf\u00e9"] and store.manifest.dropped == {"duplicate": 1}
    kept, _ = cleaned(tmp_path / "b", ["a", "a"], exact_duplicates=False)
    assert kept == ["a", "a"]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (PROSE, None),
        ("the of " * 24, "word_count"),
        (" ".join(["the", "of"] + ["be"] * 60), "mean_word_length"),
        (" ".join(["the", "of"] + ["extraordinarily"] * 60), "mean_word_length"),
        (PROSE + " #" * 9, "symbols"),
        (PROSE + " ..." * 9, "symbols"),
        ("\n".join(f"- {line}" for line in PROSE.split(",")), "bullet_lines"),
        ("\n".join(f"{line} word word word ..." for line in PROSE.split(",")), "ellipsis_lines"),
        (PROSE + " 1234" * 30, "alphabetic_words"),
        ("Nothing here counts among stop words. " * 10, "stop_words"),
    ],
)
def test_gopher_quality(text: str, fault: str | None) -> None:
    assert gopher_quality(text) == fault


def numbered(count: int, start: int = 0) -> list[str]:
    return [f"w{number:04d}" for number in range(start, start + count)]


PAIR, FIVE = ["aaaaa", "bbbbb"], numbered(5, 900)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (PROSE, None),
        ("\n".join(["same"] * 2 + [f"other {n}" for n in range(4)]), None),
        ("\n".join(["same"] * 4 + [f"other {n}" for n in range(5)]), "duplicate_lines"),
        (
            "\n".join([PROSE[:60]] * 2 + [f"{n}" for n in range(8)]),
            "duplicate_line_characters",
        ),
        # The bigram fills 4 of 18 equally long words, over 20%; 4 of 22 is under.
        (" ".join(PAIR + numbered(7) + PAIR + numbered(7, 7)), "top_2_gram"),
        (" ".join(PAIR + numbered(9) + PAIR + numbered(9, 9)), None),
        # A run of five that occurs twice: 10 of 64 words, over 15%; 10 of 70 is under.
        (" ".join(FIVE + numbered(27) + FIVE + numbered(27, 50)), "duplicate_5_grams"),
        (" ".join(FIVE + numbered(30) + FIVE + numbered(30, 50)), None),
    ],
)
def test_gopher_repetition(text: str, fault: str | None) -> None:
    assert gopher_repetition(text) == fault


THAI = (
    "ชาวนาออกไปที่ทุ่งนาก่อนพระอาทิตย์ขึ้นและลูกชายสองคนของเขาก็ตามไปพร้อมกับม้า เมื่อทำงานเสร็จแล้ว"
    "ทุกคนนั่งใต้ต้นไม้เก่าแก่และพูดคุยเรื่องราคาข้าว ถนนสายใหม่ กับสะพานที่ต้องซ่อมก่อนฤดูหนาวจะมาถึง"
)
CHINESE = (
    "农夫在日出之前就去了田里，两个儿子牵着马跟在后面。干完活以后，三个人坐在一棵老树下，"
    "谈论小麦的价格、新修的道路，还有那座必须有人在冬天到来之前修好的桥。他们谁也不愿意先回家。"
)


def test_scripts_without_spaces_are_judged_by_their_words() -> None:
    for text in (THAI * 2, CHINESE * 3):
        assert gopher_quality(text) == "stop_words"  # which are English
        assert gopher_quality(text[:40]) == "word_count"
    for text in (THAI, CHINESE):
        assert gopher_repetition(text) is None
        repeated = text + text[:60] + text[60:] * 2
        assert str(gopher_repetition(repeated)).startswith("duplicate_"), repeated
    assert gopher_repetition(THAI + "ขอบคุณมาก" * 12) == "top_2_gram"


def test_c4_keeps_sentences_and_drops_pages(tmp_path: Path) -> None:
    page = "\n".join(
        [
            "Home | About | Contact",
            "The first sentence has more than five words.[1]",
            "Please enable javascript to see this page fully.",
            "The second one is not short either!",
            "Too short line.",
            "And is the third one a question?",
            "This line trails off like so...",
        ]
    )
    kept = (
        "The first sentence has more than five words.\nThe second one is not short either!\n"
        "And is the third one a question?"
    )
    assert c4_text(page) == (kept, None)
    assert c4_text(page.replace("third", "{third}"))[1] == "curly_bracket"
    assert c4_text(page + "\nLorem ipsum dolor sit amet.")[1] == "lorem_ipsum"
    assert c4_text("One sentence of six words only.")[1] == "sentences"
    found, store = cleaned(tmp_path, [page, "Short."], quality=["c4"])
    assert found == [kept]
    assert store.manifest.dropped == {"c4.sentences": 1}
    assert store.manifest.counts["changed.c4"] == 1


def test_language_is_told_kept_and_counted(tmp_path: Path) -> None:
    german = "Der Bauer ging vor Sonnenaufgang auf das Feld, und seine Söhne folgten ihm."
    kept, store = cleaned(tmp_path, [PROSE, german], languages=["de"])
    assert kept == [german]
    assert [(row["reason"], row["detail"]) for row in dropped_documents(store)] == [
        ("language", "en")
    ]
    assert store.manifest.counts["language.de"] == store.manifest.counts["language.en"] == 1
    kept, store = cleaned(tmp_path / "b", [PROSE, german], tag_language=True)
    assert kept == [PROSE, german] and store.manifest.counts["language.en"] == 1


def test_languages_lie_beside_the_documents(tmp_path: Path) -> None:
    german = "Der Bauer ging vor Sonnenaufgang auf das Feld, und seine Söhne folgten ihm."
    documents = [f"{number}. {text}" for number in range(40) for text in (PROSE, german)]
    wanted = recipe(
        corpus(tmp_path, documents), clean={"tag_language": True}, held_out_fraction=0.3,
        canaries={"count": 2, "repeats": [3]},
    )  # fmt: skip
    build_recipe(wanted, tmp_path / "out", workers=1)
    store = Store.open(tmp_path / "out")
    found: list[tuple[str | None, str]] = []
    for split in (store.split("train"), store.split("held_out")):
        (stream,) = split.streams
        assert stream.languages is not None
        found += zip(stream.languages, stream_texts(store, stream), strict=True)
    assert len(found) == len(documents) + 2 * 3
    for language, text in found:
        expected = "en" if PROSE in text else "de" if german in text else None
        assert language == expected
    untold = cleaned(tmp_path / "b", documents)[1].split("train").streams[0]
    assert untold.languages is None and untold.num_documents == len(documents)


def test_personal_data_masked_or_dropped(tmp_path: Path) -> None:
    documents = ["mail jane@example.com and bob@example.com", "nothing here"]
    kept, store = cleaned(tmp_path, documents, personal_data="mask")
    assert kept == ["mail <EMAIL> and <EMAIL>", "nothing here"]
    assert store.manifest.counts["found.email"] == 2
    assert store.manifest.counts["changed.personal_data"] == 1
    kept, store = cleaned(tmp_path / "b", documents, personal_data="drop")
    assert kept == ["nothing here"] and store.manifest.dropped == {"personal_data": 1}


def test_decontamination_against_evaluation_files(tmp_path: Path) -> None:
    words = PROSE.split()
    (tmp_path / "eval").mkdir()
    questions = [
        {"question": PROSE, "answer": "Yes.", "choices": ["a", {"text": "too short to look for"}]},
        {"question": "A question with exactly nine words stands here, whole."},
    ]
    lines = "\n".join(json.dumps(question) for question in questions)
    (tmp_path / "eval" / "test.jsonl").write_text(lines)
    documents = [
        "Before. " + " ".join(words[10:23]) + " after.",  # thirteen words in a row
        "Before. " + " ".join(words[10:22]) + " after.",  # twelve
        "He asked: a QUESTION with exactly nine words stands here -- whole?",
        " ".join(words[4:16] + ["but"] + words[16:28]),  # twelve, twice
    ]
    store = build(
        tmp_path / "out",
        corpus(tmp_path, documents),
        clean={"decontaminate": [tmp_path / "eval"]},
    )
    assert texts(store) == [documents[1], documents[3]]
    assert store.manifest.dropped == {"contaminated": 2}
    assert store.manifest.counts["evaluation.texts"] == 5
    assert store.manifest.counts["evaluation.short"] == 3


def test_a_broken_evaluation_file_is_refused(tmp_path: Path) -> None:
    for name, content in (("a.jsonl", b"{"), ("b.txt", b"\xff"), ("c.parquet", b"PAR1")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=f"{name}: evaluation file: "):
            read_evaluation_ngrams((tmp_path / name,))
        with pytest.raises(DataError, match=name):
            wanted = recipe(corpus(tmp_path, ["x"]), clean={"decontaminate": [tmp_path / name]})
            build_recipe(wanted, tmp_path / "out", workers=1)
        assert not (tmp_path / "out").exists() and not (tmp_path / "out.building").exists()


def test_all_steps_at_once_are_counted_once_each(tmp_path: Path) -> None:
    documents = [PROSE, PROSE, PROSE.replace("wheat", "oats"), "too short", "", PROSE[:200] * 3]
    store = build(
        tmp_path / "out",
        corpus(tmp_path, documents),
        clean={
            "unicode": "nfc",
            "min_characters": 20,
            "quality": ["gopher_quality", "gopher_repetition"],
            "near_duplicates": 0.8,
            "personal_data": "mask",
        },
    )
    manifest = store.manifest
    assert manifest.documents + sum(manifest.dropped.values()) == manifest.counts["read"] == 6
    assert len(dropped(store)) == sum(manifest.dropped.values())
    assert manifest.dropped["duplicate"] == manifest.dropped["near_duplicate"] == 1
    assert sum(manifest.histograms["copies"].values()) == manifest.documents
    assert sum(manifest.histograms["tokens"].values()) == manifest.documents


@given(st.lists(st.sampled_from(["a", "bb", "ccc", "dddd"]), max_size=40), st.integers(1, 6))
def test_equal_hashes_are_equal_word_runs(words: list[str], n: int) -> None:
    hashes = ngram_hashes(word_hashes(" ".join(words)), n)
    runs = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    assert hashes.size == len(runs)
    assert np.unique(hashes).size == len(set(runs))


def test_words_of_scripts_without_spaces() -> None:
    assert word_hashes("Das Haus, das HAUS!").tolist() == word_hashes("das haus das haus").tolist()
    assert word_hashes("你好世界").size == 4
    assert word_hashes("漢字とkana").size == 4
