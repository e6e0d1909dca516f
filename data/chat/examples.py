"""Examples of chat JSONL: conversations, or pairs of a chosen and a rejected one."""

import json
from typing import Any, Literal

ASSISTANT = "assistant"
SHAREGPT_ROLES = {"human": "user", "gpt": ASSISTANT, "bing": ASSISTANT, "chatgpt": ASSISTANT}

ExampleKind = Literal["conversations", "pairs"]
Message = dict[str, Any]
"""`role`, `content` (a string) and whatever else the template reads."""


class ExampleError(ValueError):
    """A line that is no example; `reason` is the word under which it is counted as dropped."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason


def read_example(line: bytes) -> tuple[ExampleKind, list[list[Message]]]:
    """Return the kind of a line and its conversations: one, or the chosen and the rejected one.

    Raises:
        ExampleError: It is neither.
    """
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ExampleError("bad_json", str(error)) from None
    if not isinstance(record, dict):
        raise ExampleError("bad_json", "not an object")
    if "chosen" in record and "rejected" in record:
        prompt = _messages(record["prompt"], "user") if "prompt" in record else []
        both = [_messages(record[key], ASSISTANT) for key in ("chosen", "rejected")]
        return "pairs", [_with_prompt(prompt, messages) for messages in both]
    for key in ("messages", "conversations"):
        if key in record:
            return "conversations", [_messages(record[key], "user")]
    raise ExampleError(
        "no_messages", "none of the keys messages, conversations, chosen and rejected"
    )


def _with_prompt(prompt: list[Message], messages: list[Message]) -> list[Message]:
    """Return a complete conversation; some files repeat the prompt in each answer."""
    repeats = bool(prompt) and messages[: len(prompt)] == prompt
    return messages if repeats else [*prompt, *messages]


def _messages(value: Any, role: str) -> list[Message]:
    """Return the messages of a list; a string is one message of `role`."""
    if isinstance(value, str):
        return [{"role": role, "content": value}]
    if not isinstance(value, list) or not value:
        raise ExampleError("no_messages", "messages are neither a text nor a list")
    return [_message(item) for item in value]


def _message(item: Any) -> Message:
    if not isinstance(item, dict):
        raise ExampleError("bad_message", "a message is not an object")
    role = item.get("role", item.get("from"))
    content = item.get("content", item.get("value"))
    if isinstance(content, list):
        texts = [block["text"] for block in content if _is_text_block(block)]
        content = "".join(texts) if len(texts) == len(content) else None
    if content is None and item.get("tool_calls"):
        content = ""
    if not isinstance(role, str) or not isinstance(content, str):
        raise ExampleError("bad_message", "role and content are not both text")
    others = {k: v for k, v in item.items() if k not in {"role", "from", "content", "value"}}
    return {"role": SHAREGPT_ROLES.get(role, role), "content": content, **others}


def _is_text_block(block: Any) -> bool:
    return isinstance(block, dict) and isinstance(block.get("text"), str)
