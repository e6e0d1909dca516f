"""Tokenizers: bytes, a BPE trained here, or any local `tokenizer.json`."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from data.errors import DataError
from data.json_text import check_text
from data.tokenization.bpe_cache import CachedBpeEncoder, Ids, library_ids, splits_before_spaces
from data.tokenization.info import TOKENIZER_FILE, TokenizerInfo

EOS_TOKEN = "<|endoftext|>"
USUAL_EOS_TOKENS = (EOS_TOKEN, "</s>", "<|end_of_text|>", "<eos>", "<|end▁of▁sentence|>", "[EOS]")
BYTES_JSON = '{"kind": "bytes", "eos_id": 256}\n'
NUM_BYTES = 256


class Tokenizer:
    """Text to token ids and back; special tokens spelled out in a text stay plain text."""

    def __init__(self, text: str, origin: str, eos_token: str | None = None) -> None:
        """Make a tokenizer from the text of a `tokenizer.json`.

        Args:
            text: A Hugging Face `tokenizer.json`, or what a byte tokenizer saves.
            origin: Where the text is from, for error messages.
            eos_token: The token that ends a document. Default: the usual one it has.

        Raises:
            DataError: The text is no tokenizer, or no end-of-document token can be told.
        """
        self.text = text
        self._model: tokenizers.Tokenizer | None = None
        if text != BYTES_JSON:
            self._model = _parse(text, origin)
            self._cached = CachedBpeEncoder(self._model) if splits_before_spaces(text) else None
        self.info = self._describe(origin, eos_token)

    @property
    def added_tokens(self) -> dict[str, int]:
        """Ids of the tokens that are found in a text before its model reads it, special or not."""
        if self._model is None:
            return dict(self.info.special_tokens)
        return {token.content: i for i, token in self._model.get_added_tokens_decoder().items()}

    def encode(self, text: str) -> Ids:
        """Return the ids of a text, without any special token."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[Ids]:
        """Return the ids of each text, without any special token.

        Raises:
            DataError: A text holds half a character, which has no bytes.
        """
        try:
            return self._encode_batch(texts)
        except (UnicodeEncodeError, TypeError):  # the tokenizers library's TypeError
            for number, text in enumerate(texts, 1):
                check_text(text, f"text {number}")
            raise

    def _encode_batch(self, texts: Sequence[str]) -> list[Ids]:
        if self._model is None:
            return [np.frombuffer(t.encode(), dtype=np.uint8).astype(np.uint32) for t in texts]
        if self._cached is not None:
            return self._cached.encode_batch(texts)
        return library_ids(self._model, texts)

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of ids; special tokens are left out, broken UTF-8 becomes U+FFFD."""
        if self._model is None:
            return bytes(i for i in ids if i < NUM_BYTES).decode(errors="replace")
        return self._model.decode([int(i) for i in ids])

    def _describe(self, origin: str, eos_token: str | None) -> TokenizerInfo:
        check_text(eos_token or "", f"{origin}: the token that ends a document")
        sha256 = hashlib.sha256(self.text.encode()).hexdigest()
        if self._model is None:
            eos_token = eos_token or EOS_TOKEN
            return TokenizerInfo(
                kind="bytes",
                vocab_size=NUM_BYTES + 1,
                eos_id=NUM_BYTES,
                eos_token=eos_token,
                special_tokens={eos_token: NUM_BYTES},
                sha256=sha256,
            )
        ids = self._model.get_vocab(with_added_tokens=True)
        eos_token = eos_token or next((token for token in USUAL_EOS_TOKENS if token in ids), None)
        if eos_token not in ids:
            raise DataError(
                f"{origin}: its vocabulary has no token {eos_token or 'that usually ends a text'}:"
                " name the one that ends a document with --eos"
            )
        added = self._model.get_added_tokens_decoder()
        special = {token.content: i for i, token in sorted(added.items()) if token.special}
        return TokenizerInfo(
            kind="huggingface",
            vocab_size=max(ids.values()) + 1,
            eos_id=ids[eos_token],
            eos_token=eos_token,
            special_tokens=special,
            sha256=sha256,
        )


def byte_tokenizer(eos_token: str | None = None) -> Tokenizer:
    """Return the tokenizer whose ids are UTF-8 bytes, with id 256 ending a document."""
    return Tokenizer(BYTES_JSON, "bytes", eos_token)


def train_bpe(texts: Iterable[str], vocab_size: int, eos_token: str | None = None) -> Tokenizer:
    """Train a byte-level BPE on texts; small corpora may yield fewer than `vocab_size` ids.

    `eos_token` is the one special token, `<|endoftext|>` by default.

    Raises:
        DataError: `vocab_size` cannot hold the 256 bytes and the end-of-document token.
    """
    if vocab_size <= NUM_BYTES:
        raise DataError(f"bpe:{vocab_size}: needs at least {NUM_BYTES + 1} ids: bytes and the end")
    model = tokenizers.Tokenizer(models.BPE())
    model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    model.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[eos_token or EOS_TOKEN],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    model.train_from_iterator(texts, trainer)
    return Tokenizer(model.to_str(), f"bpe:{vocab_size}", eos_token)


def local_tokenizer(path: Path, eos_token: str | None = None) -> Tokenizer:
    """Read a `tokenizer.json`, or a Hugging Face tokenizer folder.

    A folder without `tokenizer.json` (a SentencePiece model, a vocabulary with merges) is converted
    by transformers.

    Raises:
        DataError: Nothing readable there; names the remedy.
    """
    file = path / TOKENIZER_FILE if path.is_dir() else path
    settings = path / "tokenizer_config.json"
    if eos_token is None and settings.is_file():
        eos_token = _configured_eos(settings)
    if file.is_file():
        return Tokenizer(_text_of(file), str(file), eos_token)
    if path.is_dir():
        return Tokenizer(_converted(path), str(path), eos_token)
    raise DataError(
        f"{file}: no such tokenizer: give bytes, bpe:SIZE, a tokenizer.json or its folder"
    )


def _text_of(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: not a tokenizer.json: {error}") from None


def _converted(folder: Path) -> str:
    try:
        from transformers import AutoTokenizer
    except ImportError:
        raise DataError(
            f"{folder}: no {TOKENIZER_FILE} in it; to convert another kind:"
            " pip install 'moescale[hub]'"
        ) from None
    try:
        model = AutoTokenizer.from_pretrained(folder, use_fast=True, local_files_only=True)
        return str(model.backend_tokenizer.to_str())
    except Exception as error:  # the library raises whatever its readers do
        fault = " ".join(str(error).split())[:200]
        raise DataError(f"{folder}: not a tokenizer that transformers can read: {fault}") from None


def _configured_eos(settings: Path) -> str | None:
    try:
        values: Any = json.loads(settings.read_text(encoding="utf-8")).get("eos_token")
    except (ValueError, AttributeError):
        raise DataError(f"{settings}: not a JSON object: mend it or pass --eos") from None
    value = values.get("content") if isinstance(values, dict) else values
    return value if isinstance(value, str) else None


def _parse(text: str, origin: str) -> tokenizers.Tokenizer:
    try:
        model = tokenizers.Tokenizer.from_str(text)
    except Exception as error:  # the library raises bare Exception
        raise DataError(f"{origin}: not a tokenizer.json: {error}") from None
    model.no_truncation()
    model.no_padding()
    model.encode_special_tokens = True
    return model
