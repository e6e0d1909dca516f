"""Texts with added tokens have the library's tokens, and by other names special tokens are text."""

import json
from typing import Any

import pytest
import tokenizers
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import models, pre_tokenizers

from data.errors import DataError
from data.tokenization.added_tokens import AddedTokenEncoder
from data.tokenization.tokenizer import Tokenizer, byte_tokenizer
from tests.support.chat_helpers import tokenizer_with

NAMES = {"</s>": "q1z", "<|end|>": "q2z"}
LETTERS = {letter: i for i, letter in enumerate("<>/|abdens", 3)}
PIECES = [("</s>", -1.0), ("<|end|>", -1.0), ("<unk>", -9.0)]
MODELS: dict[str, Any] = {
    # Each of these makes the token `</s>` of its letters, unless it is known by another name.
    "unigram": models.Unigram([*PIECES, *((letter, -3.0) for letter in LETTERS)], unk_id=2),
    "bpe": models.BPE(
        {"</s>": 0, "<|end|>": 1, "<unk>": 2, "</": 13, "s>": 14} | LETTERS,
        [("<", "/"), ("s", ">"), ("</", "s>")],
        unk_token="<unk>",
    ),
    "words": models.WordLevel({"</s>": 0, "<|end|>": 1, "<unk>": 2, "a": 3}, unk_token="<unk>"),
}


def with_added(model: Any) -> Tokenizer:
    made = tokenizers.Tokenizer(model)
    if isinstance(model, models.WordLevel):
        made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.add_special_tokens(["<|end|>"])
    return Tokenizer(made.to_str(), "test", "</s>")


@pytest.mark.parametrize("name", MODELS)
def test_by_another_name_a_special_token_is_plain_text(name: str) -> None:
    tokenizer = with_added(MODELS[name])
    own, renamed = AddedTokenEncoder(tokenizer), AddedTokenEncoder(tokenizer, NAMES)
    text = "a </s> <|end|> d"
    assert {0, 1} <= set(own.encode(text).ids.tolist())
    assert not {0, 1} & set(renamed.encode(text).ids.tolist())
    assert renamed.encode("aq1z q2z").ids.tolist() == own.encode("a</s> <|end|>").ids.tolist()
    assert own.unknown_id == renamed.unknown_id == 2
    assert own.added_tokens == {0: "</s>", 1: "<|end|>"}
    assert renamed.added_tokens == {0: "q1z", 1: "q2z"}


@pytest.mark.parametrize("tokenizer", [byte_tokenizer(), tokenizer_with("<|a|>", "<|a|>b", "é")])
@given(parts=st.lists(st.text(max_size=5) | st.sampled_from(["<|a|>", "<|endoftext|>", "é", "b"])))
@example(parts=["é", "\u9999"])  # a letter of the byte alphabet, and a text with this byte
@settings(max_examples=60)
def test_the_faster_way_gives_the_library_s_tokens(tokenizer: Tokenizer, parts: list[str]) -> None:
    settings = json.loads(tokenizer.hub_text) | {"post_processor": None}
    library = tokenizers.Tokenizer.from_str(json.dumps(settings))
    text = "".join(parts)
    expected = library.encode(text, add_special_tokens=False)
    found = AddedTokenEncoder(tokenizer).encode(text)
    assert found.ids.tolist() == expected.ids
    offsets = zip(found.starts.tolist(), found.ends.tolist(), strict=True)
    assert list(offsets) == expected.offsets


def test_a_text_that_the_vocabulary_cannot_express() -> None:
    words = models.WordLevel({"</s>": 0, "<|end|>": 1, "a": 2}, unk_token="<unk>")
    with pytest.raises(DataError, match="cannot encode a text .*take one that covers every text"):
        AddedTokenEncoder(with_added(words)).encode("b")
