"""The plain form of a text: each character from its place, nothing invisible."""

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from data.cleaning.plain_form import PlainForm


@given(st.text(alphabet="aé1\u0663\uff11\u00a0\u00ad\u200b\u200e\u2011 -") | st.text())
def test_every_character_is_told_by_its_place(text: str) -> None:
    form = PlainForm(text)
    for position, character in enumerate(form.text):
        start, end = form.span(position, position + 1)
        assert end == start + 1
        assert character == text[start] or character.isascii()
        if text[start].isdecimal():
            assert int(character) == unicodedata.decimal(text[start])
    assert PlainForm(form.text).text == form.text


def test_invisible_characters_inside_are_of_the_span_and_others_are_not() -> None:
    form = PlainForm("\u200ba\u00ad\u00adb\u200b c")
    assert form.text == "ab c"
    assert form.span(0, 2) == (1, 5) and form.span(3, 4) == (7, 8)
