"""Padding changes nothing that a step computes or reports, however much of it a row holds."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from data.build.build import build_store
from data.loading.packing import pack_store
from data.store.reader import Store
from moe.config.experiment import Experiment
from tests.support.architecture_options import DENSE, MOE, compute
from tests.support.distributed import run_ranks
from tests.support.layout_equivalence import assemble, make, started, worst_difference
from tests.support.padded_rows import (
    assert_same_report,
    padded_batch,
    random_rows,
    reported,
    reported_by_ranks,
)
from tests.support.reference_model import SlowModel

pytestmark = pytest.mark.engine
QUICK = (Phase.generate,)
"""Each example trains two steps: a smaller failing one is not looked for."""
Z = {"z_loss_coefficient": 0.05}
SIGMOID = {"score_function": "sigmoid", "expert_bias": True, "expert_bias_update_rate": 0.01}
RULES: dict[str, dict[str, Any]] = {
    "aux_loss": Z,
    "seq_aux_loss": {"load_balancing": "seq_aux_loss", "aux_loss_coefficient": 0.2},
    "global_aux_loss": {"load_balancing": "global_aux_loss", "aux_loss_coefficient": 0.2},
    "sinkhorn": {"load_balancing": "sinkhorn"},
    "bias": SIGMOID | {"load_balancing": "none"},
    "capacity": Z | {"capacity_factor": 0.8},
    "capacity_by_position": {"capacity_factor": 0.7, "token_drop_policy": "position"},
    "forced_balance": {"forced_balance": True, "capacity_factor": 0.9},
    "predicting": SIGMOID | Z,
}
"""Everything that considers several positions at once; the last with two prediction layers."""


def _model(rule: str) -> dict[str, Any]:
    return DENSE | {"moe": MOE | RULES[rule], "mtp_layers": 2 if rule == "predicting" else 0}


def _experiment(
    store: Path, rule: str, seq_len: int, layout: dict[str, Any] | None = None, **train: Any
) -> Experiment:
    sizes = {"micro_batch_size": 2, "global_batch_size": 4, "learning_rate": 1e-20}
    plain = {"distributed_optimizer": False}
    return make(store, plain | (layout or {}), model=_model(rule),
                train=sizes | {"seq_len": seq_len} | train)  # fmt: skip


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store packed by best fit, whose rows of 24 are padded by 1 to 11 positions."""
    folder = tmp_path_factory.mktemp("packed")
    lengths = [13, 23, 14, 22, 16, 18, 15, 19]
    lines = [bytes(token % 26 + 97 for token in row[:-1]).decode() + "\n"
             for row in random_rows(lengths, seed=5)]  # fmt: skip
    file = folder / "text.jsonl"
    file.write_text("".join(f'{{"text": "{line.strip()}"}}\n' for line in lines))
    build_store([file], folder / "store", tokenizer="bytes", held_out_fraction=0.0)
    pack_store(Store.open(folder / "store"), 24)
    return folder / "store"


def test_padded_rows_compute_what_the_reference_does(packed: Path) -> None:
    data = {"store": str(packed), "prefetch_steps": 0, "packing": "best_fit", "document_mask": True}
    sizes = {"seq_len": 24, "micro_batch_size": 2, "global_batch_size": 4}
    experiments = {
        rule: make(packed, {"distributed_optimizer": False}, model=_model(rule), data=data,
                   train=sizes)
        for rule in RULES
    }  # fmt: skip
    for rule, found in run_ranks(1, compute, experiments)[0].items():
        assert any((batch["lengths"] < 24).any() for batch in found.batches)
        whole = {key: torch.tensor(x) for key, x in assemble([found.weights]).items()}
        weights = {key: value.requires_grad_() for key, value in whole.items()}
        model = SlowModel(experiments[rule].model, weights)
        batches = [{k: torch.from_numpy(v) for k, v in b.items()} for b in found.batches]
        step = model.step(batches)
        (step.objective / found.tokens).backward()
        assert found.loss_sum == pytest.approx(step.losses.item(), rel=1e-5)
        gradients = assemble([found.gradients])
        learned = {k: w for k, w in weights.items() if w.grad is not None}
        expected = {k: w.grad.numpy() for k, w in learned.items() if w.grad is not None}
        computed = {k: gradients[k] for k in expected}
        difference, key = worst_difference(expected, computed)
        assert difference < 1e-4, (rule, key)
        for at, load in step.loads.items():
            if at.startswith("decoder"):
                assert found.load[int(at.split(".")[2])].tolist() == load.tolist(), rule


def _check_invariance(experiments: list[Experiment]) -> None:
    """Compare steps of the same rows under different padding, for models in turn."""
    for experiment in experiments:
        with started(experiment) as trainer:

            @settings(max_examples=8, derandomize=True, deadline=None, database=None, phases=QUICK)
            @given(
                lengths=st.lists(st.integers(1, 12), min_size=4, max_size=4),
                padding=st.tuples(st.integers(0, 3), st.integers(1, 20)),
                seed=st.integers(0, 2**16),
            )
            def invariant(lengths: list[int], padding: tuple[int, int], seed: int) -> None:
                rows = random_rows(lengths, seed)
                micro_batches = [rows[:2], rows[2:]]
                less, more = (
                    reported(trainer, micro_batches, max(lengths) + extra) for extra in padding
                )
                assert_same_report(less, more)
                top_k, kept_and_dropped = 2, less["counts"].sum(1) + less["sums"][:, 1]
                assert kept_and_dropped.tolist() == [sum(lengths) * top_k] * 2

            invariant()


def test_what_a_step_reports_does_not_depend_on_padding(store: Path) -> None:
    run_ranks(1, _check_invariance, [_experiment(store, rule, 32) for rule in RULES])


LAYOUTS: dict[str, dict[str, Any]] = {
    "tp2_ep2": {"tp": 2, "ep": 2},
    "cp2_ep2": {"cp": 2, "ep": 2},
    "pp2_recompute": {"pp": 2, "recompute": "full"},
    "dp2_ep2": {"ep": 2},
}
LAID_OUT = ("aux_loss", "seq_aux_loss", "global_aux_loss", "bias", "predicting")


@pytest.fixture(scope="module")
def alone(store: Path) -> list[dict[str, Any]]:
    """What one process reports, with little padding, of rows that some rank holds nothing of."""
    experiments = [_experiment(store, rule, 8) for rule in LAID_OUT]
    found: list[dict[str, Any]] = run_ranks(1, reported_by_ranks, experiments, [MICRO_BATCHES])[0]
    return found


MICRO_BATCHES = [random_rows([3, 8], seed=1), random_rows([5, 2], seed=2)]
"""Of 32 positions the second half, and chunks 1 and 2 of 4 (rank 1's with cp = 2), are padding."""


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_agree_where_a_rank_holds_only_padding(
    layout: str, store: Path, alone: list[dict[str, Any]]
) -> None:
    values = LAYOUTS[layout]
    experiments = [_experiment(store, rule, 32, values) for rule in LAID_OUT]
    by_rank = [[batch] for batch in MICRO_BATCHES] if layout == "dp2_ep2" else [MICRO_BATCHES]
    for rank in run_ranks(2, reported_by_ranks, experiments, by_rank):
        for rule, found, expected in zip(LAID_OUT, rank, alone, strict=True):
            if (layout, rule) == ("dp2_ep2", "global_aux_loss"):
                continue  # the loads that it balances are those of both ranks at once
            biases = {k: v for k, v in expected["biases"].items() if k in found["biases"]}
            assert_same_report(found, expected | {"biases": biases})


def _replayed(experiment: Experiment, micro_batches: list[Any]) -> list[Any]:
    """Record and replay a forward pass over padded rows; returns both sums, and sizes recorded."""
    from moe.routing.replay import recording, replaying

    with started(experiment) as trainer:
        chunks = [chunk.module for chunk in trainer.chunks]
        batches = [padded_batch(rows, 32) for rows in micro_batches]
        with recording(chunks) as record:
            natural = trainer.forward_backward(batches, forward_only=True)
        with replaying(chunks, record):
            replayed = trainer.forward_backward(batches, forward_only=True)
        sizes = [[len(experts) for experts in passes] for passes in record.passes.values()]
        return [natural.tolist(), replayed.tolist(), sizes]


def test_padding_is_neither_recorded_nor_replayed(store: Path) -> None:
    experiment = _experiment(store, "capacity", 32)
    natural, replayed, sizes = run_ranks(1, _replayed, experiment, MICRO_BATCHES)[0]
    assert replayed == natural
    assert sizes == [[3 + 8, 5 + 2]] * 2


class _Spy:
    """A model of 5 tokens that keeps the padding it is told of."""

    def __init__(self) -> None:
        self.weight, self.masks = torch.zeros(1), list[Any]()

    def parameters(self) -> Any:
        return iter([self.weight])

    def modules(self) -> Any:
        return iter([])

    def __call__(self, tokens: Any, *_: Any, padding_mask: Any = None) -> Any:
        self.masks.append(None if padding_mask is None else padding_mask.long().tolist())
        return torch.zeros(*tokens.shape, 5)


def _told_of_padding() -> list[Any]:
    """Return the padding that scoring and generation tell a model of."""
    from moe.evaluation.scoring import score_continuations
    from moe.model.incremental_decoding import incremental_decoder

    spy = _Spy()
    config = SimpleNamespace(vocab_size=5, max_seq_len=9)
    model: Any = SimpleNamespace(chunk=spy, config=config, device="cpu")
    score_continuations(model, [([1, 2, 3], [4]), ([1], [2])])
    with incremental_decoder(spy, [0, 2], 4) as decoder:
        decoder.next_logits(torch.ones(2, 3, dtype=torch.int64))
        decoder.next_logits(torch.ones(2, 1, dtype=torch.int64))
    return spy.masks


def test_evaluation_tells_models_of_padding() -> None:
    scoring, prompt, token = run_ranks(1, _told_of_padding)[0]
    assert scoring == [[0, 0, 0], [0, 1, 1]]
    assert prompt == [[0, 0, 0], [1, 1, 0]]
    assert token == [[0], [0]]
