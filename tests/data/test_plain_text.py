"""Text of others is printed in one line, and no terminal obeys it."""

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from data.plain_text import message_text, one_line, printable, printable_values

TEXTS = st.text(st.characters()) | st.text(
    st.sampled_from("a\x1b\u202e\u200f\ud800\udce9\n\t\r\x85\u2028")
)


@given(TEXTS)
def test_what_is_printed_is_one_line_that_steers_nothing(text: str) -> None:
    for shown in (printable(text), one_line(text)):
        shown.encode()
        assert len(shown.splitlines()) <= 1
        assert all(unicodedata.category(c) not in ("Cc", "Cs", "Zl", "Zp") for c in shown)
        assert all(unicodedata.bidirectional(c)[:2] not in ("RL", "LR", "PD") for c in shown)
        assert printable(shown) == shown
    assert printable(message_text(text)) == printable(text)


def test_bytes_breaks_and_directions_are_told_apart() -> None:
    assert printable("caf\udce9\n\u202e\ud800") == r"caf\xe9\x0a\u202e\ud800"
    assert one_line("one\r\n\ttwo\x1b") == r"one   two\x1b"
    assert printable_values({"a\n": ["b\x07", 1, None]}) == {"a ": [r"b\x07", 1, None]}
