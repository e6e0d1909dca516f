"""Spans of a conversation's text as tokens, equal to those of transformers.

The text is tokenized as a whole, as `apply_chat_template` does. Where an answer begins, the tokens
before it are those of the prompt that a model gets for it: where the whole text has others (a token
that reaches into the answer, white space that a token takes), the prompt's are taken, and the
answer goes on from there.
"""

import re
import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import accumulate, pairwise

import numpy as np

from data.chat.answer_ends import TemplateError, TextSpan
from data.chat.jinja import BREAK
from data.json_text import find_lone_surrogate
from data.tokenization.added_tokens import AddedTokenEncoder, Encoded
from data.tokenization.bpe_cache import Ids
from data.tokenization.tokenizer import Tokenizer

ANCHORS = ("\n", "a", ".", "0", "}")
"""Texts that an answer can stand behind, so that it is not the beginning of a text."""
MAX_CACHED_TEXTS = 4096
MAX_CACHED_CHARACTERS = 256


@dataclass(frozen=True)
class SpanTokens:
    """The tokens of a text, and of each of its spans."""

    ids: Ids
    bounds: list[tuple[int, int]]
    """First and one past the last token of each span."""


class SpanEncoder:
    """Encodes what a template writes with the tokenizer's own way to find added tokens."""

    def __init__(
        self, tokenizer: Tokenizer, special: re.Pattern[str], special_tokens: frozenset[str]
    ) -> None:
        """Take a tokenizer.

        Args:
            tokenizer: Of the model.
            special: Pattern of special tokens, unless a mark breaks them.
            special_tokens: Those that no message may make.
        """
        self._tokenizer = tokenizer
        self._special = special
        self._special_tokens = special_tokens

    @cached_property
    def _own(self) -> "_TextEncoder":
        return _TextEncoder(self._tokenizer, self._special_tokens, {})

    @cached_property
    def _renamed(self) -> "_TextEncoder":
        """An encoder that knows special tokens by names that no message can spell."""
        letters = str.maketrans("0123456789", "abcdefghij")  # no normalizer changes these
        name = f"q{secrets.randbits(64)}x".translate(letters)
        names = {
            token: f"{name}{number}z".translate(letters)
            for number, token in enumerate(sorted(self._special_tokens))
        }
        return _TextEncoder(self._tokenizer, self._special_tokens, names)

    def encode(self, spans: Sequence[TextSpan]) -> SpanTokens:
        """Return the tokens of consecutive spans.

        Raises:
            TemplateError: The text holds a lone surrogate, or what a message spells cannot be told
                from the template's own special tokens.
            DataError: The vocabulary cannot express the text.
        """
        texts = [span.text for span in spans]
        is_answer = [span.message is not None for span in spans]
        plain = [text.replace(BREAK, "") for text in texts]
        if find_lone_surrogate(plain):
            raise TemplateError("the text holds a lone surrogate", "bad_utf8")
        if plain == texts:
            found = self._own.encode(plain, is_answer)
            if found is not None:
                return found
        names = self._renamed.names
        plain = [self._special.sub(lambda m: names[m[0]], text).replace(BREAK, "")
                 for text in texts]  # fmt: skip
        found = self._renamed.encode(plain, is_answer)
        if found is None:
            raise TemplateError(
                "a message spells a special token, and the tokenizer does not find all of the"
                " template's own",
                "special_token",
            )
        return found


class _TextEncoder:
    """Encodes texts whose special tokens have given names."""

    def __init__(
        self, tokenizer: Tokenizer, special_tokens: Collection[str], names: Mapping[str, str]
    ) -> None:
        """Make an encoder.

        Args:
            tokenizer: Of the model.
            special_tokens: Its special tokens.
            names: Other names of all of these; empty: they have their own.
        """
        self.names = names
        self._encoder = AddedTokenEncoder(tokenizer, names)
        added, unknown_id = dict(self._encoder.added_tokens), self._encoder.unknown_id
        # Other text becomes the unknown token, too.
        unknown = None if unknown_id is None else added.pop(unknown_id, None)
        self._special_names = frozenset(names.values() or special_tokens) - {unknown}
        renamed = [re.escape(name) for name in names.values() if name != unknown]
        self._names = re.compile("|".join(renamed)) if renamed else None
        self._is_added, self._is_special, self._is_boundary = np.zeros(
            (3, tokenizer.info.vocab_size), dtype=bool
        )
        self._is_added[list(added)] = True
        self._is_special[[i for i, name in added.items() if name in self._special_names]] = True
        self._is_boundary[list(self._encoder.boundaries & added.keys())] = True
        self._short = lru_cache(MAX_CACHED_TEXTS)(self._encoder.encode)

    def encode(self, texts: Sequence[str], is_answer: Sequence[bool]) -> SpanTokens | None:
        """Return the tokens of consecutive texts; None where special tokens are not as written."""
        text = "".join(texts)
        found = self._encoder.encode(text)
        if not self._is_as_written(text, found):
            return None
        borders = [0, *accumulate(map(len, texts))]
        cut = 0
        for start, answers in zip(borders, is_answer, strict=False):
            if answers and start:
                tokens = self._after_its_prompt(text, found, start, cut)
                if tokens is not found:
                    found, cut = tokens, start
        bounds = [self._bounds(text, found, a, b) for a, b in pairwise(borders)]
        return SpanTokens(found.ids, bounds)

    def _is_as_written(self, text: str, found: Encoded) -> bool:
        """Return whether special tokens are where a text has their names.

        A message may spell one in a way that no pattern shows: by what the tokenizer normalizes.
        Where they have other names, all of these have to be tokens.
        """
        indices = np.flatnonzero(self._is_special[found.ids])
        written = [text[found.starts[i] : found.ends[i]] for i in indices]
        if not all({part, part.strip()} & self._special_names for part in written):
            return False
        return self._names is None or len(self._names.findall(text)) == indices.size

    def _after_its_prompt(self, text: str, found: Encoded, start: int, cut: int) -> Encoded:
        """Return tokens of a text such that those before an answer are those of its prompt.

        Args:
            text: The text.
            found: Its tokens.
            start: Where the answer begins.
            cut: Where the last answer begins that stands apart from its prompt.
        """
        before = int((found.starts < start).sum())
        first = int((found.starts < cut).sum())
        boundaries = np.flatnonzero(self._is_boundary[found.ids[first:before]])
        if boundaries.size:
            first += int(boundaries[-1])
            prompt = self._moved(text[found.starts[first] : start], int(found.starts[first]))
        elif cut:
            prompt = self._continuation(text[cut:start], cut)
        else:
            prompt = self._moved(text[:start], 0)
        if np.array_equal(prompt.ids, found.ids[first:before]):
            return found
        later = np.flatnonzero(self._is_boundary[found.ids[before:]])
        rest = _part(found, slice(before + int(later[0]), None) if later.size else slice(0))
        answer = text[start : rest.starts[0] if later.size else None]
        parts = (_part(found, slice(first)), prompt, self._continuation(answer, start), rest)
        return Encoded(
            np.concatenate([part.ids for part in parts]),
            np.concatenate([part.starts for part in parts]),
            np.concatenate([part.ends for part in parts]),
        )

    def _continuation(self, text: str, position: int) -> Encoded:
        """Return the tokens of a text that stands at a position behind other text."""
        for anchor in ANCHORS:
            before = self._encoded(anchor).ids
            found = self._encoder.encode(anchor + text)
            rest = slice(before.size, None)
            is_apart = (found.ends[: before.size] <= len(anchor)).all()
            is_apart &= (found.starts[rest] >= len(anchor)).all()
            if before.size and is_apart and np.array_equal(before, found.ids[: before.size]):
                return _part(found, rest, position - len(anchor))
        return self._moved(text, position)

    def _moved(self, text: str, position: int) -> Encoded:
        """Return the tokens of a text that stands at a position."""
        return _part(self._encoded(text), slice(None), position)

    def _encoded(self, text: str) -> Encoded:
        short = len(text) <= MAX_CACHED_CHARACTERS
        return self._short(text) if short else self._encoder.encode(text)

    def _bounds(self, text: str, found: Encoded, start: int, end: int) -> tuple[int, int]:
        """Return the tokens of a span; one that reaches out of it is the next span's."""
        first, last = (int((found.starts < border).sum()) for border in (start, end))
        if last > first and found.ends[last - 1] > end:
            # A token that takes the white space behind it belongs to where it stands itself.
            is_here = text[found.starts[last - 1] : end].strip()
            last -= not (is_here and self._is_added[found.ids[last - 1]])
        return first, last


def _part(found: Encoded, tokens: slice, shift: int = 0) -> Encoded:
    """Return some tokens, moved by a number of characters."""
    return Encoded(found.ids[tokens], found.starts[tokens] + shift, found.ends[tokens] + shift)
