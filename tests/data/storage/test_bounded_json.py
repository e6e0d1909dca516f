"""JSON and TOML of others: whatever is in a file, a value or one error of the family asked for."""

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.errors import InputError
from data.storage.bounded_json import MAX_DEPTH, parse_json, parse_toml, read_json, read_toml


class OwnError(InputError):
    pass


def test_plain_documents_are_read(tmp_path: Path) -> None:
    values: dict[str, Any] = {"a": [1, -2.5, None, True, "\0"], "no_limit": 10**30, "b": {"c": {}}}
    (tmp_path / "file.json").write_text(json.dumps(values))
    assert read_json(tmp_path / "file.json") == values
    (tmp_path / "file.toml").write_text('a.b = 1\n[c]\nd = [inf, "x.y.z"]\n')
    assert read_toml(tmp_path / "file.toml") == {"a": {"b": 1}, "c": {"d": [float("inf"), "x.y.z"]}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "Expecting value"),
        ("[" * 20_000, "nested deeper than 64 levels"),
        ("[" * 65 + "]" * 65, "nested deeper than 64 levels"),
        ('{"a": [1, NaN]}', "NaN is not a JSON number"),
        ('{"a": [1, 1e999]}', "a.1 is beyond the range of floats"),
        ('{"a": 1' + "0" * 40 + "}", "a is an integer of more than 128 bits"),
        ('{\n"a": 1' + "0" * 5000 + "}", "an integer of thousands of digits in line 2"),
    ],
)
def test_json_out_of_bounds_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "file").write_text(text)
    with pytest.raises(OwnError) as caught:
        read_json(tmp_path / "file", OwnError)
    assert message in str(caught.value)
    assert str(tmp_path / "file") in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a = ", "Invalid value"),
        ("a = " + "[" * 20_000, "nested deeper than 64 levels"),
        (".".join("a" * 20_000) + " = 1", "nested deeper than 64 levels"),
        ("[" + " . ".join(['"a"'] * 20_000) + "]", "nested deeper than 64 levels"),
        ("a = " + "{b=" * 65 + "1" + "}" * 65, "nested deeper than 64 levels"),
        ("train.steps = 1" + "0" * 400, "train.steps is an integer of more than 64 bits"),
        ("a = 0x1" + "0" * 5000, "a is an integer of more than 64 bits"),
        ("\na = 1" + "0" * 5000, "an integer of thousands of digits in line 2"),
        ('a = ["x\\u0000"]', "a.0 is text with a NUL character"),
    ],
)
def test_toml_out_of_bounds_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "file").write_text(text)
    with pytest.raises(OwnError) as caught:
        read_toml(tmp_path / "file", OwnError)
    assert message in str(caught.value)


def test_depth_up_to_the_limit_is_read() -> None:
    assert parse_json("[" * MAX_DEPTH + "]" * MAX_DEPTH)
    assert parse_toml(".".join("a" * (MAX_DEPTH - 1)) + " = 1")


def test_a_long_word_takes_linear_time() -> None:
    """The search for deep keys does not begin anew at every character."""
    for text in ("a" * 500_000, '"' * 500_000, "a." * 60 + " " * 500_000, "'a' " * 100_000):
        with pytest.raises(ValueError):
            parse_toml(text)


def test_missing_files_and_long_ones(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "missing", OwnError)
    (tmp_path / "file").write_text("[1, 2]")
    with pytest.raises(OwnError, match="longer than 5 bytes"):
        read_json(tmp_path / "file", OwnError, max_bytes=5)
    with pytest.raises(OwnError, match="Is a directory"):
        read_toml(tmp_path, OwnError)


@given(st.binary(max_size=40) | st.text('{}[]",:0123456789.eE-+aN \n=\\u', max_size=40))
def test_any_bytes_give_a_value_or_a_value_error(content: bytes | str) -> None:
    for parse in (parse_json, parse_toml):
        text = content if isinstance(content, str) else content.decode("utf-8", "replace")
        with contextlib.suppress(ValueError):
            parse(text)
    if isinstance(content, bytes):
        with contextlib.suppress(ValueError):
            parse_json(content)
