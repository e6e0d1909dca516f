"""Examples of chat JSONL: conversations, or pairs of a chosen and a rejected one."""

import json
from typing import Any, Literal, NamedTuple

from data.chat.messages import ASSISTANT, ExampleError, Message, read_messages
from data.json_text import BadLineError, parse_json_text

ExampleKind = Literal["conversations", "pairs"]
TEMPLATE_VARIABLES = "chat_template_kwargs"
"""Key of a row whose object holds further variables of the template (TRL's name for them)."""
MEDIA_KEYS = ("images", "image", "videos", "video", "audios", "audio")


class Example(NamedTuple):
    """One line of a file."""

    kind: ExampleKind
    conversations: list[list[Message]]
    """One, or the chosen and the rejected one."""
    variables: dict[str, Any]
    """What else the row has, for the template: `tools`, `documents`, and variables of its own."""


def read_example(line: bytes) -> Example:
    """Return what a line holds.

    Raises:
        ExampleError: It is neither a conversation nor a pair.
    """
    try:
        record = parse_json_text(line)
    except BadLineError as error:
        raise ExampleError(error.reason, error.detail) from None
    if not isinstance(record, dict):
        raise ExampleError("bad_json", "not an object")
    if "chosen" in record and "rejected" in record:
        given = record.get("prompt")
        prompt = [] if given is None else read_messages(given, "user")
        both = [read_messages(record[key], ASSISTANT) for key in ("chosen", "rejected")]
        conversations = [_with_prompt(prompt, messages) for messages in both]
        return Example("pairs", conversations, _variables(record, "prompt", "chosen", "rejected"))
    for key in ("messages", "conversations"):
        if key in record:
            conversation = read_messages(record[key], "user")
            return Example("conversations", [conversation], _variables(record, key))
    raise ExampleError(
        "no_messages", "none of the keys messages, conversations, chosen and rejected"
    )


def _with_prompt(prompt: list[Message], messages: list[Message]) -> list[Message]:
    """Return a complete conversation; some files repeat the prompt in each answer."""
    repeats = bool(prompt) and messages[: len(prompt)] == prompt
    return messages if repeats else [*prompt, *messages]


def _variables(record: dict[str, Any], *messages: str) -> dict[str, Any]:
    """Return the template's variables that a row brings; nulls are as good as absent."""
    values = {key: value for key, value in record.items() if value is not None}
    for key in (*messages, TEMPLATE_VARIABLES):
        values.pop(key, None)
    media = next((key for key in MEDIA_KEYS if values.get(key)), None)
    if media is not None:
        raise ExampleError("not_text", f"the row has {media}: only text is learned")
    more = record.get(TEMPLATE_VARIABLES)
    if not isinstance(more, dict | None):
        raise ExampleError("bad_variables", f"{TEMPLATE_VARIABLES} is not an object")
    values |= more or {}
    for key in ("tools", "documents"):
        if key in values:
            values[key] = _objects(values[key], key)
    return values


def _objects(value: Any, key: str) -> list[dict[str, Any]]:
    """Return a list of objects; tables whose rows must be alike keep it as a JSON text."""
    if isinstance(value, str):
        try:
            value = json.loads(value or "[]")
        except (ValueError, RecursionError):
            value = None
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise ExampleError("bad_variables", f"{key} is not a list of objects")
    return value
