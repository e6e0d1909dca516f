"""Conversations as text and tokens: the template, and which tokens are answers.

Templates are Jinja, as Hugging Face tokenizers carry them, run in a sandbox. The content of a
message never becomes a special token: only the template's own do.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from data.chat import answer_ends, spans, tool_calls
from data.chat.answer_ends import UNKNOWN_MESSAGE, AnswerEnd, TemplateError, TextSpan
from data.chat.jinja import CLOSE, OPEN
from data.chat.messages import ASSISTANT, REASONING_KEYS, Message
from data.chat.rendering import TemplateRenderer
from data.chat.shown import ShownMessages, is_silent
from data.chat.span_tokens import SpanEncoder
from data.chat.spelling import broken_messages, broken_tokens
from data.errors import DataError
from data.json_text import find_lone_surrogate
from data.tokenization.bpe_cache import Ids
from data.tokenization.tokenizer import Tokenizer

QUESTION, ANSWER = "qxq", "zwz"
"""Contents of the conversation that shows how a template ends answers."""


@dataclass(frozen=True)
class EncodedConversation:
    """A conversation in tokens."""

    tokens: Ids
    answers: list[tuple[int, int]]
    """First and one past the last token of each answer that is to be learned."""
    ends: frozenset[int] = frozenset()
    """The tokens that end these answers."""


class ChatTemplate:
    """Turns conversations into tokens with one template and one tokenizer."""

    def __init__(
        self,
        template: str,
        tokenizer: Tokenizer,
        names: dict[str, str] | None = None,
        learned_ends: Collection[int] = (),
    ) -> None:
        """Compile a template.

        Args:
            template: Its Jinja text.
            tokenizer: Of the model.
            names: Further variables of the template, for example `bos_token`.
            learned_ends: Tokens that are known to end answers.

        Raises:
            DataError: It is not Jinja.
        """
        self.template = template
        self.names = names or {}
        self.tokenizer = tokenizer
        self._renderer = TemplateRenderer(
            template, {"eos_token": tokenizer.info.eos_token} | self.names
        )
        self._learned_ends = frozenset(learned_ends)
        info = tokenizer.info
        # Of one character, as a padding token `!`, it is a token of plain text as well.
        special_ids = {token: i for token, i in info.special_tokens.items() if len(token) > 1}
        special_ids[info.eos_token] = info.eos_id
        added = {token: i for token, i in tokenizer.added_tokens.items() if token.strip()}
        self._end_ids = added | special_ids
        self._tokens = frozenset({*self._end_ids, *self.names.values()})
        self._special = re.compile(f"({answer_ends.token_pattern(list(special_ids))})")
        self._ends = answer_ends.token_pattern(list(self._end_ids))
        self._encoder = SpanEncoder(tokenizer, self._special, frozenset(special_ids))
        self._shown = ShownMessages()

    @property
    def variables(self) -> frozenset[str]:
        """Variables that the template reads, other than messages and what `--template` gives."""
        return self._renderer.variables

    def render(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = False,
        variables: Mapping[str, Any] | None = None,
    ) -> str:
        """Return a conversation's text; `add_generation_prompt` adds what precedes an answer.

        Args:
            messages: The conversation.
            add_generation_prompt: Whether an answer is to follow.
            variables: Further variables of the template, such as `tools`.

        Raises:
            TemplateError: The template refuses the conversation.
            DataError: The template does not come to its end.
        """
        text = self._renderer.render(
            messages, variables or {}, add_generation_prompt=add_generation_prompt
        )
        return re.sub(f"[{OPEN}{CLOSE}]", "", text)

    def encode(
        self,
        messages: Sequence[Message],
        *,
        variables: Mapping[str, Any] | None = None,
        learned: Collection[int] | None = None,
        may_be_silent: bool = False,
    ) -> EncodedConversation:
        """Return a conversation's tokens up to the end of the last answer that is to be learned.

        Args:
            messages: The conversation.
            variables: Further variables of the template, such as `tools`.
            learned: Indices of the answers that are to be learned. Default: all.
            may_be_silent: Whether learned answers may be empty.

        Raises:
            TemplateError: The template refuses the conversation, does not show a message or its
                tool calls, rewrites an answer to be learned when more turns follow, ends one with
                no token, or shows one that says nothing.
            DataError: The template does not come to its end.
        """
        if find_lone_surrogate([list(messages), dict(variables or {})]):
            raise TemplateError("a message holds a lone surrogate", "bad_utf8")
        if learned is not None:
            messages = messages[: max(learned, default=-1) + 1]
        values = broken_tokens(dict(variables or {}), self._special)
        form = tool_calls.fitted(
            self._broken(messages), lambda form: self._renderer.render(form, values)
        )
        found = self._ended_spans(form, values, learned)
        said = [i for i, message in enumerate(form) if message["role"] == ASSISTANT]
        self._shown.check(
            form[: said[-1] + 1] if said else [],
            "".join(span.text for span in found),
            lambda form: self._renderer.render(form, values),
        )
        taught = [self._is_taught(span, learned) for span in found]
        for span, is_taught in zip(found, taught, strict=True):
            if is_taught and not may_be_silent:
                self._refuse_silence(span, form, values, learned)
        return self._encoded(found, taught)

    def encode_prompt(self, messages: Sequence[Message]) -> Ids:
        """Return the tokens after which the model's next answer begins.

        Raises:
            TemplateError: The template refuses the conversation, or does not show a message.
        """
        form = self._broken(messages)
        text = self.render(form, add_generation_prompt=True)
        self._shown.check(form, text, lambda form: self.render(form, add_generation_prompt=True))
        return self._encoder.encode([TextSpan(text)]).ids

    @cached_property
    def stop_ids(self) -> frozenset[int]:
        """Tokens that end an answer: the document's end, the template's, and those learned."""
        end = self.answer_end
        shown = [] if end is None or end.token is None else [self._end_ids[end.token]]
        return frozenset({self.tokenizer.info.eos_id, *shown, *self._learned_ends})

    @cached_property
    def answer_end(self) -> AnswerEnd | None:
        """How plain answers end; None: the template takes none of the conversations tried."""
        for count in (2, 1):
            found = self._tried(count, {"role": ASSISTANT, "content": ANSWER})
            if found is not None:
                return answer_ends.answer_end(found, ANSWER, self._ends)
        return None

    @cached_property
    def _inner_tokens(self) -> frozenset[str]:
        """Tokens before what a thoughtful answer says, but for the one that ends plain answers."""
        thought = dict.fromkeys(REASONING_KEYS, QUESTION)
        found = self._tried(1, {"role": ASSISTANT, "content": ANSWER, **thought})
        end = self.answer_end
        return answer_ends.inner_tokens(found or [], ANSWER, self._ends) - {end and end.token}

    def _tried(self, count: int, answer: Message) -> list[TextSpan] | None:
        """Return the spans of a question and an answer, `count` times; None: they are refused."""
        turns = [{"role": "user", "content": QUESTION}, answer] * count
        for messages in (turns, [{"role": "system", "content": "s"}, *turns]):
            try:
                return self._spans(messages, {})
            except TemplateError:
                continue
        return None

    def check_answer_end(self) -> None:
        """Refuse a template after whose answers a model would not stop.

        Raises:
            DataError: Answers end with no token, or the template does not show them.
        """
        end = self.answer_end
        if end is None or end.token is not None or (end.is_shown and not end.text.strip()):
            return
        if not end.is_shown:
            raise DataError(
                "chat template: does not show the content of messages that is a text: use one that"
                " does, for example --template plain"
            )
        text = end.text.replace(QUESTION, "...")[:40]
        raise DataError(
            f"chat template: an answer ends with {text!r}, which is no token of the tokenizer: a"
            " model that learned from it would not stop: write {{ eos_token }} behind the answer's"
            " content, or use --template plain"
        )

    def _broken(self, messages: Sequence[Message]) -> list[Message]:
        return broken_messages(messages, self._special, self._tokens, self._renderer.strings)

    def _spans(
        self,
        messages: Sequence[Message],
        variables: Mapping[str, Any],
        learned: Collection[int] | None = None,
    ) -> list[TextSpan]:
        return spans.text_spans(self._renderer, messages, variables, self._ends, learned)

    def _ended_spans(
        self,
        messages: Sequence[Message],
        variables: Mapping[str, Any],
        learned: Collection[int] | None,
    ) -> list[TextSpan]:
        end = self.answer_end
        is_outside = end is not None and end.is_outside
        found = self._spans(messages, variables, learned)
        return answer_ends.with_ends(
            found, self._ends, is_outside=is_outside, inner=self._inner_tokens
        )

    def _is_taught(self, span: TextSpan, learned: Collection[int] | None) -> bool:
        if span.message == UNKNOWN_MESSAGE and learned is not None:
            raise TemplateError("the template's marks do not tell which message is which answer")
        return span.message is not None and (learned is None or span.message in learned)

    def _refuse_silence(
        self,
        span: TextSpan,
        messages: Sequence[Message],
        variables: Mapping[str, Any],
        learned: Collection[int] | None,
    ) -> None:
        """Refuse an answer that shows nothing: a model would learn to end at once."""
        index = span.message
        assert index is not None
        is_known = index != UNKNOWN_MESSAGE

        def empty() -> list[TextSpan]:
            silent = {"role": ASSISTANT, "content": ""}
            others = [*messages[:index], silent, *messages[index + 1 :]]
            return self._ended_spans(others, variables, learned)

        message = messages[index] if is_known else None
        if is_silent(span, message, self._ends, empty):
            named = f"message {index + 1}" if is_known else "an answer"
            raise TemplateError(f"{named} shows no text of its own", "empty_answer")

    def _encoded(self, found: Sequence[TextSpan], taught: Sequence[bool]) -> EncodedConversation:
        encoded = self._encoder.encode(found)
        ids, info = encoded.ids, self.tokenizer.info
        if found and found[-1].ends_document:
            ids = np.append(ids, np.uint32(info.eos_id))
        answers: list[tuple[int, int]] = []
        ends = set()
        for span, (first, end), is_taught in zip(found, encoded.bounds, taught, strict=True):
            last = ids.size if span.ends_document else end
            if not is_taught or first == last:
                continue
            answers.append((first, last))
            token = answer_ends.last_token(span.text, self._ends)
            if span.ends_document:
                token = info.eos_token
            if token is None or token in self._inner_tokens:
                continue
            end_id = self._end_ids[token]
            if end_id not in ids[first:last]:
                raise TemplateError(
                    f"the tokenizer makes no token of {token!r} at the end of an answer",
                    "no_end_token",
                )
            ends.add(end_id)
        return EncodedConversation(ids, answers, frozenset(ends))
