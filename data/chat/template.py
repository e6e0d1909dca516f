"""Conversations as text and tokens: the template, and which tokens are answers.

Templates are Jinja, as Hugging Face tokenizers carry them, run in a sandbox. The content of a
message never becomes a special token: only the template's own do.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from data.chat.examples import ASSISTANT, Message
from data.chat.jinja import CLOSE, OPEN, compile_template
from data.errors import InputError
from data.tokenization.bpe_cache import Ids
from data.tokenization.tokenizer import Tokenizer

PRIVATE = range(0xE000, 0xF8FE)
"""Unicode's private use area, where a character is found that a conversation does not contain."""
GENERATION = re.compile(r"\{%[-+]?\s*generation\b")


class TemplateError(InputError):
    """A conversation that its template refuses, or whose answers cannot be identified."""


@dataclass(frozen=True)
class TextSpan:
    """Consecutive text of a conversation that is either an answer or not."""

    text: str
    is_answer: bool


@dataclass(frozen=True)
class EncodedConversation:
    """A conversation in tokens."""

    tokens: Ids
    answers: list[tuple[int, int]]
    """First and one past the last token of each answer."""


class ChatTemplate:
    """Turns conversations into tokens with one template and one tokenizer."""

    def __init__(self, template: str, tokenizer: Tokenizer, names: dict[str, str] | None = None):
        """Compile a template.

        Args:
            template: Its Jinja text.
            tokenizer: Of the model.
            names: Further variables of the template, for example `bos_token`.

        Raises:
            DataError: It is not Jinja.
        """
        self.template = template
        self.names = names or {}
        self._tokenizer = tokenizer
        self._compiled = compile_template(template)
        special = sorted(tokenizer.info.special_tokens, key=len, reverse=True)
        self._special = re.compile(f"({'|'.join(map(re.escape, special))})") if special else None

    def render(self, messages: Sequence[Message], *, add_generation_prompt: bool = False) -> str:
        """Return a conversation's text; `add_generation_prompt` adds what precedes an answer.

        Raises:
            TemplateError: The template refuses the conversation.
        """
        import jinja2

        try:
            text: str = self._compiled.render(
                messages=messages,
                add_generation_prompt=add_generation_prompt,
                **{"eos_token": self._tokenizer.info.eos_token, **self.names},
            )
        except (jinja2.TemplateError, TypeError, KeyError) as error:
            raise TemplateError(f"the template refuses it: {error}") from None
        return text

    def encode(self, messages: Sequence[Message]) -> EncodedConversation:
        """Return a conversation's tokens up to the end of its last answer.

        Each span is tokenized by itself: the tokens of an answer are those that the model will
        have to write after the tokens that precede it.

        Raises:
            TemplateError: The template refuses the conversation, or rewrites earlier turns.
        """
        mark = _unused_character(messages)
        tokens: list[Ids] = []
        answers = []
        length = 0
        for span in self._spans(_break_special_tokens(list(messages), self._special, mark)):
            ids = self._ids(span.text, mark)
            if span.is_answer and ids.size:
                answers.append((length, length + ids.size))
            tokens.append(ids)
            length += ids.size
        joined = np.concatenate(tokens) if tokens else np.zeros(0, np.uint32)
        return EncodedConversation(joined, answers)

    def encode_prompt(self, messages: Sequence[Message]) -> Ids:
        """Return the tokens after which the model's next answer begins."""
        mark = _unused_character(messages)
        escaped = _break_special_tokens(list(messages), self._special, mark)
        return self._ids(self.render(escaped, add_generation_prompt=True), mark)

    @cached_property
    def stop_ids(self) -> frozenset[int]:
        """Tokens that end an answer: the end-of-document token, and what the template adds."""
        stops = {self._tokenizer.info.eos_id}
        question: list[Message] = [{"role": "user", "content": "x"}]
        answered = [*question, {"role": ASSISTANT, "content": "y"}]
        try:
            ending = re.sub(f"[{OPEN}{CLOSE}]", "", self.render(answered))
            prompt = self.render(question, add_generation_prompt=True)
            ending = ending[len(prompt) :].partition("y")[2]
        except TemplateError:  # a template that requires other turns: its end is not known
            return frozenset(stops)
        match = self._special and self._special.match(ending)
        if match:
            stops.add(self._tokenizer.info.special_tokens[match[0]])
        return frozenset(stops)

    def _spans(self, messages: Sequence[Message]) -> Iterator[TextSpan]:
        if GENERATION.search(self.template):
            return self._spans_by_mark(messages)
        return self._spans_by_prefix(messages)

    def _spans_by_prefix(self, messages: Sequence[Message]) -> Iterator[TextSpan]:
        """Identify an answer as what its message adds to the text before it."""
        done = ""
        for index, message in enumerate(messages):
            if message["role"] != ASSISTANT:
                continue
            before = self.render(messages[:index], add_generation_prompt=True)
            after = self.render(messages[: index + 1])
            if not (before.startswith(done) and after.startswith(before)):
                raise TemplateError("the template rewrites earlier turns: cut it into one a turn")
            yield TextSpan(before[len(done) :], is_answer=False)
            yield TextSpan(after[len(before) :], is_answer=True)
            done = after

    def _spans_by_mark(self, messages: Sequence[Message]) -> Iterator[TextSpan]:
        """Identify answers by the template's own `{% generation %}` marks."""
        texts = re.split(f"[{OPEN}{CLOSE}]", self.render(messages))
        last = len(texts) - 1 if len(texts) % 2 else len(texts)
        return (TextSpan(text, is_answer=bool(i % 2)) for i, text in enumerate(texts[:last]))

    def _ids(self, text: str, mark: str) -> Ids:
        """Tokenize the template's special tokens as such, and all other text as plain text."""
        sections = self._special.split(text) if self._special else [text]
        plain = [section.replace(mark, "") for section in sections[::2]]
        encoded = self._tokenizer.encode_batch(plain)
        special = [self._tokenizer.info.special_tokens[section] for section in sections[1::2]]
        joined: list[Ids] = [encoded[0]]
        for token, ids in zip(special, encoded[1:], strict=True):
            joined += [np.array([token], dtype=np.uint32), ids]
        return np.concatenate(joined)


def _unused_character(messages: Sequence[Message]) -> str:
    """Return a character that no message contains."""
    used = set(json.dumps(messages, ensure_ascii=False))
    return next(chr(code) for code in PRIVATE if chr(code) not in used)


def _break_special_tokens(value: Any, special: re.Pattern[str] | None, mark: str) -> Any:
    """Insert a mark into special tokens that messages spell out, so that they stay plain text."""
    if special is None:
        return value
    if isinstance(value, str):
        return special.sub(lambda match: f"{match[0][0]}{mark}{match[0][1:]}", value)
    if isinstance(value, dict):
        return {key: _break_special_tokens(item, special, mark) for key, item in value.items()}
    if isinstance(value, list):
        return [_break_special_tokens(item, special, mark) for item in value]
    return value
