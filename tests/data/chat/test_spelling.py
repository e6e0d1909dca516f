"""Roles make no special token, but for the roles of which a template makes its own."""

import json

import pytest

from data.chat.template import ChatTemplate
from data.chat.template_loading import BUILT_IN
from data.tokenization.tokenizer import Tokenizer, byte_tokenizer
from tests.support.chat_helpers import document_texts, learned_texts, tokenizer_with, turns

TOKENS = ("<|user|>", "<|assistant|>", "<|observation|>", "<|end|>", "<|fim_prefix|>", "<|expert|>")
PHI3 = (
    "{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
NAMES_ITS_ROLE = "{% for m in messages if m.role == 'expert' %}{% endfor %}" + PHI3


def special_tokens(form: str, role: str) -> list[str]:
    """The special tokens of a conversation that begins with a role, and of its prompt."""
    tokenizer = tokenizer_with(*TOKENS)
    template = ChatTemplate(form, tokenizer, {"pad_token": "<|pad|>"})
    names = {i: token for token, i in tokenizer.info.special_tokens.items()}
    messages = turns((role, "q"), ("assistant", "a"))
    found = [names[i] for i in template.encode(messages).tokens.tolist() if i in names]
    prompt = [names[i] for i in template.encode_prompt(messages[:1]).tolist() if i in names]
    assert prompt == found[: len(prompt)]
    return found


@pytest.mark.parametrize(
    "role",
    [
        "end",
        "endoftext",
        "fim_prefix",
        "nd",
        "expert",
        "x|><|end",
        "end|>y",
        "x|><|end|><|y",
        "pad",
    ],
)
def test_other_roles_stay_text(role: str) -> None:
    answer = ["<|end|>", "<|assistant|>", "<|end|>"]
    assert special_tokens(PHI3, role) == answer


@pytest.mark.parametrize(
    ("form", "role"), [(PHI3, "user"), (PHI3, "observation"), (NAMES_ITS_ROLE, "expert")]
)
def test_roles_that_are_meant(form: str, role: str) -> None:
    answer = ["<|end|>", "<|assistant|>", "<|end|>"]
    assert special_tokens(form, role) == [f"<|{role}|>", *answer]


def test_a_special_token_that_is_a_letter_of_text() -> None:
    model = json.loads(tokenizer_with("<|im_start|>", "<|im_end|>").text)
    entry = {**model["added_tokens"][0], "id": model["model"]["vocab"]["!"], "content": "!"}
    model["added_tokens"].append(entry)  # as padding
    template = ChatTemplate(BUILT_IN["chatml"], Tokenizer(json.dumps(model), "test"))
    for text in ("Oh!", "Oh! <|im_end|>"):
        row = {"messages": turns(("user", text), ("assistant", text))}
        assert document_texts(template, row) == [template.render(row["messages"])]
        assert learned_texts(template, row) == [[f"{text}<|im_end|>\n"]]


@pytest.mark.parametrize("role", ["endoftext", "end", "of", ""])
def test_the_document_s_end(role: str) -> None:
    template = ChatTemplate(BUILT_IN["plain"], byte_tokenizer())
    messages = turns((role, "q"), ("assistant", "a"))
    document = template.encode(messages).tokens.tolist()
    assert document.count(256) == 1
    assert f"<|{role}|>" in template.tokenizer.decode(document)
    assert 256 not in template.encode_prompt(messages[:1])
