"""Messages of a conversation: one form for those of all files, and what is learned of them."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

SYSTEM, ASSISTANT = "system", "assistant"
ROLE_NAMES = {"human": "user", "gpt": ASSISTANT, "bing": ASSISTANT, "chatgpt": ASSISTANT}
SHAREGPT_ROLES = ROLE_NAMES | {"function_call": ASSISTANT, "observation": "tool"}
"""Of messages that say `from`, not `role`."""
REASONING_KEYS = ("reasoning_content", "thinking", "reasoning")
"""Names under which files have what a model thought before its answer; the first is given to
templates, as transformers does."""
LEARNED_KEYS = ("weight", "train", "loss")
"""Of an answer, 0 or false: not learned (OpenAI's, axolotl's and ms-swift's names for it)."""
TEXT_TYPES = frozenset({"text", "input_text", "output_text"})
"""Of the parts of a content."""
MEDIA_KEYS = frozenset(
    name
    for one in ("image", "video", "audio")
    for name in (one, f"{one}s", f"{one}_url", f"input_{one}")
)
"""Of rows, messages and parts of a content: what they hold is no text."""

Message = dict[str, Any]
"""`role`, `content` (a string; may be missing beside tool calls) and what else templates read."""


class ExampleError(ValueError):
    """A line that is no example; `reason` is the word under which it is counted as dropped."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason


def read_messages(value: Any, role: str) -> list[Message]:
    """Return the messages of a list; a string is one message of `role`.

    Raises:
        ExampleError: They are no messages, or hold what is no text.
    """
    if isinstance(value, str):
        return [{"role": role, "content": value}]
    if not isinstance(value, list) or not value:
        raise ExampleError("no_messages", "messages are neither a text nor a list")
    return [_read_message(item) for item in value]


def learned_answers(messages: Sequence[Message]) -> set[int]:
    """Return the indices of the answers that are to be learned.

    Raises:
        ExampleError: A message's weight is neither 0 nor 1.
    """
    return {
        index
        for index, message in enumerate(messages)
        if message["role"] == ASSISTANT and _is_learned(message)
    }


def refuse_media(values: Mapping[str, Any], named: str) -> None:
    """Refuse what holds more than text.

    Raises:
        ExampleError: It has images, videos or sound.
    """
    media = next((key for key, value in values.items() if key in MEDIA_KEYS and value), None)
    if media is not None:
        raise ExampleError("not_text", f"{named} has {media}: only text is learned")


def _is_learned(message: Message) -> bool:
    marks = {key: message[key] for key in LEARNED_KEYS if key in message}
    for key, value in marks.items():
        if key != "loss" and value not in (0, 1):
            raise ExampleError("bad_message", f"{key} is {value!r}: give 0 or 1, false or true")
    return not any(value in (0, 1) and not value for value in marks.values())


def _read_message(item: Any) -> Message:
    if not isinstance(item, dict):
        raise ExampleError("bad_message", "a message is not an object")
    names = {"from": "role", "value": "content"}
    roles = ROLE_NAMES if "role" in item else SHAREGPT_ROLES
    refuse_media(item, "a message")
    # In the file's order, without nulls, as transformers gives messages to templates.
    message: Message = {}
    for key, value in item.items():
        name = names[key] if key in names and names[key] not in item else key
        if value is not None:
            message[name] = _text(value) if name == "content" else value
    role = message.get("role")
    if role == "function_call" and role in roles:
        _make_tool_call(message)
    calls = message.get("tool_calls", [])
    if not isinstance(calls, list) or not all(isinstance(call, dict) for call in calls):
        raise ExampleError("bad_message", "tool_calls is not a list of objects")
    has_call = bool(calls or message.get("function_call"))
    if not isinstance(role, str) or ("content" not in message and not has_call):
        raise ExampleError("bad_message", "role and content are not both text")
    message["role"] = roles.get(role, role)
    return _with_reasoning(message)


def _text(content: Any) -> str:
    """Return the text of a message; that of its parts, joined."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise ExampleError("bad_message", "role and content are not both text")
    texts = []
    for part in content:
        given = part if isinstance(part, dict) else {}
        kind = given.get("type")
        if isinstance(kind, str) and kind not in TEXT_TYPES:
            raise ExampleError("not_text", f"content of type {kind[:40]!r}: only text is learned")
        refuse_media(given, "a part of a content")
        if not isinstance(given.get("text"), str):
            raise ExampleError("bad_message", "role and content are not both text")
        texts.append(given["text"])
    return "".join(texts)


def _make_tool_call(message: Message) -> None:
    """Turn ShareGPT's `function_call` turn, a JSON text, into a message with a tool call."""
    try:
        function = json.loads(message.pop("content", ""))
    except (ValueError, RecursionError):
        function = None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise ExampleError("bad_message", "function_call is no JSON object with a name")
    message["tool_calls"] = [{"type": "function", "function": function}]


def _with_reasoning(message: Message) -> Message:
    reasoning = next((message[key] for key in REASONING_KEYS if key in message), None)
    if reasoning is None:
        return message
    return {"thinking": reasoning, **message, "reasoning_content": reasoning}
