"""Which text of a conversation is which answer."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from data.chat import answer_ends
from data.chat.answer_ends import UNKNOWN_MESSAGE, TemplateError, TextSpan
from data.chat.jinja import CLOSE, OPEN
from data.chat.messages import ASSISTANT, Message
from data.chat.rendering import TemplateRenderer

MAX_SHOWN_CHARACTERS = 40


def text_spans(
    renderer: TemplateRenderer,
    messages: Sequence[Message],
    variables: Mapping[str, Any],
    ends: str,
    learned: Collection[int] | None = None,
) -> list[TextSpan]:
    """Return the consecutive spans of a conversation's text.

    Args:
        renderer: Of its template.
        messages: The conversation.
        variables: Further variables of the template.
        ends: Pattern of the tokens that can end an answer.
        learned: Indices of the answers to be learned; the template may rewrite others. None: all.

    Raises:
        TemplateError: The template refuses the conversation, or answers cannot be told in it.
        DataError: The template does not come to its end.
    """
    if renderer.marks_answers:
        return _by_mark(renderer, messages, variables)
    said = [i for i, message in enumerate(messages) if message["role"] == ASSISTANT]
    wanted = said if learned is None else [i for i in said if i in learned]
    return _by_prefix(renderer, messages, variables, ends, wanted)


def _by_prefix(
    renderer: TemplateRenderer,
    messages: Sequence[Message],
    variables: Mapping[str, Any],
    ends: str,
    answers: Sequence[int],
) -> list[TextSpan]:
    """Identify an answer as what its message adds to the text before it."""
    spans: list[TextSpan] = []
    done = ""
    for index in answers:
        before = renderer.render(messages[:index], variables, add_generation_prompt=True)
        after = renderer.render(messages[: index + 1], variables)
        closing = answer_ends.closing_of(done, before, ends) if spans else 0
        if closing and closing < len(spans[-1].text):
            # The template ends the conversation here, unless more turns follow (Phi-3).
            done = done[:-closing]
            spans[-1] = replace(spans[-1], text=spans[-1].text[:-closing])
        if not before.startswith(done):
            raise TemplateError(
                "the template rewrites earlier turns: learn one answer a row (give the others"
                ' "weight": 0), or mark answers with {% generation %} in a copy of the template'
            )
        if not after.startswith(before):
            question = renderer.render(messages[:index], variables)
            raise _other_start(question, before, after)
        spans.append(TextSpan(before[len(done) :]))
        spans.append(TextSpan(after[len(before) :], index))
        done = after
    return spans


def _other_start(question: str, before: str, after: str) -> TemplateError:
    """Return why an answer does not begin where the generation prompt ends."""
    if not (before.startswith(question) and after.startswith(question)):
        return TemplateError(
            "the template rewrites earlier turns as soon as the answer to them follows: give"
            " another --template, or mark answers with {% generation %} in a copy of it"
        )
    prompt = before[len(question) :][-MAX_SHOWN_CHARACTERS:]
    return TemplateError(
        f"its generation prompt ends with {prompt!r}, and the answer does not begin there: a model"
        " would learn what follows another prompt: mark answers with {% generation %} in a copy of"
        " the template, or let its generation prompt end where answers begin"
    )


def _by_mark(
    renderer: TemplateRenderer, messages: Sequence[Message], variables: Mapping[str, Any]
) -> list[TextSpan]:
    """Identify answers by the template's own `{% generation %}` marks."""
    texts = re.split(f"[{OPEN}{CLOSE}]", renderer.render(messages, variables))
    said = [i for i, message in enumerate(messages) if message["role"] == ASSISTANT]
    known = len(said) == len(texts) // 2
    indices = said if known else [UNKNOWN_MESSAGE] * len(texts)
    return [TextSpan(text, indices[i // 2] if i % 2 else None) for i, text in enumerate(texts)]
