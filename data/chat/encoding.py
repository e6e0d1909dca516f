"""One example of a file to the documents of a store."""

from collections.abc import Sequence
from itertools import takewhile

from data.chat.examples import Example
from data.chat.messages import ASSISTANT, SYSTEM, ExampleError, Message, learned_answers
from data.chat.template import ChatTemplate, EncodedConversation


def encode_example(template: ChatTemplate, example: Example) -> list[EncodedConversation]:
    """Return an example's documents; in a pair, turns that both share are part of the question.

    Raises:
        ExampleError: There is nothing to learn, or a pair has two questions.
        TemplateError: The template refuses it.
    """
    conversations = [with_system(messages, example, template) for messages in example.conversations]
    shared = 0
    if example.kind == "pairs":
        shared = _shared_turns(conversations)
    return [
        _encode(template, messages, example, shared, is_rejected=index > 0)
        for index, messages in enumerate(conversations)
    ]


def with_system(messages: list[Message], example: Example, template: ChatTemplate) -> list[Message]:
    """Return a conversation that begins with its row's `system` text (ShareGPT's form).

    Raises:
        ExampleError: It has a system message as well, which says something else.
    """
    text = example.variables.get(SYSTEM)
    if not isinstance(text, str) or not text or SYSTEM in template.variables:
        return messages
    if messages[0]["role"] == SYSTEM:
        own = messages[0].get("content")
        if own and own != text:
            raise ExampleError("bad_message", "both the row and its first message say system")
        return [{**messages[0], "content": text}, *messages[1:]]
    return [{"role": SYSTEM, "content": text}, *messages]


def _shared_turns(conversations: Sequence[Sequence[Message]]) -> int:
    """Return how many messages a pair shares; the next one of both must be an answer.

    Raises:
        ExampleError: They go on with other questions.
    """
    both = takewhile(lambda pair: pair[0] == pair[1], zip(*conversations, strict=False))
    shared = sum(1 for _ in both)
    following = [messages[shared] for messages in conversations if len(messages) > shared]
    if len(following) == 2 and any(message["role"] != ASSISTANT for message in following):
        raise ExampleError("different_prompts", "chosen and rejected answer other conversations")
    return shared


def _encode(
    template: ChatTemplate,
    messages: list[Message],
    example: Example,
    shared: int,
    *,
    is_rejected: bool,
) -> EncodedConversation:
    learned = {index for index in learned_answers(messages) if index >= shared}
    said = {index for index, message in enumerate(messages) if message["role"] == ASSISTANT}
    if not learned:
        of_these = " that is to be learned" if said else ""
        raise ExampleError("no_answer", f"no message of the {ASSISTANT}{of_these}")
    document = template.encode(
        messages,
        variables=example.variables,
        learned=None if learned == said else learned,
        may_be_silent=is_rejected,
    )
    if not document.answers:
        raise ExampleError("no_answer", f"no message of the {ASSISTANT}")
    return document
