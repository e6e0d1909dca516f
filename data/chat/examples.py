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
OBJECT_LISTS = ("tools", "documents")
"""Variables of templates that are lists of objects."""


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
    return values | {key: _list_of_objects(values[key]) for key in OBJECT_LISTS if key in values}


def _list_of_objects(value: Any) -> Any:
    """Return the list of objects that JSON texts hold, else the value as it is.

    Tables whose rows must be alike keep a list, or each of its objects, as a JSON text.
    """
    value = _json_of(value, list) if value != "" else []
    return [_json_of(item, dict) for item in value] if isinstance(value, list) else value


def _json_of(text: Any, kind: type[list[Any]] | type[dict[str, Any]]) -> Any:
    """Return what a JSON text holds where it is of a kind, else the value as it is."""
    try:
        value = json.loads(text) if isinstance(text, str) else text
    except (ValueError, RecursionError):
        return text
    return value if isinstance(value, kind) else text
