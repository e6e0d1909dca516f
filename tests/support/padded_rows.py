"""Batches of given rows with any padding, and all that a training step reports of them."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from data.loading.batch import Batch
from moe.config.experiment import Experiment

EOS = 256
"""Of byte stores."""
Rows = Sequence[Sequence[int]]
"""The tokens of each row, and one more: the last token's label."""


def padded_batch(rows: Rows, seq_len: int) -> Batch:
    """Return the rows as one batch, each padded to `seq_len` positions as the loader does."""
    batch = Batch.empty(len(rows), seq_len, pin_memory=False)
    buffers = batch.rows()
    for row, tokens in enumerate(rows):
        filled = len(tokens) - 1
        buffers.tokens[row, :filled], buffers.labels[row, :filled] = tokens[:-1], tokens[1:]
        buffers.pad(filled, EOS, row)
    return batch


def document_batch(rows: Sequence[Rows], seq_len: int, *, packed: bool) -> Batch:
    """Return rows of several documents, whose every label counts, the first of one as well.

    Args:
        rows: The documents of each row.
        seq_len: Positions of a row.
        packed: Mask attention across documents.
    """
    batch = Batch.empty(len(rows), seq_len, pin_memory=False)
    buffers = batch.rows()
    for row, documents in enumerate(rows):
        filled = 0
        for tokens in documents:
            end = filled + len(tokens) - 1
            buffers.tokens[row, filled:end] = tokens[:-1]
            buffers.labels[row, filled:end] = tokens[1:]
            buffers.starts[row, filled] = True
            filled = end
        buffers.pad(filled, EOS, row)
    if packed:
        return replace(batch, cu_seqlens=torch.from_numpy(buffers.restart_positions()))
    return batch


class _OneStep:
    """A loader of one step."""

    def __init__(self, batches: list[Batch]) -> None:
        self._batches = batches

    def step(self, _index: int) -> list[Batch]:
        """Return the batches."""
        return self._batches


def reported(trainer: Any, micro_batches: Sequence[Rows], seq_len: int) -> dict[str, Any]:
    """Train one step of padded rows and return what it reports, as `reported_of` does."""
    return reported_of(trainer, [padded_batch(rows, seq_len) for rows in micro_batches])


def reported_of(trainer: Any, batches: list[Batch]) -> dict[str, Any]:
    """Train one step and return what it reports; weights stay, with a learning rate of almost 0."""
    from moe.training.logs.aux_losses import pop_mean_aux_losses
    from moe.training.step import train_step

    routers = {
        (name.startswith("mtp"), module.layer_number): module
        for chunk in trainer.chunks
        for name, module in chunk.module.named_modules()
        if hasattr(module, "rule") and module.rule.expert_bias
    }
    for router in routers.values():
        router.expert_bias.zero_()
    result = train_step(replace(trainer, loader=_OneStep(batches)), 0)
    assert result.rejection is None
    routing = trainer.routing.pop()
    biases = {place: router.expert_bias.numpy().copy() for place, router in routers.items()}
    return {
        "loss": result.loss,
        "grad_norm": result.grad_norm,
        "tokens": result.tokens,
        **pop_mean_aux_losses(trainer),
        "counts": routing.counts.numpy(),
        "sums": routing.sums.numpy(),
        "biases": biases,
    }


def reported_by_ranks(
    experiments: Sequence[Experiment], micro_batches: Sequence[Sequence[Rows]]
) -> list[dict[str, Any]]:
    """Return what a step of each experiment reports; this rank has its entry of `micro_batches`."""
    from moe.training.startup.build import build_trainer
    from parallel.engine.start import start_engine, stop_engine

    found = []
    engine = start_engine(experiments[0].parallel, seed=0)
    for experiment in experiments:
        trainer = build_trainer(experiment, engine)
        found.append(reported(trainer, micro_batches[engine.dp_rank], experiment.train.seq_len))
        trainer.close()
    stop_engine()
    return found


def assert_same_report(one: dict[str, Any], other: dict[str, Any], rtol: float = 1e-4) -> None:
    """Compare two reports; counts must be equal."""
    assert one.keys() == other.keys()
    for name, value in one.items():
        mine, its = value, other[name]
        if name == "biases":
            assert mine.keys() == its.keys()
            mine, its = (np.array([x[layer] for layer in sorted(x)]) for x in (mine, its))
        if mine is None:
            assert its is None, name
        elif name in {"counts", "tokens"}:
            np.testing.assert_array_equal(mine, its, err_msg=name)
        else:
            np.testing.assert_allclose(mine, its, rtol=rtol, atol=1e-7, err_msg=name)


def random_rows(lengths: Sequence[int], seed: int) -> list[list[int]]:
    """Return rows of given lengths."""
    chance: Any = np.random.default_rng(seed)
    rows: list[NDArray[np.int64]] = [chance.integers(0, EOS, length + 1) for length in lengths]
    return [row.tolist() for row in rows]
