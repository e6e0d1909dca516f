"""The tools that `moe bench build` times, each in its own process: JSON lines in, tokens out.

All use the same `tokenizer.json` and number of workers, and end every document with EOS. The peers
call the tokenizers library directly, faster than through the wrappers that are mostly used.
"""

import json
import multiprocessing
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Tool = Callable[[Path, Path, Path, int], int]
"""Takes the JSON lines, `tokenizer.json`, an output folder and workers; returns its tokens."""

EOS_TOKEN = "<|endoftext|>"
MEGATRON_CHUNK = 32
DATASETS_BATCH = 1000

_tokenizer: Any


def moescale_tool(source: Path, tokenizer: Path, out: Path, workers: int) -> int:
    """Build a store: read, check, drop equal texts, tokenize, write, hash, flush to disk."""
    from data.build.build import build_recipe
    from data.recipe import make_recipe

    values = {"source": [{"paths": [source]}], "tokenizer": str(tokenizer), "held_out_fraction": 0}
    return build_recipe(make_recipe(values, "benchmark"), out / "store", workers=workers).tokens


def datasets_tool(source: Path, tokenizer: Path, out: Path, workers: int) -> int:
    """Load the lines with Hugging Face datasets and map the tokenizer over them, in batches."""
    from datasets import disable_caching, disable_progress_bars, load_dataset

    disable_progress_bars()
    disable_caching()
    lines = load_dataset("json", data_files=str(source), split="train", cache_dir=str(out))
    mapped = lines.map(
        _map_batch,
        batched=True,
        batch_size=DATASETS_BATCH,
        num_proc=workers,
        remove_columns=lines.column_names,
        fn_kwargs={"tokenizer": str(tokenizer)},
    )
    return sum(len(chunk.flatten()) for chunk in mapped.data.column("input_ids").chunks)


def _map_batch(batch: dict[str, list[str]], tokenizer: str) -> dict[str, list[list[int]]]:
    _load(tokenizer)
    eos = _tokenizer.token_to_id(EOS_TOKEN)
    encoded = _tokenizer.encode_batch_fast(batch["text"], add_special_tokens=False)
    return {"input_ids": [[*encoding.ids, eos] for encoding in encoded]}


def megatron_tool(source: Path, tokenizer: Path, out: Path, workers: int) -> int:
    """Do what Megatron-LM's `tools/preprocess_data.py` does: workers encode, one process writes."""
    import numpy as np
    import torch
    from megatron.core.datasets.indexed_dataset import IndexedDatasetBuilder

    builder = IndexedDatasetBuilder(str(out / "text.bin"), dtype=np.uint16)
    tokens = 0
    with (
        source.open(encoding="utf-8") as lines,
        multiprocessing.get_context("fork").Pool(workers, _load, (str(tokenizer),)) as pool,
    ):
        for ids in pool.imap(_encode_line, lines, MEGATRON_CHUNK):
            builder.add_item(torch.IntTensor(ids))
            builder.end_document()
            tokens += len(ids)
        pool.close()
        pool.join()
    builder.finalize(str(out / "text.idx"))
    return tokens


def _load(tokenizer: str) -> None:
    global _tokenizer  # noqa: PLW0603  (one a process)
    if "_tokenizer" not in globals():
        from tokenizers import Tokenizer

        _tokenizer = Tokenizer.from_file(tokenizer)
        _tokenizer.encode_special_tokens = True


def _encode_line(line: str) -> list[int]:
    text = json.loads(line)["text"]
    ids: list[int] = _tokenizer.encode(text, add_special_tokens=False).ids
    return [*ids, _tokenizer.token_to_id(EOS_TOKEN)]


TOOLS: dict[str, tuple[Tool, str]] = {
    "moescale": (moescale_tool, "data.build.build"),
    "datasets.map": (datasets_tool, "datasets"),
    "Megatron's shape": (megatron_tool, "megatron.core.datasets.indexed_dataset"),
}
"""Each tool with the module that is imported before it is timed."""


def _cpu_seconds() -> float:
    """Return the processor time of this process and of its children that have ended, s."""
    usages = [resource.getrusage(w) for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def main(name: str, source: str, tokenizer: str, out: str, workers: str) -> None:
    """Run one tool and print its tokens and seconds."""
    import importlib

    tool, module = TOOLS[name]
    importlib.import_module(module)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    wall_s, cpu_s = time.perf_counter(), _cpu_seconds()
    tokens = tool(Path(source), Path(tokenizer), Path(out), int(workers))
    result = {
        "tokens": tokens,
        "seconds": time.perf_counter() - wall_s,
        "cpu_seconds": _cpu_seconds() - cpu_s,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main(*sys.argv[1:])
