"""What a template shows of a conversation.

No message is lost unseen, and no answer is learned that says nothing.
"""

import re
from collections.abc import Callable, Sequence

from data.chat.answer_ends import TemplateError, TextSpan
from data.chat.jinja import BREAK
from data.chat.messages import Message
from data.chat.tool_calls import CALL_KEYS
from data.visible_text import has_visible_text, visible_text

MAX_KNOWN_FORMS = 4096
MARK = "qsx{}xsq"
"""Put behind contents, to see whether a template shows them."""

Render = Callable[[list[Message]], str]
Form = tuple[tuple[object, ...], ...]


class ShownMessages:
    """Refuses conversations with a message that a template does not show."""

    def __init__(self) -> None:
        self._known: set[Form] = set()
        """Roles of conversations all of whose messages it has shown."""

    def check(self, messages: Sequence[Message], text: str, render: Render) -> None:
        """Refuse a conversation that the template shows in part.

        Contents beside calls are left out: templates that show either are usual.

        Args:
            messages: The conversation.
            text: The template's text of it.
            render: Returns the template's text of a conversation.

        Raises:
            TemplateError: A message's content is not shown.
        """
        said = [
            (i, message["content"].strip())
            for i, message in enumerate(messages)
            if message.get("content", "").strip() and not _has_call(message)
        ]
        form = tuple((message["role"], _has_call(message)) for message in messages)
        if form in self._known and _in_order([content for _, content in said], text):
            return
        hidden = _hidden(messages, [i for i, _ in said], render)
        if hidden is not None:
            role = messages[hidden]["role"].replace(BREAK, "")[:40]
            raise TemplateError(
                f"the template does not show message {hidden + 1} (role {role!r}): give it a role"
                " that the template shows, or another --template",
                "hidden_message",
            )
        if len(self._known) < MAX_KNOWN_FORMS:
            self._known.add(form)


def is_silent(
    span: TextSpan, message: Message | None, ends: str, empty: Callable[[], list[TextSpan]]
) -> bool:
    """Return whether an answer teaches nothing but its end.

    Args:
        span: Its text.
        message: What it is made of; None: it is not known.
        ends: Pattern of the tokens that can end an answer.
        empty: Returns the spans of the conversation with an answer without content in its place.
    """
    content = "" if message is None else message.get("content", "").strip()
    if content in span.text and has_visible_text(content):
        return False
    if not has_visible_text(re.sub(ends, "", span.text)):
        return True
    if message is None or _has_call(message):
        return False
    try:
        others = [other.text for other in empty() if other.message == span.message]
    except TemplateError:
        return False
    return visible_text(span.text) in map(visible_text, others)


def _has_call(message: Message) -> bool:
    return any(message.get(key) for key in CALL_KEYS)


def _in_order(contents: Sequence[str], text: str) -> bool:
    position = 0
    for content in contents:
        position = text.find(content, position)
        if position < 0:
            return False
        position += len(content)
    return True


def _hidden(messages: Sequence[Message], indices: Sequence[int], render: Render) -> int | None:
    """Return the first of some messages whose content makes no difference to the text."""
    marked = list(messages)
    for i in indices:
        marked[i] = {**messages[i], "content": messages[i]["content"] + MARK.format(i)}
    try:
        text = render(marked).casefold()
    except TemplateError:  # it refuses such contents: nothing is known
        return None
    return next((i for i in indices if MARK.format(i) not in text), None)
