"""Personal data: precision and recall on a labelled set, check digits, masks."""

import re
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.cleaning.personal_data import (
    find_personal_data,
    mask_personal_data,
    passes_luhn,
    passes_mod97,
)

LABELLED = Path(__file__).with_name("personal_labelled.txt")
MARK = re.compile(r"\[(email|phone|ip|card|iban):(.*?)(>?)\]")

Spans = set[tuple[str, int, int]]


def labelled() -> list[tuple[str, Spans]]:
    """Each snippet of the set without its marks, and what must be found."""
    snippets = []
    for line in LABELLED.read_text().splitlines():
        if line.startswith("#"):
            continue
        text, spans, position = "", set(), 0
        for mark in MARK.finditer(line):
            text += line[position : mark.start()]
            spans.add((mark[1], len(text), len(text) + len(mark[2])))
            text += mark[2] + mark[3]
            position = mark.end()
        snippets.append((text + line[position:], spans))
    return snippets


def scores() -> dict[str, tuple[float, float, int]]:
    """(precision, recall, marked) of each kind; right is only what agrees in kind and place."""
    right: Counter[str] = Counter()
    found: Counter[str] = Counter()
    marked: Counter[str] = Counter()
    for text, spans in labelled():
        here = {(f.kind, f.start, f.end) for f in find_personal_data(text)}
        found.update(kind for kind, _, _ in here)
        marked.update(kind for kind, _, _ in spans)
        right.update(kind for kind, _, _ in here & spans)
    return {k: (right[k] / max(found[k], 1), right[k] / marked[k], marked[k]) for k in marked}


@pytest.mark.parametrize(
    ("kind", "precision", "recall"),
    [
        ("email", 0.98, 0.98),
        ("phone", 0.95, 0.93),
        ("ip", 0.95, 0.95),
        ("card", 0.98, 0.98),
        ("iban", 0.98, 0.98),
    ],
)
def test_precision_and_recall(kind: str, precision: float, recall: float) -> None:
    reached = scores()[kind]
    assert reached[2] >= 15
    assert reached[0] >= precision and reached[1] >= recall, reached


def test_the_set_has_as_many_look_alikes() -> None:
    snippets = labelled()
    assert sum(not spans for _, spans in snippets) >= 80
    assert sum(bool(spans) for _, spans in snippets) >= 120


def test_masks_keep_the_rest_to_the_letter() -> None:
    text = "Write to jane@example.com or call +49 30 901820, from 192.0.2.17."
    masked = mask_personal_data(text, find_personal_data(text))
    assert masked == "Write to <EMAIL> or call <PHONE>, from <IP>."
    assert find_personal_data(masked) == []


@given(st.text(alphabet="0123456789 +-().@:abcdefDE\n", max_size=200))
def test_findings_are_ordered_and_apart(text: str) -> None:
    position = 0
    for found in find_personal_data(text):
        assert position <= found.start < found.end <= len(text)
        position = found.end


@given(st.integers(min_value=0, max_value=10**14))
def test_luhn_catches_every_single_wrong_digit(number: int) -> None:
    body = f"{number:015d}"
    check = next(d for d in "0123456789" if passes_luhn(body + d))
    assert [d for d in "0123456789" if passes_luhn(body + d)] == [check]
    for place in range(15):
        wrong = body[:place] + str((int(body[place]) + 1) % 10) + body[place + 1 :]
        assert not passes_luhn(wrong + check)


def test_mod97_on_worked_examples() -> None:
    assert passes_mod97("GB82WEST12345698765432")  # ISO 13616's own example
    assert not passes_mod97("GB82WEST12345698765423")


def test_hostile_text_takes_linear_time() -> None:
    for piece in ("1 ", "a@", "(", "1.", "0-", "+1", "ab:", "DE12 ", "tel 1"):
        find_personal_data(piece * 50_000)
