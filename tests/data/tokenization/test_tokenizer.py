"""Tokenizers: equal to the library's to the id, named and hashed, refused where they do not fit."""

import json
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, trainers

from data.errors import DataError
from data.store.reader import Store
from data.tokenization.bpe_cache import SPLITTING_PATTERNS, splits_before_spaces
from data.tokenization.tokenizer import Tokenizer, byte_tokenizer, local_tokenizer, train_bpe
from tests.support.chat_helpers import tokenizer_with
from tests.support.store_helpers import build, texts

SAMPLE = [
    "The quick brown fox jumps over 13 lazy dogs; they're done.",
    "def f(x):\n    return x ** 2  # twice\n\n\n",
    "naïve café, 你好世界, Größe\tund\u00a0Raum 3.14",
] * 20


def trained(before: Any, **parts: Any) -> tokenizers.Tokenizer:
    model = tokenizers.Tokenizer(models.BPE())
    model.pre_tokenizer = before
    model.decoder = decoders.ByteLevel()
    for name, part in parts.items():
        setattr(model, name, part)
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    model.train_from_iterator(SAMPLE, trainer)
    return model


def split_by(pattern: str) -> Any:
    split = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    plain = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return pre_tokenizers.Sequence([split, plain])


MODELS = {
    "gpt2": trained(pre_tokenizers.ByteLevel(add_prefix_space=False)),
    **{f"pattern {n}": trained(split_by(p)) for n, p in enumerate(sorted(SPLITTING_PATTERNS))},
    "nfc": trained(pre_tokenizers.ByteLevel(add_prefix_space=False), normalizer=normalizers.NFC()),
    "prefix": trained(pre_tokenizers.ByteLevel(add_prefix_space=True)),
}
FAST = {name for name in MODELS if name == "gpt2" or name.startswith("pattern")}
OURS = {name: Tokenizer(model.to_str(), name) for name, model in MODELS.items()}

letters = st.text(alphabet="ab é你\t\n\u00a0 '.,x1!-_ST", max_size=60)
documents = st.one_of(letters, st.text(max_size=40), st.sampled_from(SAMPLE))


@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=60)
@given(
    batch=st.lists(st.one_of(letters, st.text(max_size=40), st.sampled_from(SAMPLE)), max_size=6)
)
def test_ids_equal_the_library_s(name: str, batch: list[str]) -> None:
    batch = [text for text in batch if text.isprintable() or "\ud800" not in text]
    expected = [MODELS[name].encode(text, add_special_tokens=False).ids for text in batch]
    assert [ids.tolist() for ids in OURS[name].encode_batch(batch)] == expected


@pytest.mark.parametrize("name", MODELS)
def test_only_known_tokenizers_take_the_fast_way(name: str) -> None:
    assert splits_before_spaces(MODELS[name].to_str()) == (name in FAST)


@given(st.text(max_size=80))
def test_text_comes_back(text: str) -> None:
    for tokenizer in (byte_tokenizer(), OURS["gpt2"]):
        assert tokenizer.decode(tokenizer.encode(text).tolist()) == text


def test_special_tokens_in_a_text_are_plain_text() -> None:
    ids = OURS["gpt2"].encode("a <|endoftext|> b")
    assert OURS["gpt2"].info.eos_id not in ids
    assert OURS["gpt2"].decode(ids.tolist()) == "a <|endoftext|> b"


def test_trained_bpe_is_a_function_of_its_texts() -> None:
    first, second = train_bpe(SAMPLE, 340), train_bpe(iter(SAMPLE), 340)
    assert first.info == second.info and first.info.vocab_size == 340
    named = train_bpe(SAMPLE, 340, "<end>")
    assert named.info.eos_token == "<end>" and named.info.special_tokens == {"<end>": 0}
    with pytest.raises(DataError, match="needs at least 257 ids"):
        train_bpe(SAMPLE, 256)


def test_a_tokenizer_json_and_its_folder(tmp_path: Path) -> None:
    MODELS["gpt2"].save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "in.txt").write_text(SAMPLE[0])
    infos = []
    for name in ("tokenizer.json", ""):
        store = build(
            tmp_path / f"out{len(infos)}", tmp_path / "in.txt", tokenizer=str(tmp_path / name)
        )
        assert texts(store) == [SAMPLE[0]]
        infos.append(store.manifest.tokenizer)
    assert infos[0] == infos[1]
    assert infos[0].special_tokens == {"<|endoftext|>": 0} and len(infos[0].sha256) == 64


def test_the_folder_s_own_end_token_is_taken(tmp_path: Path) -> None:
    model = trained(pre_tokenizers.ByteLevel(add_prefix_space=False))
    model.add_special_tokens(["<stop>"])
    model.save(str(tmp_path / "tokenizer.json"))
    config = tmp_path / "tokenizer_config.json"
    config.write_text(json.dumps({"eos_token": {"content": "<stop>"}}))
    assert local_tokenizer(tmp_path).info.eos_token == "<stop>"
    assert local_tokenizer(tmp_path, "<|endoftext|>").info.eos_token == "<|endoftext|>"
    with pytest.raises(DataError, match="has no token <none>: name the one that ends"):
        local_tokenizer(tmp_path, "<none>")
    config.write_text("[")
    with pytest.raises(DataError, match="not a JSON object: mend it or pass --eos"):
        local_tokenizer(tmp_path)


def test_a_store_s_own_end_token_is_taken(tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text(SAMPLE[0])
    for name, tokenizer in (("bytes", "bytes"), ("bpe", "bpe:300")):
        store = build(tmp_path / name, tmp_path / "in.txt", tokenizer=tokenizer, eos_token="<end>")
        assert local_tokenizer(tmp_path / name).info == store.manifest.tokenizer
        assert store.manifest.tokenizer.eos_token == "<end>"


@pytest.mark.needs("hub")
def test_a_folder_of_vocabulary_and_merges_is_converted(tmp_path: Path) -> None:
    MODELS["gpt2"].model.save(str(tmp_path))
    settings_ = {"tokenizer_class": "GPT2Tokenizer", "eos_token": "<|endoftext|>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings_))
    assert local_tokenizer(tmp_path).encode(SAMPLE[0]).tolist() == (
        MODELS["gpt2"].encode(SAMPLE[0]).ids
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{}", "not a tokenizer.json"),
        (b"\xff", "not a tokenizer.json"),
        (None, "no such tokenizer"),
    ],
)
def test_what_is_no_tokenizer_is_refused(
    tmp_path: Path, content: bytes | None, message: str
) -> None:
    path = tmp_path / "t.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        local_tokenizer(path)
    assert "\n" not in str(caught.value)


def test_a_tokenizer_without_an_end_asks_for_it() -> None:
    model = tokenizers.Tokenizer(models.WordLevel({"a": 0, "b": 1}, unk_token="a"))
    remedy = "--eos, or as eos_token in tokenizer_config.json of the tokenizer's folder"
    with pytest.raises(DataError, match=f"name the one that ends a document with {remedy}"):
        Tokenizer(model.to_str(), "words")
    assert Tokenizer(model.to_str(), "words", "b").info.eos_id == 1


# Of GPT-2, Llama 2, Llama 3, Gemma, Kimi K2 and DeepSeek.
@pytest.mark.parametrize(
    "token",
    [
        *("<|endoftext|>", "</s>", "<|end_of_text|>", "<eos>", "[EOS]"),
        b"<\xef\xbd\x9cend\xe2\x96\x81of\xe2\x96\x81sentence\xef\xbd\x9c>".decode(),
    ],
)
def test_usual_end_tokens_are_known(token: str) -> None:
    model = tokenizers.Tokenizer(models.WordLevel({"a": 0, token: 1}, unk_token="a"))
    assert Tokenizer(model.to_str(), "words").info.eos_token == token


def test_large_vocabularies_are_uint32(tmp_path: Path) -> None:
    vocabulary = {"<|endoftext|>": 0, **{f"w{n}": n for n in range(1, 66_000)}}
    model = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token="w1"))
    model.pre_tokenizer = pre_tokenizers.Whitespace()
    model.save(str(tmp_path / "t.json"))
    (tmp_path / "in.txt").write_text("w65999 w2")
    build(tmp_path / "out", tmp_path / "in.txt", tokenizer=str(tmp_path / "t.json"))
    stream = Store.open(tmp_path / "out").split("train").streams[0]
    assert stream.read(0, 3).dtype == "uint32"
    assert stream.read(0, 3).tolist() == [65999, 2, 0]


def test_an_end_token_that_is_no_text_is_refused() -> None:
    with pytest.raises(DataError, match=r"ends a document: character 2 is no character"):
        byte_tokenizer(b"a\xff".decode(errors="surrogateescape"))


def test_added_tokens_are_special_or_not() -> None:
    assert byte_tokenizer().added_tokens == {"<|endoftext|>": 256}
    tokenizer = tokenizer_with("<a>", special=False)
    assert set(tokenizer.added_tokens) == {"<|endoftext|>", "<a>"}
    assert set(tokenizer.info.special_tokens) == {"<|endoftext|>"}
