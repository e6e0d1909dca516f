"""Texts in which added tokens are tokens, as in the text of a chat template.

The encoders of this package take special tokens that a text spells out for plain text. Here they
are recognized, by the library itself: with the white space that they take, in normalized text or
not, and with everything that the tokenizer does at the start of a text and behind such tokens.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import tokenizers
from numpy.typing import NDArray

from data.tokenization.bpe_cache import Ids, refuse_unencodable
from data.tokenization.tokenizer import Tokenizer

Positions = NDArray[np.int64]


@dataclass(frozen=True)
class Encoded:
    """Tokens of a text, and the characters that each stands for."""

    ids: Ids
    starts: Positions
    """First character of each token, in the text as given."""
    ends: Positions
    """One past the last character of each token."""


class AddedTokenEncoder:
    """Encodes texts with the added tokens in them."""

    def __init__(self, tokenizer: Tokenizer, spelled: Mapping[str, str] | None = None) -> None:
        """Make an encoder.

        Args:
            tokenizer: Whose ids texts are to have.
            spelled: Other spellings of some tokens; by their own they are plain text.
        """
        settings = _recognizing(tokenizer, spelled or {})
        self.unknown_id = _unknown_id(settings["model"])
        """The token that stands for what the vocabulary lacks; None: there is none."""
        self.added_tokens: dict[int, str]
        """Their names, by id."""
        self.boundaries: frozenset[int]
        """Those around which texts are encoded one by one."""
        self._sections = _SectionEncoder.of(tokenizer, settings["added_tokens"], spelled or {})
        if self._sections is not None:
            self.added_tokens = self._sections.names
            self.boundaries = frozenset(self.added_tokens)
            return
        self._model = tokenizers.Tokenizer.from_str(json.dumps(settings, ensure_ascii=False))
        added = self._model.get_added_tokens_decoder()
        self.added_tokens = {i: token.content for i, token in added.items()}
        plain = settings.get("normalizer") is None
        self.boundaries = frozenset(i for i, t in added.items() if plain or not t.normalized)

    def encode(self, text: str) -> Encoded:
        """Return the tokens of a text, without those that a tokenizer adds by itself.

        Raises:
            DataError: The vocabulary cannot express it.
        """
        if self._sections is not None:
            return self._sections.encode(text)
        with refuse_unencodable():
            encoding = self._model.encode(text, add_special_tokens=False)
        offsets = np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2)
        return Encoded(np.array(encoding.ids, dtype=np.uint32), offsets[:, 0], offsets[:, 1])


class _SectionEncoder:
    """Encodes what is between added tokens by itself, where that is the library's way, but faster.

    So it is where the bytes of a text decide on its tokens, and added tokens take nothing else.
    """

    def __init__(
        self, tokenizer: Tokenizer, num_bytes: NDArray[np.int64], names: dict[int, str]
    ) -> None:
        self._tokenizer = tokenizer
        self.names = names
        self._ids = {name: i for i, name in names.items()}
        longest_first = sorted(self._ids, key=len, reverse=True)
        self._added = re.compile(f"({'|'.join(map(re.escape, longest_first))})")
        self._num_bytes = num_bytes

    @classmethod
    def of(
        cls, tokenizer: Tokenizer, added: list[dict[str, Any]], spelled: Mapping[str, str]
    ) -> "_SectionEncoder | None":
        """Return an encoder; None where another way is needed."""
        num_bytes = tokenizer.num_bytes
        flags = ("single_word", "lstrip", "rstrip")
        if num_bytes is None or any(token.get(flag) for token in added for flag in flags):
            return None
        ids = {**tokenizer.added_tokens, tokenizer.info.eos_token: tokenizer.info.eos_id}
        return cls(tokenizer, num_bytes, {i: spelled.get(name, name) for name, i in ids.items()})

    def encode(self, text: str) -> Encoded:
        """Return the tokens of a text."""
        sections = self._added.split(text)
        encoded: list[Any] = list(sections)
        encoded[::2] = self._tokenizer.encode_batch(sections[::2])
        encoded[1::2] = [np.array([self._ids[name]], dtype=np.uint32) for name in sections[1::2]]
        lengths = [self._num_bytes[section] for section in encoded]
        lengths[1::2] = [np.array([len(name.encode())]) for name in sections[1::2]]
        ids, num_bytes = np.concatenate(encoded), np.concatenate(lengths)
        ends = np.cumsum(num_bytes)
        starts = ends - num_bytes
        if text.isascii():
            return Encoded(ids, starts, ends)
        is_first = (np.frombuffer(text.encode(), dtype=np.uint8) & 0xC0) != 0x80
        characters = np.cumsum(is_first) - 1
        return Encoded(ids, characters[starts], characters[ends - 1] + 1)


def _recognizing(tokenizer: Tokenizer, spelled: Mapping[str, str]) -> dict[str, Any]:
    """Return a `tokenizer.json` that recognizes added tokens and the document's end."""
    settings: dict[str, Any] = json.loads(tokenizer.hub_text)
    settings |= {"truncation": None, "padding": None, "post_processor": None}
    added: list[dict[str, Any]] = settings.setdefault("added_tokens", [])
    eos_token, flags = tokenizer.info.eos_token, ("single_word", "lstrip", "rstrip", "normalized")
    if all(token["content"] != eos_token for token in added):
        end = {"id": tokenizer.info.eos_id, "content": eos_token, "special": True}
        added.append(end | dict.fromkeys(flags, False))
    for token in added:
        token["content"] = spelled.get(token["content"], token["content"])
    _respell(settings["model"], spelled)
    return settings


def _unknown_id(model: dict[str, Any]) -> int | None:
    vocabulary = model["vocab"]
    if isinstance(vocabulary, dict):
        return vocabulary.get(model.get("unk_token"))
    return model.get("unk_id")


def _respell(model: dict[str, Any], spelled: Mapping[str, str]) -> None:
    """Give tokens of a vocabulary other spellings, so that no text is made of them by its own."""
    if not spelled:
        return
    vocabulary = model["vocab"]
    if isinstance(vocabulary, dict):
        model["vocab"] = {spelled.get(token, token): i for token, i in vocabulary.items()}
    else:
        model["vocab"] = [[spelled.get(token, token), *more] for token, *more in vocabulary]
    if model.get("unk_token") in spelled:
        model["unk_token"] = spelled[model["unk_token"]]
    if "merges" in model:
        model["merges"] = [pair for pair in model["merges"] if not _merges_any(pair, spelled)]


def _merges_any(pair: str | list[str], spelled: Mapping[str, str]) -> bool:
    left, right = pair.split(" ", 1) if isinstance(pair, str) else pair
    return left in spelled or right in spelled or left + right in spelled
