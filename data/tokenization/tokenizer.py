"""Tokenizers: bytes, a BPE trained here, or any local `tokenizer.json`."""

import hashlib
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import cached_property
from itertools import takewhile
from pathlib import Path

import numpy as np
import tokenizers
from numpy.typing import NDArray
from tokenizers import decoders, models, pre_tokenizers, trainers

from data.errors import DataError
from data.json_text import check_text
from data.tokenization.bpe_cache import CachedBpeEncoder, Ids, library_ids, splits_before_spaces
from data.tokenization.byte_level import NUM_BYTES, byte_level_json, eos_of_byte_level_json
from data.tokenization.hub_folder import (
    TOKENIZER_CONFIG_FILE,
    check_links,
    check_tokenizer_folder,
    hub_file,
    hub_json,
    named_token,
    tokenizer_settings,
)
from data.tokenization.info import TOKENIZER_FILE, TokenizerInfo
from data.tokenization.library_errors import library_errors

EOS_TOKEN = "<|endoftext|>"
DEEPSEEK_EOS_TOKEN = "<\uff5cend\u2581of\u2581sentence\uff5c>"
"""Its bars are full-width and its blanks are SentencePiece's."""
USUAL_EOS_TOKENS = (EOS_TOKEN, "</s>", "<|end_of_text|>", "<eos>", DEEPSEEK_EOS_TOKEN, "[EOS]")
BYTES_JSON = '{"kind": "bytes", "eos_id": 256}\n'
"""What a store of the byte tokenizer holds; `byte_level_json` is for readers of the format."""
MAX_ID = 2**24
"""Largest token id taken: some memory is needed for every id up to the largest."""
_SOME_TEXT = "a word, Another; 12 more.\n\n\té 你好 "
"""A text of which every vocabulary has a token."""


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
        exported_bytes_eos = eos_of_byte_level_json(text)
        if exported_bytes_eos is not None:  # the byte tokenizer, as models are exported with it
            text, eos_token = BYTES_JSON, eos_token or exported_bytes_eos
        self.text = text
        self._model: tokenizers.Tokenizer | None = None
        if text != BYTES_JSON:
            self._model = _parse(text, origin)
        self.info = self._describe(origin, eos_token)
        self._cached: CachedBpeEncoder | None = None
        if self._model is not None and splits_before_spaces(text):
            self._cached = CachedBpeEncoder(self._model)

    @property
    def added_tokens(self) -> dict[str, int]:
        """Ids of the tokens that are found in a text before its model reads it, special or not."""
        if self._model is None:
            return dict(self.info.special_tokens)
        return {token.content: i for i, token in self._model.get_added_tokens_decoder().items()}

    @property
    def num_bytes(self) -> NDArray[np.int64] | None:
        """Bytes of each token, where tokens spell the bytes of any text; None: they may not."""
        if self._model is None:
            return np.ones(self.info.vocab_size, dtype=np.int64)
        return None if self._cached is None else self._cached.num_bytes

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
        except (UnicodeEncodeError, DataError):
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

    def token_id(self, token: str | None) -> int | None:
        """Return the id of a token of the vocabulary; None where there is no such token."""
        if token is None or self._model is None:
            return self.info.special_tokens.get(token or "")
        return self._model.token_to_id(token)

    def token(self, index: int | None) -> str | None:
        """Return the token of an id as the vocabulary spells it; None where there is none."""
        if index is None or self._model is None:
            names = {i: token for token, i in self.info.special_tokens.items()}
            return None if index is None else names.get(index)
        return self._model.id_to_token(index)

    @cached_property
    def prefix_ids(self) -> tuple[int, ...]:
        """Tokens that the tokenizer's own template writes before a text: most often its BOS."""
        if self._model is None:
            return ()
        try:
            encoding = self._model.encode(_SOME_TEXT)
        except Exception:  # words without a word for what is unknown: there is no template either
            return ()
        flagged = zip(encoding.ids, encoding.special_tokens_mask, strict=True)
        return tuple(i for i, _ in takewhile(lambda token: token[1], flagged))

    @property
    def hub_text(self) -> str:
        """The `tokenizer.json` that other programs read, with the same ids."""
        return byte_level_json(self.info.eos_token) if self._model is None else self.text

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
                " name the one that ends a document with --eos, or as eos_token in"
                f" {TOKENIZER_CONFIG_FILE} of the tokenizer's folder"
            )
        if max(ids.values()) > MAX_ID:
            raise DataError(
                f"{origin}: token id {max(ids.values())}: the largest taken here is {MAX_ID}:"
                " number the tokens without such gaps"
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
    by transformers. Of a token store, the end-of-document token is taken as well.

    Raises:
        DataError: Nothing readable there; names the remedy.
    """
    if not path.is_dir():
        if path.is_file():
            return Tokenizer(_text_of(path), str(path), eos_token)
        raise DataError(
            f"{path}: no such tokenizer: give bytes, bpe:SIZE, a tokenizer.json or its folder"
        )
    check_tokenizer_folder(path)
    if eos_token is None:
        settings = tokenizer_settings(path, "mend it or pass --eos")
        eos_token = named_token(settings, "eos_token") or _store_end(path)
    file = hub_file(path, TOKENIZER_FILE)
    if file is not None:
        return Tokenizer(_text_of(file), str(file), eos_token)
    return Tokenizer(_converted(path), str(path), eos_token)


def _store_end(folder: Path) -> str | None:
    """Return the end-of-document token of a token store; None of another folder."""
    described = hub_json(folder, "manifest.json").get("tokenizer")  # data/store/manifest.py
    return named_token(described, "eos_token") if isinstance(described, dict) else None


def same_tokenizer(file: Path, info: TokenizerInfo) -> bool:
    """Return whether a `tokenizer.json` gives the ids of the tokenizer that a store names.

    Raises:
        DataError: It cannot be read.
    """
    text = _text_of(file)
    if info.kind == "bytes" and eos_of_byte_level_json(text) is not None:
        return True  # as models are exported with it
    return hashlib.sha256(text.encode()).hexdigest() == info.sha256


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
    check_links(folder)
    with library_errors(f"{folder}: not a tokenizer that transformers can read"):
        model = AutoTokenizer.from_pretrained(
            folder, use_fast=True, local_files_only=True, trust_remote_code=False
        )
        return str(model.backend_tokenizer.to_str())


def _parse(text: str, origin: str) -> tokenizers.Tokenizer:
    with library_errors(f"{origin}: not a tokenizer.json"):
        model = tokenizers.Tokenizer.from_str(text)
        model.no_truncation()
        model.no_padding()
        model.encode_special_tokens = True
        # Some panic only here. That a vocabulary lacks these characters is no fault.
        with suppress(Exception):
            model.encode(_SOME_TEXT)
    return model
