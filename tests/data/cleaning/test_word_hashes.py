"""Words: one normalization, whatever a text was written in, and decontamination by them."""

import json
import sys
import unicodedata
from pathlib import Path
from typing import Any

import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from data.cleaning.decontamination import EvaluationNgrams, read_evaluation_ngrams
from data.cleaning.word_hashes import (
    count_words,
    has_unspaced_letters,
    split_words,
    word_hashes,
)
from data.errors import DataError
from data.store.reader import Store
from tests.support.store_helpers import build

HINDI = (
    "ल\u095cका अपने घर के बाहर ब\u095cे पे\u095c के नीचे बैठा था और वह किताब प\u095d रहा था जब उसकी माँ आई"
)
FRENCH = (
    "L'élève a été reçu à l'école près de la forêt où son frère aîné était déjà entré l'année"
    " dernière après un hiver très sévère"
)
KANA = "ｶﾞｷﾞｸﾞｹﾞｺﾞｻﾞｼﾞｽﾞｾﾞｿﾞﾀﾞﾁﾞﾂﾞﾃﾞﾄﾞﾊﾞ"
MAIL = "write to jane@example.com or to bob@example.org for more about this one question today"
CITED = "The farmer went[1] to the field before[2] the sun had come[3] up over these old hills."


def contaminated(folder: Path, document: str, evaluation: str, **clean: Any) -> bool:
    """Whether a document is dropped for what an evaluation file holds."""
    folder.mkdir(exist_ok=True)
    (folder / "eval.jsonl").write_text(json.dumps({"question": evaluation}))
    other = "\n".join(f"This is line {n} of the other document." for n in range(3))
    lines = ({"text": document}, {"text": other})
    (folder / "in.jsonl").write_text("\n".join(map(json.dumps, lines)))
    clean["decontaminate"] = [folder / "eval.jsonl"]
    store: Store = build(folder / "out", folder / "in.jsonl", clean=clean)
    return store.manifest.dropped.get("contaminated") == 1


@pytest.mark.parametrize(
    ("document", "evaluation", "clean"),
    [
        (HINDI, HINDI, {}),
        (HINDI, HINDI, {"unicode": "nfc"}),
        (HINDI, unicodedata.normalize("NFD", HINDI), {"unicode": "nfkc"}),
        (FRENCH, unicodedata.normalize("NFD", FRENCH), {}),
        (FRENCH.upper(), unicodedata.normalize("NFD", FRENCH), {"unicode": "nfc"}),
        (KANA, unicodedata.normalize("NFKC", KANA), {}),
        (FRENCH.replace("re", "r\u00ade"), FRENCH, {}),
        (MAIL, MAIL, {"personal_data": "mask"}),
        (CITED, CITED, {}),
        (CITED + "\nThen came another line of it.\nAnd then the last one came.", CITED,
         {"quality": ["c4"]}),
    ],
)  # fmt: skip
def test_an_exact_copy_is_found_in_any_form(
    document: str, evaluation: str, clean: dict[str, Any], tmp_path: Path
) -> None:
    assert contaminated(tmp_path, document, evaluation, **clean)


def test_accents_count(tmp_path: Path) -> None:
    assert not contaminated(tmp_path, FRENCH.replace("é", "e").replace("è", "e"), FRENCH)


@pytest.mark.parametrize("content", [b'{"n": ' + b"9" * 5000 + b', "q": "%s"}', b"[" * 5000])
def test_evaluation_files_with_odd_json(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "e.jsonl"
    if content.startswith(b"["):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"e\.jsonl: evaluation file: bad_json: nested"):
            read_evaluation_ngrams((path,))
    else:
        path.write_bytes(content % FRENCH.encode())
        assert len(read_evaluation_ngrams((path,)).hashes[13]) > 5


def test_a_folder_of_evaluations_tells_what_it_left_aside(tmp_path: Path) -> None:
    (tmp_path / "e").mkdir()
    (tmp_path / "e/questions.csv").write_text(FRENCH)
    with pytest.raises(DataError, match="no evaluation text in it: give text, JSONL"):
        read_evaluation_ngrams((tmp_path / "e",))
    (tmp_path / "e/a.TXT").write_text(FRENCH)
    found = read_evaluation_ngrams((tmp_path / "e",))
    assert found.texts == 1 and found.ignored == {"csv": 1}


@given(st.text(max_size=60))
def test_equivalent_texts_have_the_same_words(text: str) -> None:
    words = split_words(text)
    for form in ("NFC", "NFD", "NFKC", "NFKD"):
        assert split_words(unicodedata.normalize(form, text)) == words  # type: ignore[arg-type]
    assert split_words("\u200b".join(text)) == words


@given(st.text(alphabet="aBéÉßñÑжЖ ωΩ漢ー한 ", max_size=40))
def test_case_changes_no_word(text: str) -> None:
    assert split_words(text.upper()) == split_words(text) == split_words(text.lower())


def test_marks_do_not_divide_a_word() -> None:
    assert split_words("लड़का किताब") == ["लड़का", "किताब"]
    assert split_words("e\u0301a ａb ﬁn co\u00adop") == ["éa", "ab", "fin", "coop"]


def sentences() -> dict[str, str]:
    """Of each script that has enough letters, one text of 52 or more letters, as it is written."""
    letters: dict[str, list[str]] = {}
    for character in map(chr, range(0xAA, sys.maxunicode + 1)):
        name = unicodedata.name(character, "").split(maxsplit=1)
        is_jamo = name[:1] == ["HANGUL"] and not name[1].startswith("SYLLABLE")
        if name and not is_jamo and unicodedata.category(character) in ("Ll", "Lo"):
            letters.setdefault(name[0], []).append(character)
    texts = {}
    for script, known in letters.items():
        spaced = not has_unspaced_letters(known[len(known) // 2])
        words = ("".join(known[(5 * n + k * k) % len(known)] for k in range(4)) for n in range(20))
        texts[script] = (" " if spaced else "").join(words)
    return {script: text for script, text in texts.items() if len(letters[script]) >= 20}


def evaluation_ngrams(folder: Path, *texts: str) -> EvaluationNgrams:
    (folder / "e.jsonl").write_text("\n".join(json.dumps({"q": text}) for text in texts))
    return read_evaluation_ngrams((folder / "e.jsonl",))


def test_a_text_in_any_script_is_found(tmp_path: Path) -> None:
    texts = sentences()
    assert {"THAI", "LAO", "KHMER", "MYANMAR", "JAVANESE", "DEVANAGARI", "CJK"} <= set(texts)
    for script, text in texts.items():
        found = evaluation_ngrams(tmp_path, text)
        edge = " " if " " in text else text[7]
        for document in (text, f"The {text}.", f"{text[2:9]}{edge}{text}{edge}{text[4:9]}"):
            assert found.overlaps(word_hashes(document)), script
        assert not found.overlaps(word_hashes(f"{text[:15]}.{text[:15]}")), script


THAI_NAME, THAI = (
    "กรุงเทพมหานคร",
    "ชาวนาออกไปที่ทุ่งนาก่อนพระอาทิตย์ขึ้นและลูกชายสองคนของเขาก็ตามไปพร้อมกับม้าเมื่อทำงานเสร็จแล้ว",
)


def test_a_name_is_no_sentence(tmp_path: Path) -> None:
    """Eight letters of Thai or kana are a word or four, which many documents have."""
    names = (THAI_NAME, "カリフォルニア大学", "联合国教科文组织", "대한민국 국가대표팀")
    found = evaluation_ngrams(tmp_path, *names)
    assert found.unchecked == len(names) and not found.hashes
    assert count_words(split_words(THAI)) > 13
    assert count_words(split_words(THAI_NAME)) == 3


def test_part_of_a_thai_sentence_is_found_between_other_thai(tmp_path: Path) -> None:
    found = evaluation_ngrams(tmp_path, THAI)
    assert found.overlaps(word_hashes(THAI_NAME + THAI[3:] + THAI_NAME))
    assert not found.overlaps(word_hashes(THAI_NAME + THAI[:30] + THAI_NAME + THAI[-30:]))


def test_search_by_range_misses_no_letter_without_spaces() -> None:
    letters = regex.compile(
        r"[[\p{LB=SA}\p{LB=AK}\p{LB=AS}\p{LB=ID}\p{LB=H2}]&&\p{L}--\p{Latin}]", regex.V1
    )
    found = letters.findall("".join(map(chr, range(sys.maxunicode + 1))))
    assert len(found) > 90_000 and all(map(has_unspaced_letters, found))


@given(st.text(max_size=60))
def test_a_letter_counts_as_a_quarter_of_a_word_at_least(text: str) -> None:
    words = split_words(text)
    assert len(words) / 4 <= count_words(words) <= len(words)
