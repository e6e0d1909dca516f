"""What messages spell out stays plain text: a mark breaks special tokens in what they say."""

import re
from collections.abc import Collection, Sequence
from functools import lru_cache
from typing import Any

from data.chat.jinja import BREAK
from data.chat.messages import ASSISTANT, Message

USUAL_ROLES = frozenset(
    {"system", "user", ASSISTANT, "tool", "developer", "function", "ipython", "observation"}
)
"""Roles of which a template makes tokens by intent, as `'<|' + role + '|>'`."""


def broken_messages(
    messages: Sequence[Message],
    special: re.Pattern[str],
    tokens: frozenset[str],
    strings: Collection[str],
) -> list[Message]:
    """Return messages that make no special token, by themselves or as a part of one.

    Args:
        messages: Of a conversation.
        special: Pattern of special tokens.
        tokens: All added tokens: no role becomes a part of one, but for usual roles and those that
            the template names.
        strings: Strings that the template holds, roles among them.
    """
    broken: list[Message] = broken_tokens(list(messages), special)
    for message in broken:
        role = message["role"]
        is_known = role in USUAL_ROLES or role in strings
        if not is_known and _touches(role, tokens):
            message["role"] = BREAK.join(["", *role, ""])
    return broken


@lru_cache(maxsize=256)
def _touches(role: str, tokens: frozenset[str]) -> bool:
    """Return whether text around a role may make a token of it, or of one of its ends."""
    return any(
        role in token
        or any(
            role.endswith(token[:n]) or role.startswith(token[-n:]) for n in range(1, len(token))
        )
        for token in tokens
    )


def broken_tokens(value: Any, special: re.Pattern[str]) -> Any:
    """Insert a mark into the special tokens that a JSON value spells out."""
    if isinstance(value, str):
        while special.search(value):
            value = special.sub(lambda match: f"{match[0][0]}{BREAK}{match[0][1:]}", value)
        return value
    if isinstance(value, dict):
        return {
            broken_tokens(key, special): broken_tokens(item, special) for key, item in value.items()
        }
    if isinstance(value, list):
        return [broken_tokens(item, special) for item in value]
    return value
