"""One example of a file to the documents of a store."""

from collections.abc import Sequence
from itertools import takewhile

from data.chat.examples import OBJECT_LISTS, Example
from data.chat.messages import ASSISTANT, SYSTEM, ExampleError, Message, learned_answers
from data.chat.template import ChatTemplate, EncodedConversation

QUESTION_KEYS = ("instruction", "input", "question", "query")
"""Keys under which rows of pairs have their question, and nothing reads it."""


def encode_example(template: ChatTemplate, example: Example) -> list[EncodedConversation]:
    """Return an example's documents; in a pair, turns that both share are part of the question.

    Raises:
        ExampleError: There is nothing to learn, a pair has two questions or none, or a variable is
            not what templates take.
        TemplateError: The template refuses it.
    """
    _check_object_lists(template, example)
    conversations = [with_system(messages, example, template) for messages in example.conversations]
    shared = 0
    if example.kind == "pairs":
        shared = _shared_turns(conversations, example)
    return [
        _encode(template, messages, example, shared, is_rejected=index > 0)
        for index, messages in enumerate(conversations)
    ]


def _check_object_lists(template: ChatTemplate, example: Example) -> None:
    """Refuse a list of tools or documents in another form, where the template reads it."""
    for key in OBJECT_LISTS:
        value = example.variables.get(key, [])
        is_right = isinstance(value, list) and all(isinstance(item, dict) for item in value)
        if key in template.variables and not is_right:
            raise ExampleError("bad_variables", f"{key} is not a list of objects")


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


def _shared_turns(conversations: Sequence[Sequence[Message]], example: Example) -> int:
    """Return how many messages a pair shares; the next one of both must be an answer to them.

    Raises:
        ExampleError: They go on with other questions, or answer none.
    """
    both = takewhile(lambda pair: pair[0] == pair[1], zip(*conversations, strict=False))
    shared = sum(1 for _ in both)
    following = [messages[shared] for messages in conversations if len(messages) > shared]
    if len(following) == 2 and any(message["role"] != ASSISTANT for message in following):
        raise ExampleError("different_prompts", "chosen and rejected answer other conversations")
    if all(message["role"] in {SYSTEM, ASSISTANT} for message in conversations[0][:shared]):
        raise ExampleError("no_prompt", f"no question precedes the answers: {_asking(example)}")
    return shared


def _asking(example: Example) -> str:
    """Return how to give a pair its question."""
    named = [key for key in QUESTION_KEYS if example.variables.get(key)]
    if named:
        return f"give the row's {' and '.join(named)} as prompt"
    return "give it as prompt, and answers that are transcripts as lists of messages"


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
