"""Conversations as text and tokens: the template, and which tokens are answers.

Templates are Jinja, as Hugging Face tokenizers carry them, run in a sandbox. The content of a
message never becomes a special token: only the template's own do.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from data.chat import answer_ends, tool_calls
from data.chat.answer_ends import UNKNOWN_MESSAGE, AnswerEnd, TemplateError, TextSpan
from data.chat.jinja import BREAK, CLOSE, OPEN
from data.chat.messages import ASSISTANT, Message
from data.chat.rendering import TemplateRenderer
from data.errors import DataError
from data.json_text import find_lone_surrogate
from data.tokenization.bpe_cache import Ids
from data.tokenization.tokenizer import Tokenizer

GENERATION = re.compile(r"\{%[-+]?\s*generation\b")
COMMON_ROLES = frozenset({"system", "user", ASSISTANT, "tool"})
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
        self._special_ids = {**info.special_tokens, info.eos_token: info.eos_id}
        added = {token: i for token, i in tokenizer.added_tokens.items() if token.strip()}
        self._end_ids = added | self._special_ids
        self._special = re.compile(f"({answer_ends.token_pattern(list(self._special_ids))})")
        self._ends = answer_ends.token_pattern(list(self._end_ids))

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
    ) -> EncodedConversation:
        """Return a conversation's tokens up to the end of its last answer.

        Each span is tokenized by itself: the tokens of an answer are those that the model will
        have to write after the tokens that precede it.

        Args:
            messages: The conversation.
            variables: Further variables of the template, such as `tools`.
            learned: Indices of the answers that are to be learned. Default: all.

        Raises:
            TemplateError: The template refuses the conversation, does not show its tool calls,
                rewrites earlier turns, or ends an answer with no token.
            DataError: The template does not come to its end.
        """
        if find_lone_surrogate([list(messages), dict(variables or {})]):
            raise TemplateError("a message holds a lone surrogate", "bad_utf8")
        values = _break_special_tokens(dict(variables or {}), self._special)
        form = tool_calls.fitted(
            self._escaped(messages), lambda form: self._renderer.render(form, values)
        )
        end = self.answer_end
        spans = answer_ends.with_ends(
            self._spans(form, values),
            self._ends,
            is_outside=end is not None and end.is_outside,
        )
        return self._joined(spans, learned)

    def encode_prompt(self, messages: Sequence[Message]) -> Ids:
        """Return the tokens after which the model's next answer begins.

        Raises:
            TemplateError: The template refuses the conversation.
        """
        return self._ids(self.render(self._escaped(messages), add_generation_prompt=True))

    @cached_property
    def stop_ids(self) -> frozenset[int]:
        """Tokens that end an answer: the document's end, the template's, and those learned."""
        end = self.answer_end
        shown = [] if end is None or end.token is None else [self._end_ids[end.token]]
        return frozenset({self.tokenizer.info.eos_id, *shown, *self._learned_ends})

    @cached_property
    def answer_end(self) -> AnswerEnd | None:
        """How plain answers end; None: the template takes none of the conversations tried."""
        system: Message = {"role": "system", "content": "s"}
        turn: list[Message] = [
            {"role": "user", "content": QUESTION},
            {"role": ASSISTANT, "content": ANSWER},
        ]
        for messages in ([*turn, *turn], [system, *turn, *turn], turn, [system, *turn]):
            try:
                spans = self._spans(messages, {})
            except TemplateError:
                continue
            return answer_ends.answer_end(spans, ANSWER, self._ends)
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

    def _escaped(self, messages: Sequence[Message]) -> list[Message]:
        """Return messages that make no special token, by themselves or as a part of one."""
        escaped: list[Message] = _break_special_tokens(list(messages), self._special)
        named = (self.tokenizer.info.eos_token, *self.names.values())
        for message in escaped:
            role = message["role"]
            # A template writes '<|' + role + '|>': a role must not make the document's end of it.
            if role not in COMMON_ROLES and role and any(role in token for token in named):
                message["role"] = f"{role[0]}{BREAK}{role[1:]}"
        return escaped

    def _spans(self, messages: Sequence[Message], variables: Mapping[str, Any]) -> list[TextSpan]:
        if GENERATION.search(self.template):
            return self._spans_by_mark(messages, variables)
        return self._spans_by_prefix(messages, variables)

    def _spans_by_prefix(
        self, messages: Sequence[Message], variables: Mapping[str, Any]
    ) -> list[TextSpan]:
        """Identify an answer as what its message adds to the text before it."""
        spans: list[TextSpan] = []
        done = ""
        for index, message in enumerate(messages):
            if message["role"] != ASSISTANT:
                continue
            before = self._renderer.render(messages[:index], variables, add_generation_prompt=True)
            after = self._renderer.render(messages[: index + 1], variables)
            closing = answer_ends.closing_of(done, before, self._ends) if spans else 0
            if closing and closing < len(spans[-1].text):
                # The template ends the conversation here, unless more turns follow (Phi-3).
                done = done[:-closing]
                spans[-1] = replace(spans[-1], text=spans[-1].text[:-closing])
            if not (before.startswith(done) and after.startswith(before)):
                raise TemplateError("the template rewrites earlier turns: cut it into one a turn")
            spans.append(TextSpan(before[len(done) :]))
            spans.append(TextSpan(after[len(before) :], index))
            done = after
        return spans

    def _spans_by_mark(
        self, messages: Sequence[Message], variables: Mapping[str, Any]
    ) -> list[TextSpan]:
        """Identify answers by the template's own `{% generation %}` marks."""
        texts = re.split(f"[{OPEN}{CLOSE}]", self._renderer.render(messages, variables))
        said = [i for i, message in enumerate(messages) if message["role"] == ASSISTANT]
        known = len(said) == len(texts) // 2
        indices = said if known else [UNKNOWN_MESSAGE] * len(texts)
        return [TextSpan(text, indices[i // 2] if i % 2 else None) for i, text in enumerate(texts)]

    def _joined(
        self, spans: Sequence[TextSpan], learned: Collection[int] | None
    ) -> EncodedConversation:
        tokens: list[Ids] = []
        answers: list[tuple[int, int]] = []
        ends = set()
        length = 0
        for span in spans:
            ids = self._ids(span.text)
            if span.ends_document:
                ids = np.append(ids, np.uint32(self.tokenizer.info.eos_id))
            if span.message == UNKNOWN_MESSAGE and learned is not None:
                raise TemplateError(
                    "the template's marks do not tell which message is which answer"
                )
            if (
                span.message is not None
                and ids.size
                and (learned is None or span.message in learned)
            ):
                answers.append((length, length + ids.size))
                token = answer_ends.last_token(span.text, self._ends)
                if token is None or span.ends_document:
                    token = self.tokenizer.info.eos_token
                ends.add(self._end_ids[token])
            tokens.append(ids)
            length += ids.size
        joined = np.concatenate(tokens) if tokens else np.zeros(0, np.uint32)
        return EncodedConversation(joined, answers, frozenset(ends))

    def _ids(self, text: str) -> Ids:
        """Tokenize the template's special tokens as such, and all other text as plain text."""
        sections = self._special.split(text)
        plain = [section.replace(BREAK, "") for section in sections[::2]]
        if find_lone_surrogate(plain):
            raise TemplateError("the text holds a lone surrogate", "bad_utf8")
        encoded = self.tokenizer.encode_batch(plain)
        special = [self._special_ids[section] for section in sections[1::2]]
        joined: list[Ids] = [encoded[0]]
        for token, ids in zip(special, encoded[1:], strict=True):
            joined += [np.array([token], dtype=np.uint32), ids]
        return np.concatenate(joined)


def _break_special_tokens(value: Any, special: re.Pattern[str]) -> Any:
    """Insert a mark into special tokens that messages spell out, so that they stay plain text."""
    if isinstance(value, str):
        while special.search(value):
            value = special.sub(lambda match: f"{match[0][0]}{BREAK}{match[0][1:]}", value)
        return value
    if isinstance(value, dict):
        return {
            _break_special_tokens(key, special): _break_special_tokens(item, special)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [_break_special_tokens(item, special) for item in value]
    return value
