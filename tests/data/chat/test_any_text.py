"""Conversations of any text: what messages say is what is learned, or the line is counted."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from data.chat.answer_ends import TemplateError
from data.chat.encoding import encode_example
from data.chat.examples import read_example
from data.chat.messages import ExampleError
from data.chat.template import ChatTemplate
from data.chat.template_loading import BUILT_IN
from data.errors import DataError
from data.tokenization.tokenizer import byte_tokenizer
from data.visible_text import has_visible_text
from tests.data.test_json_text import ANY_TEXT
from tests.support.chat_helpers import CHATML_TOKENS, build_rows, tokenizer_with, turns

MARKED = (
    "{% for m in messages %}{{ m.role + ':' }}{% if m.role == 'assistant' %}{% generation %}"
    "{{ m.content + eos_token }}{% endgeneration %}{% else %}{{ m.content }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}"
)
FORMS = {
    "plain": ChatTemplate(BUILT_IN["plain"], byte_tokenizer()),
    "marked": ChatTemplate(MARKED, byte_tokenizer()),
    "chatml": ChatTemplate(BUILT_IN["chatml"], tokenizer_with(*CHATML_TOKENS)),
}


@pytest.mark.parametrize("name", FORMS)
@given(question=ANY_TEXT, answer=ANY_TEXT, key=ANY_TEXT, keep_escapes=st.booleans())
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
def test_any_characters(
    name: str, question: str, answer: str, key: str, keep_escapes: bool
) -> None:
    assume(has_visible_text(answer))
    row: dict[str, Any] = {
        key: question,
        "messages": turns(("user", question), ("assistant", answer)),
    }
    line = json.dumps(row, ensure_ascii=keep_escapes).encode(errors="surrogatepass")
    template = FORMS[name]
    try:
        json.dumps(json.loads(line), ensure_ascii=False).encode()
    except UnicodeEncodeError:
        with pytest.raises(ExampleError, match="bad_utf8"):
            read_example(line)
        return
    if key == "messages":
        return
    (document,) = encode_example(template, read_example(line))
    ((first, end),) = document.answers
    said = json.loads(line)["messages"][1]["content"]
    text = template.tokenizer.decode(document.tokens[first:end].tolist())
    assert text.removesuffix("\n" if name == "chatml" else "") == said
    assert template.stop_ids & set(document.tokens[first:end].tolist()[-2:])


@pytest.mark.parametrize("name", FORMS)
def test_special_tokens_spelled_out_anywhere_stay_text(name: str) -> None:
    template = FORMS[name]
    special = template.tokenizer.info.special_tokens
    text = "".join(special) + "\uf8fe\uf8ff\ue000"
    document = template.encode(turns(("user", text), ("assistant", text)))
    plain = template.encode(turns(("user", "q"), ("assistant", "a")))
    for token in special.values():
        assert document.tokens.tolist().count(token) == plain.tokens.tolist().count(token)
    assert template.tokenizer.decode(document.tokens.tolist()).count(text) == 2


@pytest.mark.parametrize(
    "row",
    [
        {"messages": turns(("us\ud83der", "q"), ("assistant", "a"))},
        {"messages": [{"role": "user", "content": "q", "na\ud83dme": 1}]},
        {"prompt": "q", "chosen": "a \ud83d", "rejected": "b"},
        {"prompt": "q", "chosen": "a", "rejected": "\ude00 b"},
        {"prompt": "\ud83d", "chosen": "a", "rejected": "b"},
        {"tools": [{"\ud83d": 1}], "messages": turns(("user", "q"), ("assistant", "a"))},
    ],
)
def test_half_a_character_anywhere_in_a_row(row: dict[str, Any], tmp_path: Path) -> None:
    good = [{"prompt": "q", "chosen": "good", "rejected": "bad"}]
    if "messages" in row:
        good = [{"messages": turns(("user", "q"), ("assistant", "good"))}]
    store = build_rows(tmp_path, [row, *good])
    assert store.manifest.dropped == {"bad_utf8": 1}
    (tmp_path / "strict").mkdir()
    with pytest.raises(DataError, match=r"t.jsonl, line 1: bad_utf8: a lone surrogate, U\+D"):
        build_rows(tmp_path / "strict", [row, *good], strict=True)


def test_a_template_that_writes_half_a_character() -> None:
    template = ChatTemplate("{{ '\\ud83d' + messages[0].content + eos_token }}", byte_tokenizer())
    with pytest.raises(TemplateError, match="bad_utf8: the text holds a lone surrogate"):
        template.encode_prompt(turns(("user", "q")))
