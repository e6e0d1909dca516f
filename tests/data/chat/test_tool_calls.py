"""Tools and their calls reach the template, or the line is counted."""

import json
from pathlib import Path
from typing import Any

import pytest

from data.chat.answer_ends import TemplateError
from data.chat.examples import read_example
from data.chat.messages import ExampleError
from data.chat.template import ChatTemplate
from data.chat.template_loading import BUILT_IN
from data.chat.unread_fields import UnreadFields
from data.errors import DataError
from tests.support.chat_helpers import (
    CHATML_TOKENS,
    ask,
    build_rows,
    document_texts,
    learned_texts,
    tokenizer_with,
)

TOOLS = [{"type": "function", "function": {"name": "get_t", "parameters": {}}}]
START = (
    "{% if tools %}{{ 'TOOLS:' }}{% for t in tools %}{{ t | tojson }}{% endfor %}"
    "{{ '<|im_end|>' }}{% endif %}{% for m in messages %}{{ m.role + ':' + m.content }}"
    "{% for c in m.tool_calls or [] %}{{ '<call>' + c.function.name }}"
)
END = (
    "{{ '</call>' }}{% endfor %}{{ '<|im_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}"
)
AS_GIVEN = START + "{{ c.function.arguments }}" + END
AS_JSON = START + "{{ c.function.arguments | tojson }}" + END
ITEMS = START + "{% for k, v in c.function.arguments | items %}{{ k ~ '=' ~ v }}{% endfor %}" + END
ADDED = START + "{{ '' + c.function.arguments }}" + END
EITHER = (
    START
    + "{% if c.function.arguments is string %}{{ c.function.arguments }}{% else %}"
    + "{{ c.function.arguments | tojson }}{% endif %}"
    + END
)


def row(arguments: Any, content: str | None = "", **changes: Any) -> dict[str, Any]:
    """A conversation in which a tool is called."""
    function = {"name": "get_t", "arguments": arguments}
    call = {"id": "1", "type": "function", "function": function}
    return {
        "tools": TOOLS,
        "messages": [
            {"role": "user", "content": "w"},
            {"role": "assistant", "content": content, "tool_calls": [call]},
            {"role": "tool", "content": "42"},
            {"role": "assistant", "content": "It is 42"},
        ],
    } | changes


@pytest.mark.parametrize("content", ["", None])
@pytest.mark.parametrize(
    ("form", "arguments", "expected"),
    [
        (AS_GIVEN, '{"c":1}', '{"c":1}'),
        (AS_JSON, {"c": 1}, '{"c": 1}'),
        (AS_JSON, '{"c":1}', '{"c": 1}'),
        (AS_JSON, '{"c":"\U0001f600<|im_end|>"}', '{"c": "\U0001f600<|im_end|>"}'),
        (ITEMS, {"c": 1}, "c=1"),
        (ITEMS, '{"c":1}', "c=1"),
        (ITEMS, "", ""),
        (ADDED, {"c": 1}, '{"c": 1}'),
        (EITHER, '{"c":1}', '{"c":1}'),
        (EITHER, {"c": 1}, '{"c": 1}'),
    ],
)
def test_arguments_in_the_form_that_the_template_takes(
    form: str, arguments: Any, expected: str, content: str | None
) -> None:
    template = ChatTemplate(form, tokenizer_with(*CHATML_TOKENS))
    assert learned_texts(template, row(arguments, content)) == [
        [f"<call>get_t{expected}</call><|im_end|>", "It is 42<|im_end|>"]
    ]
    (text,) = document_texts(template, row(arguments, content))
    assert text.startswith('TOOLS:{"type": "function", "function": {"name": "get_t"')


@pytest.mark.parametrize("form", [ITEMS, AS_JSON])
def test_arguments_that_are_no_object(form: str) -> None:
    template = ChatTemplate(form, tokenizer_with(*CHATML_TOKENS))
    with pytest.raises(TemplateError):
        learned_texts(template, row('{"c":'))


@pytest.mark.parametrize("name", BUILT_IN)
@pytest.mark.parametrize("key", ["tool_calls", "function_call"])
def test_a_template_without_tools_drops_calls(name: str, key: str, tmp_path: Path) -> None:
    options = {"template": name}
    if name == "chatml":
        (tmp_path / "tokenizer.json").write_text(tokenizer_with(*CHATML_TOKENS).text)
        options["tokenizer"] = str(tmp_path / "tokenizer.json")
    calling = row('{"c":1}')
    calls = calling["messages"][1].pop("tool_calls")
    calling["messages"][1][key] = calls if key == "tool_calls" else calls[0]["function"]
    rows = [calling, ask("q", "a"), ask("q", "b") | {"tools": [], "documents": None}]
    store = build_rows(tmp_path, rows, **options)
    assert store.manifest.dropped == {"no_tools_in_template": 1}
    assert store.manifest.documents == 2
    (tmp_path / "s").mkdir()
    with pytest.raises(DataError, match="line 1: no_tools_in_template: the template does not show"):
        build_rows(tmp_path / "s", rows, strict=True, **options)


def test_each_call_must_be_shown() -> None:
    only_first = AS_GIVEN.replace("m.tool_calls or []", "(m.tool_calls or [])[:1]")
    template = ChatTemplate(only_first, tokenizer_with(*CHATML_TOKENS))
    two = row('{"c":1}')
    two["messages"][1]["tool_calls"] *= 2
    with pytest.raises(TemplateError, match="no_tools_in_template"):
        learned_texts(template, two)
    assert learned_texts(ChatTemplate(AS_GIVEN, template.tokenizer), two)[0][0].count("get_t") == 2


@pytest.mark.parametrize("tools", [TOOLS, json.dumps(TOOLS), [json.dumps(one) for one in TOOLS]])
def test_tools_as_json_texts(tools: Any) -> None:
    template = ChatTemplate(AS_GIVEN, tokenizer_with(*CHATML_TOKENS))
    (text,) = document_texts(template, row("{}", tools=tools))
    assert text.startswith('TOOLS:{"type": "function"')


@pytest.mark.parametrize("key", ["tools", "documents"])
@pytest.mark.parametrize("value", ["no JSON", {"a": 1}, ["f"], ["[1]"], '{"a": 1}', [{}, "f"], 3])
def test_what_is_no_list_of_objects_counts_where_it_is_read(key: str, value: Any) -> None:
    tokenizer = tokenizer_with(*CHATML_TOKENS)
    given = ask("q", "a") | {key: value}
    reading = ChatTemplate(f"{{{{ {key} }}}}" + BUILT_IN["chatml"], tokenizer)
    with pytest.raises(ExampleError, match=f"bad_variables: {key} is not a list of objects"):
        document_texts(reading, given)
    other = ChatTemplate(BUILT_IN["chatml"], tokenizer)
    assert document_texts(other, given) == document_texts(other, ask("q", "a"))
    unread = UnreadFields(other)
    unread.count(read_example(json.dumps(given).encode()))
    assert unread.counts == {f"unread.row.{key}": 1}


def test_what_a_tool_is_called_is_no_special_token() -> None:
    template = ChatTemplate(AS_GIVEN, tokenizer_with(*CHATML_TOKENS))
    spelling = row("{}", tools=[{"<|im_end|>": "<|im_end|>"}])
    (document,) = [document_texts(template, spelling)[0]]
    assert document.startswith('TOOLS:{"<|im_end|>": "<|im_end|>"}<|im_end|>')
    end = template.tokenizer.info.special_tokens["<|im_end|>"]
    encoded = template.encode(spelling["messages"], variables={"tools": spelling["tools"]})
    assert encoded.tokens.tolist().count(end) == 5


def test_sharegpt_calls() -> None:
    template = ChatTemplate(AS_JSON, tokenizer_with(*CHATML_TOKENS))
    said = [
        {"from": "human", "value": "w"},
        {"from": "function_call", "value": '{"name": "get_t", "arguments": {"c": 1}}'},
        {"from": "observation", "value": "42"},
        {"from": "gpt", "value": "It is 42"},
    ]
    sharegpt = {"conversations": said, "tools": json.dumps(TOOLS), "system": "Be short."}
    (text,) = document_texts(template, sharegpt)
    assert text.partition("<|im_end|>")[2] == (
        "system:Be short.<|im_end|>user:w<|im_end|>"
        'assistant:<call>get_t{"c": 1}</call><|im_end|>'
        "tool:42<|im_end|>assistant:It is 42<|im_end|>"
    )
