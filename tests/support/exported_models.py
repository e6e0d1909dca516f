"""Models with a tokenizer beside them, converted and as runs, without any training."""

import json
import shutil
from pathlib import Path
from typing import Any

from data.chat.build import build_chat_store
from data.chat.template_loading import BUILT_IN
from data.tokenization.tokenizer import train_bpe
from moe.config.experiment import make_experiment
from moe.convert.hugging_face import from_hub
from moe.runs.directory import RunDirectory
from tests.support.hf_reference_models import make_model

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|begin|>")
"""Of the tests' tokenizer: ids 0 and 257 to 259 of 261."""
VOCAB_SIZE = 264


def write_tokenizer(folder: Path, *, with_bos: bool = False, **settings: Any) -> None:
    """Write a byte-level `tokenizer.json` and its settings; `with_bos`: every text begins so."""
    values = json.loads(train_bpe(["a model learns"], 257).text)
    for index, content in enumerate(SPECIAL[1:], 257):
        token = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        values["added_tokens"].append({"id": index, "content": content, "special": True, **token})
        values["model"]["vocab"][content] = index
    if with_bos:
        begin = {"id": SPECIAL[3], "ids": [259], "tokens": [SPECIAL[3]]}
        text = {"Sequence": {"id": "A", "type_id": 0}}
        values["post_processor"] = {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": SPECIAL[3], "type_id": 0}}, text],
            "pair": [text, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {SPECIAL[3]: begin},
        }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(values))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": SPECIAL[0], **settings}))


def write_base(folder: Path, kind: str = "qwen3", **settings: Any) -> Any:
    """Write a Hugging Face model with a tokenizer; returns the model."""
    model = make_model(kind, folder, vocab_size=VOCAB_SIZE)
    write_tokenizer(folder, **settings)
    return model


def write_conversations(folder: Path, store: Path, template: str = "chatml") -> Path:
    """Write a conversation store made with the tokenizer in a folder."""
    rows = [[("user", f"what is {i}"), ("assistant", "it")] for i in range(4)]
    file = store.with_suffix(".jsonl")
    messages = [[{"role": role, "content": text} for role, text in row] for row in rows]
    file.write_text("".join(json.dumps({"messages": m}) + "\n" for m in messages))
    build_chat_store([file], store, tokenizer=str(folder), template=template, held_out_fraction=0)
    return store


def as_run(checkpoint: Path, store: Path, run: Path) -> Path:
    """Make a run that began with a converted checkpoint, with its weights as they are."""
    values = {
        "data": {"store": str(store)},
        "train": {"steps": 1, "seq_len": 32, "global_batch_size": 1, "init": str(checkpoint)},
    }
    RunDirectory(run, make_experiment(values), resume=False).release()
    ignored = shutil.ignore_patterns("model.toml", "hub")
    shutil.copytree(checkpoint, run / "checkpoints/step-00000001", ignore=ignored)
    return run


def converted(folder: Path, checkpoint: Path) -> Path:
    """Convert a Hugging Face model."""
    from_hub(folder, checkpoint)
    return checkpoint


CHATML = BUILT_IN["chatml"]
