"""Examples of chat JSONL: conversations, or pairs of a chosen and a rejected one."""

import json
from collections.abc import Collection
from typing import Any, Literal, NamedTuple

from data.chat.messages import (
    ASSISTANT,
    SYSTEM,
    ExampleError,
    Message,
    read_messages,
    refuse_media,
)
from data.json_text import BadLineError, parse_json_text

ExampleKind = Literal["conversations", "pairs"]
TEMPLATE_VARIABLES = "chat_template_kwargs"
"""Key of a row whose object holds further variables of the template (TRL's name for them)."""
SINGLE_KEYS = ("messages", "conversations")
"""Keys of a row's conversation; the first one that it has is read."""


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
    record = {key: value for key, value in record.items() if value is not None}
    if "chosen" in record and "rejected" in record:
        kind: ExampleKind = "pairs"
        prompt = read_messages(record["prompt"], "user") if "prompt" in record else []
        both = [read_messages(record[key], ASSISTANT) for key in ("chosen", "rejected")]
        conversations = [_with_prompt(prompt, messages) for messages in both]
        keys = {"prompt", "chosen", "rejected"}
    else:
        kind, keys = "conversations", set()
        conversations = [read_messages(record[key], "user") for key in SINGLE_KEYS if key in record]
        conversations = conversations[:1]
    if not conversations:
        raise ExampleError(
            "no_messages", "none of the keys messages, conversations, chosen and rejected"
        )
    _refuse_others(record, conversations[0])
    return Example(kind, conversations, _variables(record, {*keys, *SINGLE_KEYS}))


def _refuse_others(record: dict[str, Any], conversation: list[Message]) -> None:
    """Refuse a row that holds another conversation as well; some repeat the chosen one."""
    for key in SINGLE_KEYS:
        if record.get(key) and read_messages(record[key], "user") != conversation:
            raise ExampleError(
                "two_conversations",
                f"{key} says something else than the row's other messages: leave one of them, and"
                " give a pair's question as prompt",
            )


def _with_prompt(prompt: list[Message], messages: list[Message]) -> list[Message]:
    """Return a complete conversation; some files repeat the prompt in each answer.

    A system message may be in both, or in either.
    """
    given, asked = _without_system(prompt)
    own, said = _without_system(messages)
    if given and own and given != own:
        raise ExampleError("bad_message", "the prompt and an answer have other system messages")
    repeats = bool(asked) and said[: len(asked)] == asked
    return [*(given or own), *([] if repeats else asked), *said]


def _without_system(messages: list[Message]) -> tuple[list[Message], list[Message]]:
    """Return the system message that a list begins with, if any, and the others."""
    count = int(bool(messages) and messages[0]["role"] == SYSTEM)
    return messages[:count], messages[count:]


def _variables(record: dict[str, Any], messages: Collection[str]) -> dict[str, Any]:
    """Return the template's variables that a row brings."""
    read = {*messages, TEMPLATE_VARIABLES}
    values = {key: value for key, value in record.items() if key not in read}
    refuse_media(values, "the row")
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
