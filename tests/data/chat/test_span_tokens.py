"""The tokens of conversations are those of the library, which finds added tokens by itself.

transformers' `apply_chat_template` gives these: the last test holds it to that.
"""

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

FLAGS = [("rstrip",), ("lstrip", "rstrip"), ("normalized",), ("single_word",)]
FLAGGED = ("byte-level", "metaspace first", "prepend")
TOKENIZERS = [(before, ()) for before in BEFORE]
TOKENIZERS += [(before, flags) for before in FLAGGED for flags in FLAGS]
TEXTS = st.text(alphabet="ab a\n.é[", min_size=1, max_size=9).filter(str.strip)
PAIRS = st.tuples(TEXTS, TEXTS)


def conversation(pairs: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
    return [one for q, a in pairs for one in turns(("user", q), ("assistant", a))]


CONVERSATIONS = st.lists(PAIRS, min_size=1, max_size=3).map(conversation)
each_tokenizer = pytest.mark.parametrize(("before", "flags"), TOKENIZERS)
ENDS = ("▁", "Ġ")
each_template = st.sampled_from(list(TEMPLATES))


@cache
def both(before: str, flags: tuple[str, ...], kind: str) -> tuple[ChatTemplate, Any]:
    """Our template, and the library's tokenizer."""
    text = tokenizer_json(before, flags)
    ours = ChatTemplate(template_of(kind), Tokenizer(text, "test", "</s>"))
    return ours, tokenizers.Tokenizer.from_str(text)


def library_ids(theirs: Any, text: str) -> list[int]:
    ids: list[int] = theirs.encode(text, add_special_tokens=False).ids
    return ids


def encoded(ours: ChatTemplate, messages: Sequence[dict[str, Any]], flags: Sequence[str]) -> Any:
    """A conversation's tokens; None where special tokens are not found in it, as in a word."""
    try:
        return ours.encode(messages)
    except TemplateError as error:
        if error.reason not in {"no_end_token", "special_token"} or not {
            "normalized",
            "single_word",
        } & {*flags}:
            raise
        return None


@each_tokenizer
@given(kind=each_template, messages=CONVERSATIONS)
@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
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


@each_tokenizer
@given(
    kind=each_template,
    messages=CONVERSATIONS,
    names=st.lists(st.sampled_from(NAMES), min_size=3, max_size=3),
)
@settings(max_examples=15, suppress_health_check=[HealthCheck.too_slow])
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


def test_a_token_that_reaches_into_an_answer_is_left_to_the_prompt() -> None:
    for before in BEFORE:
        ours, theirs = both(before, (), "open")
        document = ours.encode(conversation([("a", "ab"), ("b", "ba")]))
        answers = [document.tokens[a:b].tolist() for a, b in document.answers]
        texts = ["".join(map(theirs.id_to_token, answer)) for answer in answers]
        assert texts == ["ab</s>", "ba</s>"], before
        assert theirs.id_to_token(document.tokens[document.answers[0][0] - 1]).endswith(ENDS)


@pytest.mark.needs("hub")
@each_tokenizer
def test_transformers_gives_these_tokens(before: str, flags: tuple[str, ...]) -> None:
    import transformers

    text = tokenizer_json(before, flags)
    theirs = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizers.Tokenizer.from_str(text), bos_token="<s>", eos_token="</s>"
    )
    messages = conversation([("a ba", " ab é"), ("\n[b", "b.")])
    for kind in TEMPLATES:
        ours, library = both(before, flags, kind)
        for said, asks in ((messages, False), (messages[:1], True), (messages[:3], True)):
            expected = theirs.apply_chat_template(
                said, chat_template=template_of(kind), add_generation_prompt=asks, return_dict=True
            )["input_ids"]
            rendered = ours.render(said, add_generation_prompt=asks)
            assert library_ids(library, rendered) == expected
            if asks:
                assert ours.encode_prompt(said).tolist() == expected
