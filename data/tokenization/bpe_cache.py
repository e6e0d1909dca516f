"""Exact, faster encoding for byte-level BPE: every distinct piece of text is encoded once.

Byte-level BPE never merges across the pieces its pre-tokeniser cuts. The pre-tokenisers known here
always cut between a character that is not white space and a space after it, so that a text cut
there can be encoded piece by piece, and most pieces have been met before. All others go through
the library unchanged.
"""

import json
import re
from collections.abc import Sequence
from itertools import accumulate, chain
from typing import Any

import numpy as np
import tokenizers
from numpy.typing import NDArray

Ids = NDArray[np.uint32]

MAX_CACHED_PIECES = 1 << 18
MAX_PIECE_CHARACTERS = 32
JOINED_PIECES = 4096
_CUT = re.compile(r"(?<=\S)(?= )")
_TAIL = r"|[^\r\n\p{L}\p{N}]?\p{L}+|%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_CONTRACTIONS = ("(?i:'s|'t|'re|'ve|'m|'ll|'d)", "'(?i:[sdmt]|ll|ve|re)")
CUTTING_PATTERNS = frozenset(
    contraction + _TAIL % digits
    for contraction in _CONTRACTIONS
    for digits in (r"\p{N}", r"\p{N}{1,3}")
)
"""Splitting patterns of GPT-4, Llama 3 and Qwen 2: in none of them can a match go on from a
character that is not white space to a space."""


class CachedBpeEncoder:
    """Encodes texts with a tokeniser for which `cuts_before_spaces` is true."""

    def __init__(self, model: tokenizers.Tokenizer) -> None:
        self._model = model
        vocabulary = model.get_vocab(with_added_tokens=True)
        self._num_bytes = np.zeros(max(vocabulary.values()) + 1, dtype=np.int64)
        for token, index in vocabulary.items():
            self._num_bytes[index] = len(token)  # one character a byte in the byte alphabet
        self._cache: dict[str, bytes] = {}

    def encode_batch(self, texts: Sequence[str]) -> list[Ids]:
        """Return the ids of each text, equal to the library's."""
        pieces = [_CUT.split(text) for text in texts]
        cache = self._cache
        if len(cache) > MAX_CACHED_PIECES:
            cache.clear()
        new = [piece for piece in set(chain.from_iterable(pieces)) if piece not in cache]
        extra = self._encode_new(new)
        if extra is None:
            return library_ids(self._model, texts)
        cache.update(extra)
        encoded = [b"".join(map(cache.__getitem__, some)) for some in pieces]
        for piece in extra:
            if len(piece) > MAX_PIECE_CHARACTERS:
                del cache[piece]
        return [np.frombuffer(content, dtype=np.uint32) for content in encoded]

    def _encode_new(self, new: list[str]) -> dict[str, bytes] | None:
        """Return the ids of pieces, as bytes; None where a token is not inside one piece."""
        joined = sorted(piece for piece in new if _may_be_joined(piece))
        alone = [piece for piece in new if not _may_be_joined(piece)]
        groups = [joined[i : i + JOINED_PIECES] for i in range(0, len(joined), JOINED_PIECES)]
        groups += [[piece] for piece in alone]
        encoded: dict[str, bytes] = {}
        texts = ["".join(group) for group in groups]
        for group, ids in zip(groups, library_ids(self._model, texts), strict=True):
            piece_ends = list(accumulate(len(piece.encode()) for piece in group))
            token_ends = np.cumsum(self._num_bytes[ids])
            ends = np.searchsorted(token_ends, piece_ends, side="right")
            if not ids.size or not np.array_equal(token_ends[ends - 1], piece_ends):
                return None
            content, start = ids.tobytes(), 0
            for piece, end in zip(group, (ids.itemsize * ends).tolist(), strict=True):
                encoded[piece] = content[start:end]
                start = end
        return encoded


def _may_be_joined(piece: str) -> bool:
    """Tell whether the cuts around a piece stay cuts when other such pieces surround it."""
    return piece.startswith(" ") and not piece[-1].isspace()


def library_ids(model: tokenizers.Tokenizer, texts: Sequence[str]) -> list[Ids]:
    """Return the ids of each text as the library gives them, without special tokens."""
    encodings = model.encode_batch_fast(list(texts), add_special_tokens=False)
    return [np.array(encoding.ids, dtype=np.uint32) for encoding in encodings]


def cuts_before_spaces(text: str) -> bool:
    """Tell from a `tokenizer.json` whether its pieces may be encoded one by one."""
    settings: dict[str, Any] = json.loads(text)
    model = settings["model"]
    plain = model["type"] == "BPE" and not any(
        model.get(key) for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix")
    )
    if not plain or settings.get("normalizer") is not None:
        return False
    if not all(token["special"] for token in settings.get("added_tokens", [])):
        return False
    before = settings.get("pre_tokenizer") or {"type": None}
    return _cutting(before.get("pretokenizers", [before]))


def _cutting(steps: list[dict[str, Any]]) -> bool:
    *first, last = steps
    if last["type"] != "ByteLevel" or last["add_prefix_space"]:
        return False
    if last.get("use_regex", True):
        return all(step["type"] == "Digits" for step in first)
    return len(first) == 1 and _is_known_split(first[0])


def _is_known_split(step: dict[str, Any]) -> bool:
    return (
        step["type"] == "Split"
        and step["behavior"] == "Isolated"
        and not step["invert"]
        and step["pattern"].get("Regex") in CUTTING_PATTERNS
    )
