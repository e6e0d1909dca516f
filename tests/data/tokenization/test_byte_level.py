"""The byte tokenizer as other programs read it: the same ids, and ours again when it comes back."""

from pathlib import Path

import tokenizers
from hypothesis import given
from hypothesis import strategies as st

from data.tokenization.byte_level import byte_level_json, eos_of_byte_level_json
from data.tokenization.tokenizer import (
    BYTES_JSON,
    Tokenizer,
    byte_tokenizer,
    local_tokenizer,
    same_tokenizer,
    train_bpe,
)

OURS = byte_tokenizer()
THEIRS = tokenizers.Tokenizer.from_str(OURS.hub_text)


@given(st.text(max_size=60).filter(lambda text: "<|" not in text))
def test_every_text_has_the_ids_of_its_bytes(text: str) -> None:
    ids = THEIRS.encode(text).ids
    assert ids == OURS.encode(text).tolist() == list(text.encode())
    assert THEIRS.decode(ids) == text


@given(st.binary(max_size=40))
def test_bytes_that_are_no_text_are_decoded_alike(content: bytes) -> None:
    assert THEIRS.decode(list(content)) == OURS.decode(content)


def test_the_end_is_id_256_and_special() -> None:
    named = byte_tokenizer("<end>")
    theirs = tokenizers.Tokenizer.from_str(named.hub_text)
    assert theirs.token_to_id("<end>") == 256 and theirs.get_vocab_size() == 257
    assert theirs.encode("a<end>").ids == [97, 256]
    assert theirs.decode([97, 256]) == "a"


def test_what_was_exported_is_the_byte_tokenizer_again(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(byte_level_json("<end>"))
    for back in (local_tokenizer(tmp_path), local_tokenizer(tmp_path / "tokenizer.json")):
        assert back.info == byte_tokenizer("<end>").info
        assert back.text == BYTES_JSON and back.hub_text == byte_level_json("<end>")
    assert same_tokenizer(tmp_path / "tokenizer.json", OURS.info)


def test_no_other_tokenizer_is_taken_for_it(tmp_path: Path) -> None:
    trained = train_bpe(["a model learns"], 270)
    for text in (
        trained.text,
        "{}",
        "[",
        "[" * 5000,
        byte_level_json("x").replace('"a"', '"\u0400"'),
    ):
        assert eos_of_byte_level_json(text) is None
    assert Tokenizer(trained.text, "trained").hub_text == trained.text
    (tmp_path / "tokenizer.json").write_text(trained.text)
    assert not same_tokenizer(tmp_path / "tokenizer.json", OURS.info)
    assert same_tokenizer(tmp_path / "tokenizer.json", trained.info)
