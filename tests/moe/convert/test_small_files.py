"""Files beside the tensors of a Hugging Face model: what no program would take is refused first."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data.errors import InputError
from moe.convert.hugging_face import from_hub
from moe.convert.small_files import OBJECTS, check_small_files
from tests.moe.convert.test_wrong_files import save, tensors

Spoil = Callable[[Path], Any]


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(65 << 20)


WRONG_FILES: dict[str, tuple[Spoil, str]] = {
    "list": (lambda p: p.write_text("[]"), "not a JSON object: mend it"),
    "null": (lambda p: p.write_text("null"), "not a JSON object: mend it"),
    "text": (lambda p: p.write_text('"x"'), "not a JSON object: mend it"),
    "empty": (lambda p: p.write_text(""), "Expecting value"),
    "torn": (lambda p: p.write_text("{"), "Expecting property name"),
    "NaN": (lambda p: p.write_text('{"a": NaN}'), "NaN is not a JSON number"),
    "twice": (lambda p: p.write_text('{"a": 1, "a": 2}'), "two values of the key 'a'"),
    "twice inside": (lambda p: p.write_text('{"b": [{"a": 1, "a": 1}]}'), "two values of the key"),
    "deep": (lambda p: p.write_text("[" * 99 + "]" * 99), "nested deeper than 64 levels"),
    "latin-1": (lambda p: p.write_bytes(b'{"a": "\xe9"}'), "'utf-8' codec"),
    "utf-16": (lambda p: p.write_bytes("{}".encode("utf-16")), "'utf-8' codec"),
    "long": (_sparse, "longer than 64 MiB"),
    "link": (lambda p: p.symlink_to("/etc/hostname"), "a link that leads out of its folder"),
    "pipe": (os.mkfifo, "not a regular file"),
    "folder": (Path.mkdir, "not a regular file"),
}


@pytest.mark.parametrize("name", OBJECTS)
@pytest.mark.parametrize("kind", WRONG_FILES)
def test_what_is_no_object_of_json_is_refused(name: str, kind: str, tmp_path: Path) -> None:
    spoil, message = WRONG_FILES[kind]
    spoil(tmp_path / name)
    with pytest.raises(InputError) as caught:
        check_small_files(tmp_path)
    line = str(caught.value)
    assert line.startswith(f"{tmp_path / name}: ") and message in line and "\n" not in line


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("generation_config.json", {"eos_token_id": "x"}, "eos_token_id = 'x': wanted a whole"),
        ("generation_config.json", {"bos_token_id": True}, "bos_token_id = True: wanted a whole"),
        ("generation_config.json", {"pad_token_id": 0.5}, "pad_token_id = 0.5: wanted a whole"),
        ("generation_config.json", {"eos_token_id": [1, "x"]}, "wanted a list of int"),
        ("tokenizer_config.json", {"bos_token": 5}, "bos_token is neither a text nor an object"),
        ("tokenizer_config.json", {"eos_token": {"content": 5}}, "eos_token is neither a text"),
        ("special_tokens_map.json", {"pad_token": ["<p>"]}, "pad_token is neither a text"),
        ("tokenizer_config.json", {"chat_template": 5}, "chat_template is neither a text"),
        ("tokenizer_config.json", {"chat_template": {}}, "chat_template is neither a text"),
        ("tokenizer_config.json", {"chat_template": [{"name": "x"}]}, "neither a text nor a list"),
    ],
)
def test_values_that_no_program_takes_are_refused(
    name: str, values: dict[str, Any], message: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(json.dumps(values))
    with pytest.raises(InputError, match=f"{name}: .*{message}"):
        check_small_files(tmp_path)


@pytest.mark.parametrize("name", ["chat_template.jinja", "additional_chat_templates/tool.jinja"])
def test_a_template_is_text_of_bounded_length(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"\xe9")
    with pytest.raises(InputError, match=rf"{name}: not UTF-8 \(.* at byte 0\): save it as UTF-8"):
        check_small_files(tmp_path)
    _sparse(path)
    with pytest.raises(InputError, match=f"{name}: longer than 1 MiB: no chat template is"):
        check_small_files(tmp_path)


def test_a_model_with_a_wrong_small_file_is_not_converted(tmp_path: Path) -> None:
    hub = save(tmp_path / "hub", tensors())
    (hub / "generation_config.json").write_text("[]")
    with pytest.raises(InputError, match=r"generation_config.json: not a JSON object"):
        from_hub(hub, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["hub"]


def test_what_programs_take_stays(tmp_path: Path) -> None:
    ids = {"eos_token_id": [1, 2], "bos_token_id": None, "pad_token_id": -1, "temperature": 0.6}
    token = {"content": "<s>", "lstrip": False}
    templates = [{"name": "default", "template": "x"}, {"name": "tool", "template": "y"}]
    settings = {"bos_token": token, "eos_token": "</s>", "add_bos_token": True, "pad_token": None}
    for name, values in (
        ("generation_config.json", ids),
        ("tokenizer_config.json", settings | {"chat_template": templates}),
        ("trainer_state.json", [float("nan")]),  # which no program reads with the model
    ):
        (tmp_path / name).write_text(json.dumps(values))
    check_small_files(tmp_path)
