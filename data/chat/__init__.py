"""Conversations to a token store, by way of a chat template.

build.py             chat files to a conversation store
rows.py              the rows of chat files, in every format
examples.py          one row: a conversation, or a pair of them
messages.py          their messages in one form, and which answers are learned
encoding.py          an example to the documents of a store
unread_fields.py     what rows have that nothing reads, counted
template.py          conversations as text and tokens
spans.py             which text is which answer
span_tokens.py       the tokens of these texts, equal to those of transformers
shown.py             what a template shows: hidden messages, empty answers
spelling.py          what messages spell out stays plain text
rendering.py         a conversation's text, with the variables that templates get
answer_ends.py       the tokens that end answers
tool_calls.py        tool calls in the form that a template takes
template_loading.py  the template that `--template` names
stored.py            the template and the stop tokens of a store
jinja.py             Jinja as Hugging Face tokenizers use it, with limits
"""
