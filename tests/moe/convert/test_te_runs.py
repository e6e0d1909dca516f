"""What is done with a trained model, done with one that kernel set `te` trained; and `te` begins
with what others made."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moe.config.model import ModelConfig
from tests.support.architecture_options import CONFIGS
from tests.support.checkpoint_content import checkpoint_content
from tests.support.fault_injection import rows
from tests.support.layout_equivalence import FullTensors, assemble, shards, started
from tests.support.trained_runs import command
from tests.support.transformer_engine.ranks import run_te_ranks
from tests.support.transformer_engine.runs import Job, experiment, train_all

pytestmark = [pytest.mark.engine, pytest.mark.needs("transformer_engine")]
SPARSE = CONFIGS["deepseek_v3"].model_dump()
SPARSE["moe"] |= {"shared_expert_ffn_hidden_size": 12, "group_score_experts": 2}
MODELS = {"sparse": ModelConfig.model_validate(SPARSE), "dense": CONFIGS["dense"]}
TRAIN = {"steps": 1, "warmup_steps": 0}
EVALUATIONS = ({"eval_sequences": 10_000}, {"eval_sequences": 4})
"""Of the first all: `moe eval` takes others, where it takes fewer."""


@pytest.fixture(scope="module")
def runs(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of each kind of model in kernel set `te`."""
    root = tmp_path_factory.mktemp("runs")
    train_all(
        [
            Job(experiment(store, "te", model=model, train=TRAIN | evaluation), root / name)
            for (name, model), evaluation in zip(MODELS.items(), EVALUATIONS, strict=True)
        ]
    )
    return root


def content(checkpoint: Path) -> FullTensors:
    """Return a checkpoint's weights."""
    tensors = checkpoint_content(checkpoint)
    return {key: value for key, value in tensors.items() if not key.startswith("optimizer.")}


def newest(run: Path) -> Path:
    return run / "checkpoints/step-00000001"


def done(*arguments: str | Path) -> dict[str, Any]:
    """Run `moe ... --json`; returns what it printed."""
    code, said, fault = command(*arguments, "--json")
    assert code == 0, fault
    found: dict[str, Any] = json.loads(said)
    return found


def test_it_is_evaluated(runs: Path) -> None:
    run = runs / "sparse"
    found = done("eval", run, "--device", "cpu")
    assert found["loss"] == pytest.approx(rows(run, "evaluations")[-1]["loss"], rel=1e-5)


@pytest.mark.parametrize(
    "arguments",
    [("generate", "a model", "--max-new-tokens", "2"),
     ("audit", "--candidates", "7", "--passages", "2", "--device", "cpu")],
    ids=["generate", "audit"],
)  # fmt: skip
def test_text_is_read_and_written_with_it(arguments: tuple[str, ...], runs: Path) -> None:
    assert done(arguments[0], runs / "sparse", *arguments[1:])


def test_a_dense_one_becomes_sparse(runs: Path, tmp_path: Path) -> None:
    out = tmp_path / "sparse"
    done("convert", "upcycle", runs / "dense", "-o", out, "--experts", "4", "--top-k", "2")
    dense, sparse = content(newest(runs / "dense")), content(out)
    name = "decoder.layers.0.mlp.{}linear_fc1.weight"
    experts = sparse[name.format("experts.experts.")]
    assert all(np.array_equal(expert, dense[name.format("")]) for expert in experts)


def _first_weights(wanted: Any) -> Any:
    with started(wanted) as trainer:
        return shards(trainer.chunks)


@pytest.mark.needs("hub")
def test_it_goes_to_hugging_face_and_trains_on_in_any_kernels(
    runs: Path, store: Path, tmp_path: Path
) -> None:
    run, hub, back = runs / "sparse", tmp_path / "hub", tmp_path / "back"
    done("convert", "to-hf", run, "-o", hub)
    done("convert", "from-hf", hub, "-o", back)
    wanted = content(newest(run))
    for kernels, init in (("te", back), ("torch", run)):
        begun = experiment(
            store, kernels, model=MODELS["sparse"], train=TRAIN | {"init": str(init)}
        )
        found = assemble([run_te_ranks(1, _first_weights, begun)[0]])
        assert found.keys() == wanted.keys()
        assert [key for key in found if not np.array_equal(found[key], wanted[key])] == []
