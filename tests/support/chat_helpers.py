"""Chat files, templates and tokenizers for the tests of conversation stores."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data.chat.build import build_chat_store
from data.chat.encoding import encode_example
from data.chat.examples import read_example
from data.chat.template import ChatTemplate
from data.store.reader import Store
from data.tokenization.tokenizer import Tokenizer, train_bpe

CHATML_TOKENS = ("<|im_start|>", "<|im_end|>")


def tokenizer_with(*tokens: str, special: bool = True) -> Tokenizer:
    """A BPE with added tokens."""
    model = json.loads(train_bpe(["a text", "another text"], 300).text)
    for token in tokens:
        entry = {**model["added_tokens"][0], "id": len(model["model"]["vocab"])}
        model["added_tokens"].append(entry | {"content": token, "special": special})
        model["model"]["vocab"][token] = entry["id"]
    return Tokenizer(json.dumps(model), "test")


def write_rows(path: Path, rows: Sequence[Any]) -> Path:
    """Write a JSONL file."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def turns(*pairs: tuple[str, str]) -> list[dict[str, Any]]:
    """Messages by role and content."""
    return [{"role": role, "content": text} for role, text in pairs]


def ask(question: str, answer: str) -> dict[str, Any]:
    """A row of one question and its answer."""
    return {"messages": turns(("user", question), ("assistant", answer))}


def learned_texts(template: ChatTemplate, row: dict[str, Any]) -> list[list[str]]:
    """The answers that each document of a row teaches, as text with special tokens."""
    return [
        [spelled(template, document.tokens[first:end].tolist()) for first, end in document.answers]
        for document in encode_example(template, read_example(json.dumps(row).encode()))
    ]


def document_texts(template: ChatTemplate, row: dict[str, Any]) -> list[str]:
    """The documents of a row, as text with special tokens."""
    documents = encode_example(template, read_example(json.dumps(row).encode()))
    return [spelled(template, document.tokens.tolist()) for document in documents]


def spelled(template: ChatTemplate, ids: Sequence[int]) -> str:
    """Text of ids, special tokens spelled out."""
    tokenizer = template.tokenizer
    names = {i: token for token, i in tokenizer.added_tokens.items()}
    texts: list[str] = []
    plain: list[int] = []
    for token in ids:
        if token in names:
            texts += [tokenizer.decode(plain), names[token]]
            plain = []
        else:
            plain.append(token)
    return "".join([*texts, tokenizer.decode(plain)])


def build_rows(folder: Path, rows: Sequence[Any], **options: Any) -> Store:
    """A store of rows; bytes as tokens and nothing held out, unless said otherwise."""
    file = write_rows(folder / "t.jsonl", rows)
    options = {"tokenizer": "bytes", "held_out_fraction": 0.0} | options
    build_chat_store([file], folder / "store", **options)
    return Store.open(folder / "store")
