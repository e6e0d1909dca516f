"""A model learns where an answer ends, and stops there, whatever the template's way to end one."""

import json
from pathlib import Path
from typing import Any

import pytest

from data.chat.answer_ends import TemplateError
from data.chat.build import build_chat_store
from data.chat.stored import stored_stop_ids, stored_template
from data.chat.template import ChatTemplate
from data.chat.template_loading import BUILT_IN, load_chat_template
from data.errors import DataError
from data.store.reader import Store
from data.tokenization.tokenizer import Tokenizer, byte_tokenizer
from tests.support.chat_helpers import (
    CHATML_TOKENS,
    ask,
    build_rows,
    document_texts,
    learned_texts,
    tokenizer_with,
    turns,
    write_rows,
)
from tests.support.chat_tokenizers import HARMONY, HARMONY_TOKENS

EOS = "<|endoftext|>"
GLM_TOKENS = ("<|user|>", "<|assistant|>", "<|observation|>")
NEXT_ROLE = (
    "{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
"""As in GLM-4: only the next message's role token ends an answer."""
MARKED = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}{% if m.role == 'assistant' %}"
    "{% generation %}{{ m.content }}{% endgeneration %}{% else %}{{ m.content }}{% endif %}"
    "{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""Marks that close before the token that ends an answer."""
TEXT_END = (
    "{% for m in messages %}{{ m.role + ': ' + m.content + '\n###\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)
DIALOGUE = {
    "messages": turns(("user", "q"), ("assistant", "one"), ("user", "r"), ("assistant", "two"))
}
PAIR = {
    "prompt": DIALOGUE["messages"][:3],
    "chosen": turns(("assistant", "good")),
    "rejected": turns(("assistant", "bad")),
}


def token_ids(tokenizer: Tokenizer, *tokens: str) -> frozenset[int]:
    return frozenset(tokenizer.added_tokens[token] for token in (EOS, *tokens))


def test_the_next_role_token_ends_an_answer_and_the_document_the_last_one() -> None:
    template = ChatTemplate(NEXT_ROLE, tokenizer_with(*GLM_TOKENS))
    assert learned_texts(template, DIALOGUE) == [["one<|user|>", f"two{EOS}"]]
    (text,) = document_texts(template, DIALOGUE)
    assert text == template.render(DIALOGUE["messages"]) + EOS
    assert template.stop_ids == token_ids(template.tokenizer, "<|user|>")


def test_a_token_within_an_answer_does_not_end_it() -> None:
    calling = NEXT_ROLE.replace(
        "{% endfor %}",
        "{% for c in m.tool_calls or [] %}{{ c.name }}</call>{% endfor %}{% endfor %}",
    )
    template = ChatTemplate(calling, tokenizer_with("</call>", *GLM_TOKENS))
    call = {"role": "assistant", "content": "", "tool_calls": [{"name": "f"}]}
    said = turns(("user", "q"), ("observation", "42"), ("assistant", "two"))
    row = {"messages": [said[0], call, *said[1:]]}
    assert learned_texts(template, row) == [["f</call><|observation|>", f"two{EOS}"]]


def test_a_marked_answer_includes_the_token_behind_its_mark() -> None:
    template = ChatTemplate(MARKED, tokenizer_with(*CHATML_TOKENS))
    assert learned_texts(template, DIALOGUE) == [["one<|im_end|>", "two<|im_end|>"]]
    (text,) = document_texts(template, DIALOGUE)
    assert text == template.render(DIALOGUE["messages"]).removesuffix("\n")
    assert template.stop_ids == token_ids(template.tokenizer, "<|im_end|>")


def test_a_token_that_closes_the_conversation_is_no_rewritten_turn() -> None:
    form = BUILT_IN["chatml"] + "{% if not add_generation_prompt %}{{ eos_token }}{% endif %}"
    template = ChatTemplate(form, tokenizer_with(*CHATML_TOKENS))
    assert learned_texts(template, DIALOGUE) == [["one<|im_end|>\n", f"two<|im_end|>\n{EOS}"]]
    assert document_texts(template, DIALOGUE) == [template.render(DIALOGUE["messages"])]
    assert template.stop_ids == token_ids(template.tokenizer, "<|im_end|>")
    only_closing = NEXT_ROLE.replace("{% if add", "{% if not add_generation_prompt %}"
                                     "{{ eos_token }}{% endif %}{% if add")  # fmt: skip
    template = ChatTemplate(only_closing, tokenizer_with(*GLM_TOKENS))
    assert learned_texts(template, DIALOGUE) == [["one<|user|>", f"two{EOS}"]]
    rewriting = "{{ messages[-1].content }}{{ eos_token }}"
    with pytest.raises(TemplateError, match="rewrites earlier turns"):
        learned_texts(ChatTemplate(rewriting, template.tokenizer), DIALOGUE)


def test_white_space_before_the_end_is_learned_too() -> None:
    form = MARKED.replace("{{ '<|im_end|>\n' }}", "{{ '\n <|im_end|>\n' }}")
    template = ChatTemplate(form, tokenizer_with(*CHATML_TOKENS))
    assert learned_texts(template, DIALOGUE) == [["one\n <|im_end|>", "two\n <|im_end|>"]]
    unmarked = form.replace("{% generation %}", "").replace("{% endgeneration %}", "")
    template = ChatTemplate(unmarked, tokenizer_with(*CHATML_TOKENS))
    assert learned_texts(template, DIALOGUE) == [["one\n <|im_end|>\n", "two\n <|im_end|>\n"]]
    assert template.stop_ids == token_ids(template.tokenizer, "<|im_end|>")


@pytest.mark.parametrize(
    ("form", "tokens", "end"), [(NEXT_ROLE, GLM_TOKENS, EOS), (MARKED, CHATML_TOKENS, "<|im_end|>")]
)
def test_both_answers_of_a_pair_end(form: str, tokens: tuple[str, ...], end: str) -> None:
    template = ChatTemplate(form, tokenizer_with(*tokens))
    assert learned_texts(template, PAIR) == [[f"good{end}"], [f"bad{end}"]]


@pytest.mark.parametrize("form", [BUILT_IN["plain"], BUILT_IN["chatml"], MARKED, NEXT_ROLE])
def test_every_learned_answer_ends_with_a_token_that_stops(form: str) -> None:
    template = ChatTemplate(form, tokenizer_with(*CHATML_TOKENS, *GLM_TOKENS))
    stops = {t for t, i in template.tokenizer.added_tokens.items() if i in template.stop_ids}
    for row in (DIALOGUE, PAIR, ask("q", "a")):
        for answers in learned_texts(template, row):
            assert all(answer.rstrip().endswith(tuple(stops)) for answer in answers)


def harmony_template() -> ChatTemplate:
    text = tokenizer_with(*HARMONY_TOKENS).text
    return ChatTemplate(HARMONY, Tokenizer(text, "test", "<|return|>"))


def test_a_token_between_thought_and_answer_ends_nothing() -> None:
    template = harmony_template()
    tokens = template.tokenizer.added_tokens
    assert template.stop_ids == {tokens["<|return|>"]}
    thought = "<|channel|>analysis<|message|>hm<|end|><|start|>assistant"
    one, two = (f"<|channel|>final<|message|>{text}" for text in ("one", "two"))
    messages = [*DIALOGUE["messages"][:3], DIALOGUE["messages"][3] | {"thinking": "hm"}]
    assert learned_texts(template, {"messages": messages}) == [[one, f"{thought}{two}<|return|>"]]
    assert template.encode(messages).ends == {tokens["<|return|>"]}
    marked = HARMONY.replace("{% else %}{% set", "{% else %}{% generation %}{% set")
    marked = marked.replace("'<|end|>' }}{% endif", "'<|end|>' }}{% endgeneration %}{% endif")
    by_mark = ChatTemplate(marked, template.tokenizer)
    assert by_mark.encode(messages).ends == {tokens["<|return|>"]}


def test_a_call_ends_with_its_own_token() -> None:
    template = harmony_template()
    call = {"function": {"name": "f", "arguments": {"a": 1}}}
    said = turns(("user", "q"), ("tool", "42"), ("assistant", "two"))
    messages = [said[0], {"role": "assistant", "tool_calls": [call]}, *said[1:]]
    final = "<|channel|>final<|message|>two<|return|>"
    assert learned_texts(template, {"messages": messages}) == [
        [' to=f<|message|>{"a": 1}<|call|>', final]
    ]
    tokens = template.tokenizer.added_tokens
    assert template.encode(messages).ends == {tokens["<|call|>"], tokens["<|return|>"]}


def test_an_added_token_that_is_not_special_ends_an_answer() -> None:
    form = BUILT_IN["chatml"].replace("<|im_end|>", "<|end|>")
    tokenizer = tokenizer_with("<|end|>", special=False)
    assert ChatTemplate(form, tokenizer).stop_ids == token_ids(tokenizer, "<|end|>")


def test_a_document_end_that_is_no_special_token_is_one_token() -> None:
    tokenizer = Tokenizer(tokenizer_with("</s>", special=False).text, "test", "</s>")
    assert "</s>" not in tokenizer.info.special_tokens
    template = ChatTemplate(BUILT_IN["plain"], tokenizer)
    (document,) = [template.encode(DIALOGUE["messages"])]
    ends = [int(document.tokens[end - 1]) for _, end in document.answers]
    assert ends == [tokenizer.info.eos_id] * 2


@pytest.mark.parametrize("form", [TEXT_END, BUILT_IN["chatml"]])
def test_an_end_of_several_tokens_is_refused(form: str, tmp_path: Path) -> None:
    (tmp_path / "t.jinja").write_text(form)
    with pytest.raises(DataError, match=r"ends with '.*which is no token .*would not stop: write"):
        build_rows(tmp_path, [DIALOGUE], template=str(tmp_path / "t.jinja"))
    assert not (tmp_path / "store").exists()


def test_rows_show_the_end_where_no_plain_conversation_does(tmp_path: Path) -> None:
    demanding = "{{ raise_exception('no tools') if not tools }}" + NEXT_ROLE
    template = ChatTemplate(demanding, tokenizer_with(*GLM_TOKENS))
    assert template.answer_end is None
    row = {"tools": [{"name": "f"}], **DIALOGUE}
    row["messages"] = [*row["messages"][:2], {"role": "observation", "content": "42"},
                       *row["messages"][3:]]  # fmt: skip
    assert learned_texts(template, row) == [["one<|observation|>", f"two{EOS}"]]
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    (folder / "tokenizer.json").write_text(template.tokenizer.text)
    (tmp_path / "t.jinja").write_text(demanding)
    store = build_rows(tmp_path, [row], tokenizer=str(folder), template=str(tmp_path / "t.jinja"))
    assert stored_stop_ids(store) == token_ids(store.tokenizer, "<|observation|>")
    reopened = stored_template(store)
    assert reopened is not None and reopened.stop_ids == stored_stop_ids(store)
    with_text = {**row, "messages": turns(("user", "q"), ("assistant", "a"), ("tool", "b"),
                                          ("assistant", "c"))}  # fmt: skip
    template = ChatTemplate(demanding, tokenizer_with("<|assistant|>"))
    with pytest.raises(TemplateError, match="no_end_token: an answer ends with"):
        learned_texts(template, with_text)


def test_a_base_model_s_own_template(tmp_path: Path) -> None:
    folder = tmp_path / "base"
    folder.mkdir()
    (folder / "tokenizer.json").write_text(tokenizer_with(*CHATML_TOKENS).text)
    own = [{"name": "tool_use", "template": "{{ 1 }}"}, {"name": "default", "template": MARKED}]
    values = {"eos_token": EOS, "chat_template": own}
    (folder / "tokenizer_config.json").write_text(json.dumps(values))
    store = build_rows(tmp_path, [DIALOGUE], tokenizer=str(folder), template="tokenizer")
    assert stored_stop_ids(store) == token_ids(store.tokenizer, "<|im_end|>")
    assert store.manifest.chat is not None
    assert set(store.manifest.chat.answer_ends) == token_ids(store.tokenizer, "<|im_end|>") - {
        store.tokenizer.info.eos_id
    }


def test_the_document_end_of_a_store_given_as_tokenizer(tmp_path: Path) -> None:
    first = build_rows(tmp_path, [DIALOGUE])
    manifest = first.manifest
    info = manifest.tokenizer.model_copy(
        update={"eos_token": "<end>", "special_tokens": {"<end>": 256}}
    )
    manifest.model_copy(update={"tokenizer": info}).write(first.path)
    file = write_rows(tmp_path / "more.jsonl", [DIALOGUE])
    build_chat_store([file], tmp_path / "second", tokenizer=str(first.path), held_out_fraction=0)
    assert Store.open(tmp_path / "second").manifest.tokenizer.eos_token == "<end>"


def test_a_store_from_before_answer_ends_were_kept(tmp_path: Path) -> None:
    store = build_rows(tmp_path, [DIALOGUE])
    path = store.path / "manifest.json"

    values: dict[str, Any] = json.loads(path.read_text())
    assert values["chat"].pop("answer_ends") == [256]
    path.write_text(json.dumps(values))
    assert stored_stop_ids(Store.open(store.path)) == {256}


def test_a_template_that_hides_messages_is_refused(tmp_path: Path) -> None:
    parts = (
        "{% for m in messages %}{% for p in m.content %}{{ p.text }}{% endfor %}{{ eos_token }}"
        "{% endfor %}"
    )
    (tmp_path / "t.jinja").write_text(parts)
    with pytest.raises(DataError, match="does not show the content of messages"):
        build_rows(tmp_path, [DIALOGUE], template=str(tmp_path / "t.jinja"))
    template = load_chat_template(str(tmp_path / "t.jinja"), byte_tokenizer(), None)
    assert template.stop_ids == {256}
