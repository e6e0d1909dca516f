"""No message is lost unseen, and no answer that says nothing is learned: the template decides."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.chat.answer_ends import TemplateError
from data.chat.encoding import encode_example
from data.chat.examples import read_example
from data.chat.template import ChatTemplate
from data.chat.template_loading import BUILT_IN
from data.tokenization.tokenizer import byte_tokenizer
from tests.support.chat_helpers import ask, build_rows, document_texts, learned_texts, turns

EOS = "<|endoftext|>"
ROLES = (
    "{% for m in messages %}{% if m.role == 'user' %}{{ 'Q:' + m.content | trim }}"
    "{% elif m.role == 'assistant' %}{{ 'A:' + m.content.split('</think>')[-1].strip() }}"
    "{{ eos_token }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ 'A:' }}{% endif %}"
)
"""Knows two roles, and strips reasoning, in each turn."""
SCAFFOLD = ROLES.replace(
    "{{ 'A:' + m.content", "{{ 'A:<think>' + (m.reasoning_content or '') + '</think>' + m.content"
)
"""Writes an empty thought where there is none."""


def template_of(text: str) -> ChatTemplate:
    return ChatTemplate(text, byte_tokenizer())


def refusal(template: ChatTemplate, messages: list[dict[str, Any]]) -> str | None:
    try:
        template.encode(messages)
    except TemplateError as error:
        return error.reason
    return None


@pytest.mark.parametrize("role", ["system", "Assistant", "model", "developer", "tool", "human"])
def test_a_message_of_a_role_that_a_template_does_not_know(role: str, tmp_path: Path) -> None:
    template = template_of(ROLES)
    known = turns(("user", "q"), ("assistant", "a"))
    assert refusal(template, known) is None
    for text in ("a", "q", "A:", "some words"):  # also in the text by chance
        for place in (0, 1):
            said = [*known[:place], *turns((role, text)), *known[place:]]
            assert refusal(template, said) == "hidden_message"
    with pytest.raises(TemplateError, match=r"message 1 \(role '.*give it a role that the templ"):
        template.encode_prompt(turns((role, "s"), ("user", "q")))
    assert refusal(template, [*turns((role, " \n")), *known]) is None  # there is nothing to show
    assert refusal(template, [*known, *turns((role, "after the last answer"))]) is None
    (tmp_path / "t.jinja").write_text(ROLES)
    rows = [{"messages": [*turns((role, "s")), *known]}, ask("q", "b")]
    store = build_rows(tmp_path, rows, template=str(tmp_path / "t.jinja"))
    assert store.manifest.dropped in ({"hidden_message": 1}, {}) and (role == "human") == (
        not store.manifest.dropped
    )


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["user", "assistant", "system"]),
            st.sampled_from(["a", "aa", "Q:", "b"]),
        ),
        min_size=1,
        max_size=5,
    )
)
def test_what_is_hidden_is_refused_whatever_came_before(said: list[tuple[str, str]]) -> None:
    template = template_of(ROLES)
    messages = turns(*said, ("user", "q"), ("assistant", "end"))
    shown = all(role != "system" for role, _ in said)
    for _ in range(2):
        assert refusal(template, messages) == (None if shown else "hidden_message")


def test_templates_hide_reasoning_and_move_messages_by_design() -> None:
    thought = "<think>one</think>\n two"
    messages = turns(("user", " q "), ("assistant", thought), ("user", "r"), ("assistant", "three"))
    assert learned_texts(template_of(ROLES), {"messages": messages}) == [
        [f"two{EOS}", f"three{EOS}"]
    ]
    last = (
        "{% for m in messages if m.role != 'system' %}{{ m.role + m.content }}{% if loop.first %}"
        "{{ messages[0].content }}{% endif %}{{ eos_token if m.role == 'assistant' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'assistant' }}{% endif %}"
    )
    moved = {"messages": turns(("system", "s"), ("user", "q"), ("assistant", "a"))}
    assert document_texts(template_of(last), moved) == [f"userqsassistanta{EOS}"]


def test_contents_beside_calls_are_counted(tmp_path: Path) -> None:
    form = ROLES.replace(
        "{{ 'A:' + m.content.split('</think>')[-1].strip() }}",
        "{{ 'A:' }}{% if m.tool_calls %}{{ m.tool_calls[0].name }}{% else %}{{ m.content }}"
        "{% endif %}",
    )
    call = {"role": "assistant", "content": "I call", "tool_calls": [{"name": "f"}]}
    rows = [{"messages": [*turns(("user", "q")), call]}]
    (tmp_path / "t.jinja").write_text(form)
    store = build_rows(tmp_path, rows, template=str(tmp_path / "t.jinja"))
    assert store.manifest.counts == {"unread.message.content": 1}


@pytest.mark.parametrize("form", [ROLES, SCAFFOLD, BUILT_IN["plain"]])
@pytest.mark.parametrize("text", ["", " \n", "\u200b\u2060", "\x07", "<think>hm</think> "])
def test_an_answer_that_shows_nothing(form: str, text: str, tmp_path: Path) -> None:
    if form == BUILT_IN["plain"] and "think" in text:
        return
    answer = {"role": "assistant", "content": text, "name": "x"}
    if form == ROLES:
        answer["reasoning_content"] = "hidden"
    (tmp_path / "t.jinja").write_text(form)
    rows = [{"messages": [*turns(("user", "q")), answer]}, ask("q", "."),
            {"messages": [*turns(("user", "q")), answer | {"weight": 0},
                          *turns(("user", "r"), ("assistant", "kept"))]}]  # fmt: skip
    store = build_rows(tmp_path, rows, template=str(tmp_path / "t.jinja"))
    assert store.manifest.dropped == {"empty_answer": 1} and store.manifest.documents == 2
    pair = {"prompt": "q", "chosen": [answer], "rejected": turns(("assistant", "no"))}
    with pytest.raises(TemplateError, match="empty_answer: message 2 shows no text of its own"):
        encode_example(template_of(form), read_example(json_line(pair)))
    swapped = pair | {"chosen": pair["rejected"], "rejected": pair["chosen"]}
    assert len(encode_example(template_of(form), read_example(json_line(swapped)))) == 2


def test_shown_reasoning_is_an_answer() -> None:
    answer = {"role": "assistant", "content": "", "reasoning_content": "so"}
    row = {"messages": [*turns(("user", "q")), answer]}
    form = SCAFFOLD.replace(".split('</think>')[-1].strip()", "")
    assert learned_texts(template_of(form), row) == [[f"<think>so</think>{EOS}"]]


def json_line(row: dict[str, Any]) -> bytes:
    return json.dumps(row).encode()
