"""Exact, faster encoding for byte-level BPE: every distinct segment of text is encoded once.

Byte-level BPE never merges across the boundaries that its pre-tokenizer sets. The pre-tokenizers
known here always set one between a character that is not white space and a space after it, so that
text split there can be encoded segment by segment, most of which are in the cache. Texts of other
tokenizers go through the library unchanged.
"""

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate, chain
from typing import Any

import numpy as np
import tokenizers
from numpy.typing import NDArray

from data.errors import DataError
from data.tokenization.library_errors import is_of_the_library

Ids = NDArray[np.uint32]

MAX_CACHED_SEGMENTS = 1 << 18
MAX_SEGMENT_CHARACTERS = 32
JOINED_SEGMENTS = 4096
_BOUNDARY = re.compile(r"(?<=\S)(?= )")
_TAIL = r"|[^\r\n\p{L}\p{N}]?\p{L}+|%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_CONTRACTIONS = ("(?i:'s|'t|'re|'ve|'m|'ll|'d)", "'(?i:[sdmt]|ll|ve|re)")
SPLITTING_PATTERNS = frozenset(
    contraction + _TAIL % digits
    for contraction in _CONTRACTIONS
    for digits in (r"\p{N}", r"\p{N}{1,3}")
)
"""Splitting patterns of GPT-4, Llama 3 and Qwen 2: in none of them can a match go on from a
character that is not white space to a space."""


class CachedBpeEncoder:
    """Encodes texts with a tokenizer for which `splits_before_spaces` is true."""

    def __init__(self, model: tokenizers.Tokenizer) -> None:
        self._model = model
        vocabulary = model.get_vocab(with_added_tokens=True)
        self.num_bytes = np.zeros(max(vocabulary.values()) + 1, dtype=np.int64)
        """Bytes of each token."""
        for token, index in vocabulary.items():
            self.num_bytes[index] = len(token)  # one character a byte in the byte alphabet
        self._cache: dict[str, bytes] = {}

    def encode_batch(self, texts: Sequence[str]) -> list[Ids]:
        """Return the ids of each text, equal to the library's."""
        segments = [_BOUNDARY.split(text) if text else [] for text in texts]
        cache = self._cache
        if len(cache) > MAX_CACHED_SEGMENTS:
            cache.clear()
        new = [segment for segment in set(chain.from_iterable(segments)) if segment not in cache]
        extra = self._encode_new(new)
        if extra is None:
            return library_ids(self._model, texts)
        cache.update(extra)
        encoded = [b"".join(map(cache.__getitem__, some)) for some in segments]
        for segment in extra:
            if len(segment) > MAX_SEGMENT_CHARACTERS:
                del cache[segment]
        return [np.frombuffer(content, dtype=np.uint32) for content in encoded]

    def _encode_new(self, new: list[str]) -> dict[str, bytes] | None:
        """Return the ids of segments, as bytes; None where a token spans two segments."""
        joined = sorted(segment for segment in new if _may_be_joined(segment))
        separate = [segment for segment in new if not _may_be_joined(segment)]
        groups = [joined[i : i + JOINED_SEGMENTS] for i in range(0, len(joined), JOINED_SEGMENTS)]
        groups += [[segment] for segment in separate]
        encoded: dict[str, bytes] = {}
        texts = ["".join(group) for group in groups]
        for group, ids in zip(groups, library_ids(self._model, texts), strict=True):
            segment_ends = list(accumulate(len(segment.encode()) for segment in group))
            token_ends = np.cumsum(self.num_bytes[ids])
            ends = np.searchsorted(token_ends, segment_ends, side="right")
            if not ids.size or not np.array_equal(token_ends[ends - 1], segment_ends):
                return None
            content, start = ids.tobytes(), 0
            for segment, end in zip(group, (ids.itemsize * ends).tolist(), strict=True):
                encoded[segment] = content[start:end]
                start = end
        return encoded


def _may_be_joined(segment: str) -> bool:
    """Return whether a segment keeps its boundaries when other such segments surround it."""
    return segment.startswith(" ") and not segment[-1].isspace()


def library_ids(model: tokenizers.Tokenizer, texts: Sequence[str]) -> list[Ids]:
    """Return the ids of each text as the library gives them, without special tokens.

    Raises:
        DataError: The vocabulary cannot express a text.
    """
    with refuse_unencodable():
        encodings = model.encode_batch_fast(list(texts), add_special_tokens=False)
    return [np.array(encoding.ids, dtype=np.uint32) for encoding in encodings]


@contextmanager
def refuse_unencodable() -> Iterator[None]:
    """Raise DataError where the library refuses a text."""
    try:
        yield
    except BaseException as error:
        if not is_of_the_library(error):
            raise
        raise DataError(
            f"the tokenizer cannot encode a text ({error}): take one that covers every text, as"
            " byte-level tokenizers do"
        ) from None


def splits_before_spaces(text: str) -> bool:
    """Return whether a `tokenizer.json` allows its segments to be encoded one by one."""
    settings: dict[str, Any] = json.loads(text)
    model = settings["model"]
    plain = model.get("type") == "BPE" and not any(
        model.get(key) for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix")
    )
    if not plain or settings.get("normalizer") is not None:
        return False
    if not all(token.get("special") for token in settings.get("added_tokens", [])):
        return False
    before = settings.get("pre_tokenizer") or {"type": None}
    return _is_splitting(before.get("pretokenizers", [before]))


def _is_splitting(steps: list[dict[str, Any]]) -> bool:
    *first, last = steps or [{"type": None}]
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
        and step["pattern"].get("Regex") in SPLITTING_PATTERNS
    )
