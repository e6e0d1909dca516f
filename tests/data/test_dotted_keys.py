"""`--set KEY=VALUE` reaches every depth, and says what is wrong with it; dotted keys back."""

from typing import Any

import pytest

from data.dotted_keys import apply_override, flatten
from data.errors import InputError


def test_values_are_toml_or_else_strings() -> None:
    values: dict[str, Any] = {"clean": {"unicode": "none"}}
    for override in (
        "clean.unicode=nfc",
        "clean.languages = ['en']",
        "held_out_fraction=0.5",
        "a.b.c=true",
        "text=x=y",
    ):
        apply_override(values, override)
    assert values == {
        "clean": {"unicode": "nfc", "languages": ["en"]},
        "held_out_fraction": 0.5,
        "a": {"b": {"c": True}},
        "text": "x=y",
    }


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("clean", "--set 'clean': write it as section.key=value"),
        (" =1", "--set ' =1': write it as section.key=value"),
        ("name.deep=1", "--set 'name.deep=1': name is a value, not a section"),
        ("a=1" + "0" * 99, f"--set 'a=1{'0' * 99}': value is an integer of more than 64 bits"),
        ('a="\\u0000"', "--set 'a=\"\\\\u0000\"': value is text with a NUL character"),
        ("a=\udcff", "--set 'a=\\udcff': the value is not UTF-8 text"),
    ],
)
def test_wrong_overrides_are_named(override: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        apply_override({"name": "x"}, override)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("a=" + "[" * 20_000, "...': nested deeper than 64 levels"),
        ("a.b=1" + "0" * 5000, "...': an integer of thousands of digits in line 1"),
        (".".join("a" * 20_000) + "=1", "...': nested deeper than 64 levels"),
    ],
)
def test_overrides_out_of_bounds_are_refused_in_a_short_line(override: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        apply_override({}, override)
    assert str(caught.value).endswith(message)
    assert len(str(caught.value)) < 300


def test_a_value_has_no_lines_of_its_own() -> None:
    values: dict[str, Any] = {}
    apply_override(values, "a=1\nb=2")
    assert values == {"a": "1\nb=2"}


def test_nested_values_become_dotted_keys() -> None:
    assert flatten({"a": {"b": {"c": 1}, "d": [2]}, "e": {}}) == {"a.b.c": 1, "a.d": [2]}
