"""Text as people see it."""

from data.visible_text import has_visible_text, visible_text


def test_invisible_text_is_no_text() -> None:
    unseen = ("", " \n", "\u200b\u200d", "\ufeff \u2060\u00ad", "\x00\x07\x1b", "\u2800", "\ufff8")
    assert not any(map(has_visible_text, unseen))
    assert not any(has_visible_text("".join(unseen) + one) for one in unseen)
    assert all(map(has_visible_text, ("\u200bx", "क्\u200d", ".", "\u00e9")))
    assert visible_text(" a\u200b b\x00\n") == "ab"
