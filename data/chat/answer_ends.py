"""Where answers end: the tokens after which a model stops.

An answer without a token that ends it, or whose end is not learned, makes a model that never stops.
A template ends answers in one of these ways:

- by a token within the answer's text (`<|im_end|>`, `<|eot_id|>`, the end-of-document token);
- by what follows: the role token of the next message (GLM-4), or a token that the template writes
  after `{% endgeneration %}`. It is then learned with the answer; where nothing follows the last
  answer, the end of the document is.

Some write another token behind earlier answers than behind the last one. It is an end, too, unless
it also stands within answers, as gpt-oss's `<|end|>` between a thought and what is said: a model
that stopped there would never say it. Such answers end with no token that is learned.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from data.chat.jinja import BREAK
from data.errors import InputError

UNKNOWN_MESSAGE = -1
MAX_TOKEN_CHARACTERS = 256
"""Longest token that is looked for at the end of an answer."""


class TemplateError(InputError):
    """A conversation that its template refuses, or whose answers cannot be identified."""

    def __init__(self, message: str, reason: str = "template") -> None:
        super().__init__(message if reason == "template" else f"{reason}: {message}")
        self.reason = reason
        """The word under which the conversation is counted as dropped."""


@dataclass(frozen=True)
class TextSpan:
    """Consecutive text of a conversation that is either an answer or not."""

    text: str
    message: int | None = None
    """The index of the message it answers with; None: it is no answer."""
    ends_document: bool = False
    """Whether the end-of-document token follows, as a part of it."""


@dataclass(frozen=True)
class AnswerEnd:
    """How a template ends a plain answer."""

    token: str | None
    """The first token behind the answer's text; None: text that is no single token."""
    text: str
    """What stands behind the answer's text; empty where it was seen at the end only."""
    is_outside: bool
    """Whether it follows the answer, rather than being a part of it."""
    is_shown: bool = True
    """Whether the answer's text is there at all."""


def token_pattern(tokens: Sequence[str]) -> str:
    """Return a pattern of tokens, unless the message spelled them out; the longest one wins."""
    longest_first = sorted(tokens, key=len, reverse=True)
    return f"(?:{'|'.join(map(re.escape, longest_first))})(?!{BREAK})"


def last_token(text: str, tokens: str) -> str | None:
    """Return the token that a text ends with, white space apart; None: it ends with none."""
    match = re.search(rf"({tokens})\Z", text.rstrip()[-MAX_TOKEN_CHARACTERS:])
    return None if match is None else match[1]


def closing_of(text: str, longer: str, tokens: str) -> int:
    """Return how many characters close a conversation's text that the longer one does not have.

    They are tokens and white space; 0 where the longer text does not go on from the rest.
    """
    rest = text
    while not longer.startswith(rest):
        match = re.search(rf"(?:{tokens}|\s)\Z", rest[-MAX_TOKEN_CHARACTERS:])
        if match is None:
            return 0
        rest = rest[: -len(match[0])]
    return len(text) - len(rest)


def with_ends(
    spans: Sequence[TextSpan], tokens: str, *, is_outside: bool, inner: Collection[str] = ()
) -> list[TextSpan]:
    """Return spans up to the last answer, each of which includes the token that ends it.

    Args:
        spans: Of one conversation, in order.
        tokens: Pattern of the tokens that can end an answer.
        is_outside: Whether the last plain answer of this template is ended by what follows it.
        inner: Tokens that end no answer of a template whose last answers have an end of their own.

    Raises:
        TemplateError: An answer has no end.
    """
    done: list[TextSpan] = []
    rest = list(spans)
    last = max((i for i, span in enumerate(spans) if span.message is not None), default=-1)
    for i in range(last + 1):
        span = rest[i]
        ends_inside = last_token(span.text, tokens) is not None
        if span.message is None or (ends_inside and not is_outside):
            done.append(span)
            continue
        following = rest[i + 1] if i + 1 < len(rest) else TextSpan("")
        match = re.match(rf"\s*({tokens})", following.text)
        if following.message is None and match is not None:
            if match[1] in inner and not is_outside:
                done.append(span)
                continue
            done.append(replace(span, text=span.text + match[0]))
            rest[i + 1 : i + 2] = [replace(following, text=following.text[match.end() :])]
        elif ends_inside:
            done.append(span)
        elif i == last and not following.text.strip():
            done.append(replace(span, ends_document=True))
        else:
            raise TemplateError(
                f"an answer ends with {following.text[:20]!r}, which is no token of its own",
                "no_end_token",
            )
    return done


def answer_end(spans: Sequence[TextSpan], answer: str, tokens: str) -> AnswerEnd:
    """Return how answers end whose content is `answer`: the last one; the first if nothing does."""
    shown = [i for i, span in enumerate(spans) if answer in span.text]
    if not shown:
        return AnswerEnd(None, "", is_outside=False, is_shown=False)
    last = _end_behind(spans, shown[-1], answer, tokens)
    return last if last.text.strip() else _end_behind(spans, shown[0], answer, tokens)


def inner_tokens(spans: Sequence[TextSpan], answer: str, tokens: str) -> frozenset[str]:
    """Return the tokens within answers that stand before their content, which is `answer`."""
    said = [span.text for span in spans if span.message is not None and answer in span.text]
    before = (text.partition(answer)[0] for text in said)
    return frozenset(token for text in before for token in re.findall(tokens, text))


def _end_behind(spans: Sequence[TextSpan], i: int, answer: str, tokens: str) -> AnswerEnd:
    inside = spans[i].text.partition(answer)[2]
    match = re.search(tokens, inside)
    if match is not None:
        return AnswerEnd(match[0], inside, is_outside=False)
    following = spans[i + 1].text if i + 1 < len(spans) else ""
    match = re.match(rf"\s*({tokens})", following)
    return AnswerEnd(None if match is None else match[1], inside + following, is_outside=True)
