"""An answer begins where its generation prompt ends, or the line says why not."""

import pytest

from data.chat.answer_ends import TemplateError
from data.chat.template import ChatTemplate
from data.tokenization.tokenizer import byte_tokenizer
from tests.support.chat_helpers import ask, learned_texts, turns

THINKING_PROMPT = (
    "{% for m in messages %}{% if m.role == 'user' %}{{ 'User:' + m.content }}{% else %}"
    "{{ 'Assistant:' + m.content.split('</think>')[-1] + eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:<think>\n' }}{% endif %}"
)
"""As DeepSeek-R1's: what its generation prompt ends with, no finished answer shows."""
MARKED = THINKING_PROMPT.replace(
    "{{ 'Assistant:' + m.content.split('</think>')[-1] + eos_token }}",
    "{{ 'Assistant:' }}{% generation %}{{ m.content + eos_token }}{% endgeneration %}",
)
FORGETTING = (
    "{% for m in messages %}{{ m.role }}{% if loop.last %}{{ m.reasoning_content }}{% endif %}"
    "{{ m.content + eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant' }}{% endif %}"
)


@pytest.mark.parametrize("count", [1, 2])
def test_a_generation_prompt_that_no_answer_shows(count: int) -> None:
    template = ChatTemplate(THINKING_PROMPT, byte_tokenizer())
    messages = turns(("user", "q"), ("assistant", "<think>\nhm</think>a")) * count
    with pytest.raises(TemplateError, match=r"prompt ends with 'Assistant:<think>\\n', and the answ"
                       r".*mark answers with \{% generation %\}"):  # fmt: skip
        template.encode(messages)
    assert learned_texts(
        ChatTemplate(MARKED, byte_tokenizer()), ask("q", "<think>\nhm</think>a")
    ) == [["<think>\nhm</think>a<|endoftext|>"]]


def test_turns_that_are_rewritten_are_to_be_cut() -> None:
    thinking = {"role": "assistant", "content": "a", "reasoning_content": "hm"}
    messages = [*turns(("user", "q")), thinking, *turns(("user", "r")), thinking]
    template = ChatTemplate(FORGETTING, byte_tokenizer())
    with pytest.raises(TemplateError, match="rewrites earlier turns: cut it into one a turn"):
        template.encode(messages)
    assert template.encode(messages[:2]).answers
