"""Readers that random access is measured with: ours, the bare array, and other libraries'.

Each prepares its own files from the same tokens (not timed), opens them, and returns a sample of
`seq_len` tokens and their labels as int64, as a training loop uses them.
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.bench_data.loader_stores import Corpus

Sample = NDArray[np.int64]
Read = Callable[[int], Sample]
"""Returns sample i, int64 [S + 1]."""


@dataclass(frozen=True)
class Reader:
    """One way to read samples."""

    name: str
    packages: tuple[str, ...]
    """Modules that it imports."""
    prepare: Callable[[Corpus], None]
    """Writes its files."""
    open: Callable[[Corpus], Read]
    exact: bool = True
    """Whether sample i is window i of the corpus; others shuffle documents themselves."""

    @property
    def missing(self) -> tuple[str, ...]:
        """Modules that are not installed."""
        return tuple(name for name in self.packages if find_spec(name) is None)


def _no_files(_corpus: Corpus) -> None:
    """Prepare nothing: the corpus's own files are read."""


def _open_memmap(corpus: Corpus) -> Read:
    tokens, length = corpus.tokens, corpus.seq_len
    return lambda i: tokens[i * length : i * length + length + 1].astype(np.int64)


def _open_array(corpus: Corpus) -> Read:
    tokens, length = np.asarray(corpus.tokens), corpus.seq_len
    return lambda i: tokens[i * length : i * length + length + 1].astype(np.int64)


def _open_store(corpus: Corpus) -> Read:
    stream, length = corpus.stream, corpus.seq_len
    return lambda i: stream.read(i * length, length + 1).astype(np.int64)


def _open_megatron(corpus: Corpus) -> Read:
    from megatron.core.datasets.blended_megatron_dataset_builder import (
        BlendedMegatronDatasetBuilder,
    )
    from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig

    config = GPTDatasetConfig(
        random_seed=0,
        sequence_length=corpus.seq_len,
        blend=([str(corpus.folder / "tokens")], None),
        split="1,0,0",
        path_to_cache=tempfile.mkdtemp(dir=corpus.folder),  # each start builds its index
        reset_position_ids=False,
        reset_attention_mask=False,
        eod_mask_loss=False,
        create_attention_mask=False,
        tokenizer=_MegatronTokenizer(),
    )
    sizes = [corpus.num_windows, 0, 0]
    dataset = BlendedMegatronDatasetBuilder(GPTDataset, sizes, lambda: True, config).build()[0]

    def read(index: int) -> Sample:
        sample = dataset[index]
        tokens, last = sample["tokens"].numpy(), sample["labels"][-1:].numpy()
        return np.concatenate([tokens, last])

    return read


class _MegatronTokenizer:
    """What GPTDataset reads of a tokenizer."""

    eod = 256
    pad = 257
    vocab_size = 258
    unique_identifiers: dict[str, Any] = {"class": "bytes"}  # noqa: RUF012 - megatron reads it


def _windows(corpus: Corpus) -> NDArray[Any]:
    """Return all samples, [windows, S + 1], as a view."""
    length = corpus.seq_len
    view = np.lib.stride_tricks.sliding_window_view(corpus.tokens, length + 1)
    windows: NDArray[Any] = view[::length]
    return windows


def _prepare_datasets(corpus: Corpus) -> None:
    import pyarrow as pa
    from datasets import Dataset, disable_progress_bars

    disable_progress_bars()
    values = pa.array(np.ascontiguousarray(_windows(corpus)).reshape(-1))
    offsets = pa.array(np.arange(corpus.num_windows + 1, dtype=np.int32) * (corpus.seq_len + 1))
    table = pa.table({"input_ids": pa.ListArray.from_arrays(offsets, values)})
    Dataset(table).save_to_disk(str(corpus.folder / "datasets"))


def _open_datasets(corpus: Corpus) -> Read:
    from datasets import load_from_disk

    rows = load_from_disk(str(corpus.folder / "datasets")).with_format("numpy")
    return lambda i: rows[i]["input_ids"].astype(np.int64)


def _prepare_litdata(corpus: Corpus) -> None:
    import torch
    from litdata.streaming.cache import Cache
    from litdata.streaming.item_loader import TokensLoader

    loader = TokensLoader(block_size=corpus.seq_len + 1)
    cache = Cache(str(corpus.folder / "litdata"), chunk_bytes="64MB", item_loader=loader)
    for index, window in enumerate(_windows(corpus)):
        cache[index] = torch.from_numpy(window.astype(np.uint16))
    cache.done()
    cache.merge()


def _open_litdata(corpus: Corpus) -> Read:
    from litdata import StreamingDataset
    from litdata.streaming.item_loader import TokensLoader

    dataset = StreamingDataset(
        str(corpus.folder / "litdata"), item_loader=TokensLoader(block_size=corpus.seq_len + 1)
    )
    return lambda i: dataset[i].numpy().astype(np.int64)


def _prepare_grain(corpus: Corpus) -> None:
    from array_record.python.array_record_module import ArrayRecordWriter

    writer = ArrayRecordWriter(str(corpus.folder / "grain.array_record"), "group_size:1")
    for window in _windows(corpus):
        writer.write(window.tobytes())
    writer.close()


def _open_grain(corpus: Corpus) -> Read:
    from grain.sources import ArrayRecordDataSource

    source = ArrayRecordDataSource(str(corpus.folder / "grain.array_record"))
    dtype = corpus.tokens.dtype
    return lambda i: np.frombuffer(source[i], dtype=dtype).astype(np.int64)


READERS = (
    Reader("numpy memmap", (), _no_files, _open_memmap),
    Reader("numpy memmap as array", (), _no_files, _open_array),
    Reader("moescale", (), _no_files, _open_store),
    Reader("megatron GPTDataset", ("megatron",), _no_files, _open_megatron, exact=False),
    Reader("Hugging Face datasets", ("datasets",), _prepare_datasets, _open_datasets),
    Reader("LitData", ("litdata",), _prepare_litdata, _open_litdata),
    Reader("grain ArrayRecord", ("grain", "array_record"), _prepare_grain, _open_grain),
)
"""The first is the baseline of the others."""
