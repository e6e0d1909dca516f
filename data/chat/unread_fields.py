"""Fields of a file's rows that nothing reads: neither this program nor the template."""

from collections import Counter
from collections.abc import Collection, Iterator, Sequence

from data.chat.answer_ends import TemplateError
from data.chat.encoding import with_system
from data.chat.examples import Example
from data.chat.messages import ASSISTANT, LEARNED_KEYS, REASONING_KEYS, SYSTEM, Message
from data.chat.template import ChatTemplate
from data.chat.tool_calls import CALL_KEYS

MAX_NAMES = 100
"""Names that are counted apart; further ones are counted as `unread.others`."""
READ_KEYS = frozenset({"role", "content", *CALL_KEYS})


class UnreadFields:
    """Counts the examples with a field that nothing reads, by field."""

    def __init__(self, template: ChatTemplate) -> None:
        self._template = template
        self._shown: dict[str, bool] = {}
        """Whether the template shows a field of messages: as in the first example that has it."""
        self.counts: Counter[str] = Counter()
        """`unread.row.KEY`, `unread.message.KEY`: examples."""

    def count(self, example: Example) -> None:
        """Count an example's fields."""
        names = {f"unread.row.{_short(key)}" for key in self._of_row(example)}
        names |= {f"unread.message.{_short(key)}" for key in self._of_messages(example)}
        for name in sorted(names):
            is_new = name not in self.counts and len(self.counts) >= MAX_NAMES
            self.counts["unread.others" if is_new else name] += 1

    def _of_row(self, example: Example) -> Iterator[str]:
        for key, value in example.variables.items():
            is_read = key in self._template.variables or (key == SYSTEM and isinstance(value, str))
            if not is_read and value not in ("", [], {}):
                yield key

    def _of_messages(self, example: Example) -> Iterator[str]:
        for conversation in example.conversations:
            keys = {key for message in conversation for key in _unread_here(message)}
            for key in sorted(keys):
                if key not in self._shown:
                    messages = with_system(conversation, example, self._template)
                    self._shown[key] = self._is_shown(key, messages, example)
                if not self._shown[key]:
                    yield key

    def _is_shown(self, key: str, messages: Sequence[Message], example: Example) -> bool:
        """Return whether a conversation's text is another one without a field."""
        names = REASONING_KEYS if key in REASONING_KEYS else (key,)
        less = [
            _without(message, names) if key in _unread_here(message) else message
            for message in messages
        ]
        try:
            text = self._template.render(messages, variables=example.variables)
            return text != self._template.render(less, variables=example.variables)
        except TemplateError:  # it needs the field, or another form of its calls
            return True


def _unread_here(message: Message) -> Iterator[str]:
    has_call = any(message.get(key) for key in CALL_KEYS)
    for key, value in message.items():
        # Some templates show either a content or calls.
        is_read = key in READ_KEYS and not (key == "content" and has_call)
        if is_read or value in ("", [], {}):
            continue
        if key in LEARNED_KEYS and _is_honored(key, message):
            continue
        # One thought under three names is one field.
        yield REASONING_KEYS[0] if key in REASONING_KEYS else key


def _without(message: Message, names: Collection[str]) -> Message:
    """Return a message without some fields; its content is emptied."""
    kept = {key: value for key, value in message.items() if key not in names}
    return {**message, "content": ""} if "content" in names else kept


def _short(key: str) -> str:
    return " ".join(key.split())[:60]


def _is_honored(key: str, message: Message) -> bool:
    if message[key] not in (0, 1):
        return False
    return message["role"] == ASSISTANT or not message[key]
