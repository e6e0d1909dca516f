"""Tool calls in the form that a template takes, and whether it shows them at all."""

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from data.chat.answer_ends import TemplateError
from data.chat.messages import Message

CALL_KEYS = ("tool_calls", "function_call")


def fitted(messages: list[Message], render: Callable[[list[Message]], str]) -> list[Message]:
    """Return a conversation with its tool calls in the form that a template takes.

    Args:
        messages: The conversation.
        render: Returns the template's text of a conversation.

    Raises:
        TemplateError: It takes none, or does not show the calls.
    """
    if not _has_calls(messages):
        return messages
    refusal: TemplateError | None = None
    for form in _forms(messages):
        try:
            text = render(form)
        except TemplateError as error:
            refusal = refusal or error
            continue
        if _quotes_twice(text, form):
            refusal = refusal or TemplateError("a call's arguments are no JSON object")
            continue
        if any(_renders_to(text, less, render) for less in _without_each_call(form)):
            raise TemplateError(
                "the template does not show tool calls: give one that does with --template",
                "no_tools_in_template",
            )
        return form
    assert refusal is not None
    raise refusal


def _renders_to(text: str, messages: list[Message], render: Callable[[list[Message]], str]) -> bool:
    try:
        return render(messages) == text
    except TemplateError:
        return False


def _has_calls(messages: Sequence[Message]) -> bool:
    """Return whether any message calls a tool, or has no content."""
    return any("content" not in m or any(m.get(key) for key in CALL_KEYS) for m in messages)


def _forms(messages: Sequence[Message]) -> Iterator[list[Message]]:
    """Yield a conversation in the forms that templates take; the first one is transformers'.

    1. Arguments of calls as the file has them, a JSON text or an object.
    2. Those that are a text, as an object.
    3. Those that are an object, as a text.

    Then each of these with an empty content where a message has none.
    """
    changes: tuple[Callable[[Any], Any], ...] = (lambda value: value, _as_object, _as_text)
    done: list[list[Message]] = []
    for filled in (False, True):
        for change in changes:
            form = [_changed(message, change, filled) for message in messages]
            if form not in done:
                done.append(form)
                yield form


def _quotes_twice(text: str, messages: Sequence[Message]) -> bool:
    """Return whether a conversation's text has arguments as JSON within a JSON string."""
    given = (function.get("arguments") for m in messages for function in _functions(m))
    texts = [arguments for arguments in given if isinstance(arguments, str) and arguments]
    quoted = (json.dumps(t, ensure_ascii=ascii) for t in texts for ascii in (False, True))
    return any(one in text for one in quoted)


def _without_each_call(messages: Sequence[Message]) -> Iterator[list[Message]]:
    """Yield the conversation once without each of its calls."""
    for index, message in enumerate(messages):
        before, after = messages[:index], messages[index + 1 :]
        calls = message.get("tool_calls")
        if isinstance(calls, list) and len(calls) > 1:
            for i in range(len(calls)):
                yield [*before, {**message, "tool_calls": calls[:i] + calls[i + 1 :]}, *after]
        elif calls:
            yield [*before, _without(message, "tool_calls"), *after]
        if message.get("function_call"):
            yield [*before, _without(message, "function_call"), *after]


def _without(message: Message, key: str) -> Message:
    return {"content": ""} | {k: v for k, v in message.items() if k != key}


def _changed(message: Message, change: Callable[[Any], Any], filled: bool) -> Message:
    message = {**message, "content": ""} if filled and "content" not in message else message
    if isinstance(message.get("function_call"), dict):
        message = {**message, "function_call": _with(message["function_call"], change)}
    calls = message.get("tool_calls")
    if not isinstance(calls, list):
        return message
    return {**message, "tool_calls": [_changed_call(call, change) for call in calls]}


def _changed_call(call: Any, change: Callable[[Any], Any]) -> Any:
    if not isinstance(call, dict):
        return call
    if isinstance(call.get("function"), dict):
        return {**call, "function": _with(call["function"], change)}
    return _with(call, change)


def _with(function: dict[str, Any], change: Callable[[Any], Any]) -> dict[str, Any]:
    if "arguments" not in function:
        return function
    return {**function, "arguments": change(function["arguments"])}


def _functions(message: Message) -> Iterator[dict[str, Any]]:
    calls = message.get("tool_calls")
    given = [*(calls if isinstance(calls, list) else []), message.get("function_call")]
    for call in given:
        if isinstance(call, dict):
            function = call.get("function", call)
            if isinstance(function, dict):
                yield function


def _as_object(arguments: Any) -> Any:
    if not isinstance(arguments, str):
        return arguments
    try:
        value = json.loads(arguments.strip() or "{}")
    except (ValueError, RecursionError):
        return arguments
    return value if isinstance(value, dict) else arguments


def _as_text(arguments: Any) -> Any:
    return json.dumps(arguments, ensure_ascii=False) if isinstance(arguments, dict) else arguments
