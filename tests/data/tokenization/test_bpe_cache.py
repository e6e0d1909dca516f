"""Encoding piece by piece gives the library's ids, for every text."""

import json
import random
from typing import Any

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, decoders, models, pre_tokenizers, trainers

from data.tokenization import bpe_cache
from data.tokenization.bpe_cache import (
    SPLITTING_PATTERNS,
    CachedBpeEncoder,
    library_ids,
    splits_before_spaces,
)

TEXT = "the they then we'll I'M it's 1234 12 don't naïve naïveté 東京 über () :-) a.b.c"
WORDS = [*TEXT.split(), "line\n\n\ttab"]
SPLITS: dict[str, Any] = {
    "gpt2": pre_tokenizers.ByteLevel(add_prefix_space=False),
    "digits": pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    ),
}
for number, pattern in enumerate(sorted(SPLITTING_PATTERNS)):
    SPLITS[f"pattern{number}"] = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def trained(split: Any, special: str = "<|endoftext|>") -> tokenizers.Tokenizer:
    chance = random.Random(0)
    model = tokenizers.Tokenizer(models.BPE())
    model.pre_tokenizer, model.decoder = split, decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=[special],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    texts = [" ".join(chance.choices(WORDS, k=30)) for _ in range(60)]
    model.train_from_iterator(texts, trainer)
    model.encode_special_tokens = True
    return model


@pytest.mark.parametrize("texts", [["", "a the"], ["a the", ""], [""]])
def test_an_empty_text_keeps_nothing_from_the_cache(
    texts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = CachedBpeEncoder(trained(SPLITS["gpt2"]))
    first = [ids.tolist() for ids in encoder.encode_batch(texts)]
    asked: list[str] = []
    monkeypatch.setattr(bpe_cache, "library_ids", lambda _, texts: asked.extend(texts) or [])
    assert [ids.tolist() for ids in encoder.encode_batch(texts)] == first
    assert not asked


MODELS = {name: trained(split) for name, split in SPLITS.items()}
PARTS = st.one_of(
    st.sampled_from(
        [*WORDS, " ", "  ", "\n", " \n ", "\t", "\u00a0", "\u2003", "<|endoftext|>", "'s"]
    ),
    st.text(max_size=6),
    st.text(alphabet=" a1'\n", max_size=10),
)
TEXTS = st.lists(st.lists(PARTS, max_size=12).map("".join), min_size=1, max_size=4)


def test_every_split_is_known_to_cut() -> None:
    for model in MODELS.values():
        assert splits_before_spaces(model.to_str())


@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=150)
@given(texts=TEXTS)
def test_ids_are_the_librarys(name: str, texts: list[str]) -> None:
    encoder = CachedBpeEncoder(MODELS[name])
    for _ in range(2):  # without and with a filled cache
        for mine, theirs in zip(
            encoder.encode_batch(texts), library_ids(MODELS[name], texts), strict=True
        ):
            assert mine.dtype == np.uint32 and mine.tolist() == theirs.tolist()


def test_the_cache_is_bounded_and_forgets_long_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bpe_cache, "MAX_CACHED_SEGMENTS", 50)
    encoder = CachedBpeEncoder(MODELS["gpt2"])
    for number in range(40):
        text = " ".join(f"word{number}x{i}" for i in range(10)) + " " + "long" * 20
        assert (
            encoder.encode_batch([text])[0].tolist()
            == library_ids(MODELS["gpt2"], [text])[0].tolist()
        )
        assert len(encoder._cache) <= 50 + 10
        assert all(len(piece) <= bpe_cache.MAX_SEGMENT_CHARACTERS for piece in encoder._cache)


def changed(**values: Any) -> str:
    settings_: dict[str, Any] = json.loads(MODELS["gpt2"].to_str())
    for key, value in values.items():
        *tables, leaf = key.split("__")
        table = settings_
        for name in tables:
            table = table[name]
        table[leaf] = value
    return json.dumps(settings_)


@pytest.mark.parametrize(
    "change",
    [
        {"model__dropout": 0.1},
        {"model__end_of_word_suffix": "</w>"},
        {"normalizer": {"type": "NFC"}},
        {"pre_tokenizer": None},
        {"pre_tokenizer__add_prefix_space": True},
        {"pre_tokenizer__use_regex": False},
        {"pre_tokenizer": {"type": "Whitespace"}},
    ],
    ids=str,
)
def test_others_go_through_the_library(change: dict[str, Any]) -> None:
    assert splits_before_spaces(changed())
    assert not splits_before_spaces(changed(**change))


def test_added_words_that_are_not_special_go_through_the_library() -> None:
    model = trained(SPLITS["gpt2"])
    model.add_tokens(["two words"])
    assert not splits_before_spaces(model.to_str())


def test_a_split_unknown_to_cut_goes_through_the_library() -> None:
    split = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\w+ \w+|."), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    assert not splits_before_spaces(trained(split).to_str())
