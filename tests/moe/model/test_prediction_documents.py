"""Multi-token prediction stays within documents and reads no padding, in both kernel sets."""

from itertools import accumulate
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from moe.config.experiment import Experiment
from tests.support.architecture_options import DENSE, MOE
from tests.support.distributed import run_ranks
from tests.support.layout_equivalence import make, started
from tests.support.padded_rows import assert_same_report, document_batch, random_rows, reported_of
from tests.support.transformer_engine.comparison import device
from tests.support.transformer_engine.fp8 import need_card
from tests.support.transformer_engine.ranks import run_te_ranks

pytestmark = pytest.mark.engine
SEQ_LEN, DEPTHS = 24, 2
LENGTHS = [[7, 1, 5, 9], [2, 12, 3]]
"""Tokens of each row's documents; padding follows."""
ONE_EACH: dict[str, Any] = {"micro_batch_size": 1, "global_batch_size": 2}
LAYOUTS: dict[str, dict[str, Any]] = {
    "tp2": {"tp": 2},
    "cp2": {"cp": 2},
    "pp2": {"pp": 2},
    "recompute": {"recompute": "full"},
}


def _usable(depth: int) -> list[list[int]]:
    """Return the [row, position] of hidden states that may read the token `depth` further on.

    Its label is then that token's own, so of the same document.
    """
    found = []
    for row, lengths in enumerate(LENGTHS):
        for end, length in zip(accumulate(lengths), lengths, strict=True):
            for position in range(end - length, end):
                if position + depth < end:
                    found.append([row, position])
    return found


def _documents() -> list[list[list[int]]]:
    return [random_rows(lengths, seed=row) for row, lengths in enumerate(LENGTHS)]


def _ahead() -> list[list[int]]:
    from moe.model.padding import tokens_ahead

    batch = document_batch(_documents(), SEQ_LEN, packed=True)
    config: Any = SimpleNamespace(mtp_num_layers=DEPTHS)
    groups = SimpleNamespace(cp=SimpleNamespace(size=lambda: 1))
    ahead = tokens_ahead(batch.labels, batch.padding_mask, batch.cu_seqlens, config, groups)
    return ahead.tolist()


def test_a_position_reads_ahead_only_within_its_document() -> None:
    ahead = run_ranks(1, _ahead)[0]
    for depth in range(1, DEPTHS + 1):
        places = [(row, i) for row, line in enumerate(ahead) for i in range(len(line))]
        assert [[row, i] for row, i in places if ahead[row][i] >= depth] == _usable(depth)


def _experiment(store: Path, kernels: str, fp8: str = "none", **layout: Any) -> Experiment:
    moe = MOE | {"load_balancing": "none", "score_function": "sigmoid", "expert_bias": True}
    return make(
        store, {"distributed_optimizer": False} | layout,
        model=DENSE | {"qk_norm": "head", "moe": moe, "mtp_layers": DEPTHS},
        train=ONE_EACH | {"seq_len": SEQ_LEN, "learning_rate": 1e-20},
        precision={"kernels": kernels, "fp8": fp8, "dtype": "fp32" if fp8 == "none" else "bf16"},
    )  # fmt: skip


def _report(experiment: Experiment, packed: bool) -> dict[str, Any]:
    """Report a step over the documents, packed into rows or each in a row of its own."""
    rows = _documents()
    if not packed:
        rows = [[document] for documents in rows for document in documents]
    with started(experiment) as trainer:
        batches = [document_batch([row], SEQ_LEN, packed=packed) for row in rows]
        return reported_of(trainer, batches)


@pytest.fixture(scope="module")
def alone(store: Path) -> dict[str, Any]:
    """What documents report that share no row."""
    found: dict[str, Any] = run_ranks(1, _report, _experiment(store, "torch"), False)[0]
    return found


def _assert_same(found: dict[str, Any], alone: dict[str, Any]) -> None:
    biases = {k: v for k, v in alone["biases"].items() if k in found["biases"]}
    assert_same_report(found, alone | {"biases": biases})


def test_documents_of_one_row_train_like_rows_of_their_own(
    store: Path, alone: dict[str, Any]
) -> None:
    _assert_same(run_ranks(1, _report, _experiment(store, "torch"), True)[0], alone)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(layout: str, store: Path, alone: dict[str, Any]) -> None:
    ranks = 1 if layout == "recompute" else 2
    experiment = _experiment(store, "torch", **LAYOUTS[layout])
    for found in run_ranks(ranks, _report, experiment, True):
        _assert_same(found, alone)


@pytest.mark.needs("transformer_engine")
@pytest.mark.parametrize("layout", [None, "tp2", "pp2", "recompute"])
def test_transformer_engine(layout: str | None, store: Path) -> None:
    laid_out = {"device": device()} | LAYOUTS.get(layout or "", {})
    ranks = 2 if layout in {"tp2", "pp2"} else 1
    [alone] = run_te_ranks(1, _report, _experiment(store, "te", device=device()), False)
    for found in run_te_ranks(ranks, _report, _experiment(store, "te", **laid_out), True):
        _assert_same(found, alone)


@pytest.mark.needs("transformer_engine")
@pytest.mark.parametrize("fp8", ["delayed", "current"])
def test_recomputed_in_fp8(fp8: str, store: Path) -> None:
    need_card(fp8)
    plain, recomputed = (
        run_te_ranks(1, _report, _experiment(store, "te", fp8, device=device(), **layout), True)[0]
        for layout in ({}, LAYOUTS["recompute"])
    )
    assert_same_report(recomputed, plain, rtol=1e-6)
