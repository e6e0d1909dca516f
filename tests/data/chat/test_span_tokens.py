"""The tokens of conversations are those of the library, which finds added tokens by itself.

transformers' `apply_chat_template` gives these: the last test holds it to that.
"""

import json
from collections.abc import Sequence
from functools import cache
from typing import Any

import pytest
import tokenizers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data.chat.answer_ends import TemplateError
from data.chat.template import ChatTemplate
from data.tokenization.tokenizer import Tokenizer
from tests.support.chat_helpers import turns
from tests.support.chat_tokenizers import (
    BEFORE,
    NAMES,
    OTHER_NAMES,
    TEMPLATES,
    template_of,
    tokenizer_json,
)

FLAGS = [(), ("rstrip",), ("lstrip", "rstrip"), ("normalized",), ("single_word",)]
KINDS = [(before, ()) for before in BEFORE] + [
    (before, flags) for before in ("byte-level", "metaspace first", "prepend") for flags in FLAGS[1:]
]
TEXTS = st.text(alphabet="ab a\n.é[", min_size=1, max_size=9).filter(str.strip)
CONVERSATIONS = st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=3).map(
    lambda pairs: turns(*(
        (role, text) for pair in pairs for role, text in zip(("user", "assistant"), pair, strict=True)
    ))
)  # fmt: skip


@cache
def both(before: str, flags: tuple[str, ...], kind: str) -> tuple[ChatTemplate, Any]:
    """Our template, and the library's tokenizer."""
    text = tokenizer_json(before, flags)
    ours = ChatTemplate(template_of(kind), Tokenizer(text, "test", "</s>"))
    return ours, tokenizers.Tokenizer.from_str(text)


def library_ids(theirs: Any, text: str) -> list[int]:
    return theirs.encode(text, add_special_tokens=False).ids


def encoded(ours: ChatTemplate, messages: Sequence[dict[str, Any]], flags: Sequence[str]) -> Any:
    """A conversation's tokens; None where special tokens are not found in it, as in a word."""
    try:
        return ours.encode(messages)
    except TemplateError as error:
        if error.reason in {"no_end_token", "special_token"} and {"normalized", "single_word"} & {*flags}:
            return None
        raise


@pytest.mark.parametrize("kind", TEMPLATES)
@pytest.mark.parametrize(("before", "flags"), KINDS)
@given(messages=CONVERSATIONS)
@settings(max_examples=12, suppress_health_check=list(HealthCheck))
def test_whole_conversations_and_prompts(
    before: str, flags: tuple[str, ...], kind: str, messages: list[dict[str, Any]]
) -> None:
    ours, theirs = both(before, flags, kind)
    document = encoded(ours, messages, flags)
    if document is None:
        return
    whole = library_ids(theirs, ours.render(messages))
    prompts = [
        library_ids(theirs, ours.render(messages[:i], add_generation_prompt=True))
        for i in range(1, len(messages), 2)
    ]
    for i, prompt in enumerate(prompts):
        assert ours.encode_prompt(messages[: 2 * i + 1]).tolist() == prompt
    first = document.answers[0][0]
    assert document.tokens[:first].tolist() == prompts[0]
    if all(whole[: len(prompt)] == prompt for prompt in prompts):
        assert document.tokens.tolist() == whole
        assert [start for start, _ in document.answers] == list(map(len, prompts))


@pytest.mark.parametrize("kind", TEMPLATES)
@pytest.mark.parametrize(("before", "flags"), KINDS)
@given(messages=CONVERSATIONS, names=st.lists(st.sampled_from(NAMES), min_size=3, max_size=3))
@settings(max_examples=8, suppress_health_check=list(HealthCheck))
def test_special_tokens_that_messages_spell(
    before: str,
    flags: tuple[str, ...],
    kind: str,
    messages: list[dict[str, Any]],
    names: list[str],
) -> None:
    ours, _ = both(before, flags, kind)
    for message, name in zip(messages, names, strict=False):
        message["content"] = message["content"].replace("b", name) + name
    document = encoded(ours, messages, flags)
    if document is None:
        return
    # To a tokenizer whose special tokens have other names, they are plain text.
    other = tokenizer_json(before, flags, OTHER_NAMES)
    twin = ChatTemplate(template_of(kind, OTHER_NAMES), Tokenizer(other, "twin", OTHER_NAMES[1]))
    expected = twin.encode(messages)
    assert document.tokens.tolist() == expected.tokens.tolist()
    assert document.answers == expected.answers
    prompt = twin.render(messages[:1], add_generation_prompt=True)
    found = library_ids(tokenizers.Tokenizer.from_str(other), prompt)
    assert ours.encode_prompt(messages[:1]).tolist() == found
