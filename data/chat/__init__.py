"""Conversations to a token store, by way of a chat template.

build.py             chat JSONL to a conversation store
examples.py          one line of chat JSONL: a conversation, or a pair of them
template.py          conversations as text and tokens
template_loading.py  the template that `--template` names
jinja.py             Jinja as Hugging Face tokenizers use it
"""
