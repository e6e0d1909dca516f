"""A worked example of each mode, one after the other, as docs/guides/fine_tune.md has them."""

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from moe.config.experiment import make_experiment
from tests.support.distributed import run_ranks
from tests.support.docs_examples import toml_example
from tests.support.finetuning_stores import write_chats, write_pairs
from tests.support.trained_runs import command, train_here

SMALL = {"micro_batch_size": 8, "global_batch_size": 8, "seq_len": 64, "warmup_steps": 2}
MODEL = {"preset": "tiny", "vocab_size": 264}


def guide_example() -> dict[str, Any]:
    """The guide's experiment."""
    return toml_example("docs/guides/fine_tune.md", with_table="train")


def run(folder: Path, name: str, store: Path, **train: Any) -> list[float]:
    """Train the guide's example with another mode's keys; returns the held-out losses."""
    values = guide_example()
    init = train.pop("init", None)
    model = train.pop("model", None)
    values["train"] |= SMALL | {"eval_interval": 10, "eval_sequences": 16} | train
    values["train"].pop("init")
    values |= {"name": name, "parallel": {"device": "cpu"}, "data": {"store": str(store)}}
    values |= {} if model is None else {"model": model}
    values["train"] |= {} if init is None else {"init": str(folder / init)}
    run_ranks(1, train_here, make_experiment(values), folder / name)
    lines = (folder / name / "evaluations.jsonl").read_text().splitlines()
    losses = [json.loads(line)["loss"] for line in lines]
    print(f"{name}: held-out loss {losses[0]:.4f} after 10 steps, {losses[-1]:.4f} at the end")
    return losses


@pytest.fixture(scope="module")
def folder(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model, pre-trained on text."""
    place = tmp_path_factory.mktemp("example")
    losses = run(place, "base", store, mode="pretrain", model=MODEL, steps=30)
    assert losses[-1] < losses[0]
    return place


@pytest.fixture(scope="module")
def tuned(folder: Path) -> Path:
    """The base model, fine-tuned on conversations."""
    losses = run(folder, "sft", write_chats(folder), init="base")
    assert losses[-1] < losses[0] - 0.5
    return folder


def test_pre_training_goes_on(folder: Path, store: Path) -> None:
    before = json.loads((folder / "base/record.json").read_text())["final_loss"]
    losses = run(folder, "more", store, mode="pretrain", init="base", steps=20)
    assert losses[0] < before and losses[-1] < losses[0]


def test_fine_tuned_model_answers(tuned: Path) -> None:
    code, out, err = command("generate", str(tuned / "sft"), "router token", "--chat", "--json",
                             "--max-new-tokens", "16", "--device", "cpu")  # fmt: skip
    assert code == 0, err
    (row,) = json.loads(out)["continuations"]
    assert row["stopped"] and row["text"].isupper()
    code, out, err = command("eval", str(tuned / "sft"), "--json", "--device", "cpu")
    assert code == 0, err
    record = json.loads((tuned / "sft/record.json").read_text())
    assert json.loads(out)["loss"] == pytest.approx(record["final_loss"], rel=0.1)
    assert record["execution"]["experts"].endswith("GroupedExperts")


def test_routers_alone(tuned: Path) -> None:
    losses = run(tuned, "routers", tuned / "chats", init="base", trainable=["*.router.*"])
    assert losses[-1] < losses[0]


def test_experts_alone(tuned: Path) -> None:
    losses = run(tuned, "experts", tuned / "chats", init="base", trainable=["*.mlp.experts.*"])
    assert losses[-1] < losses[0] - 0.3


def test_preferences(tuned: Path) -> None:
    losses = run(tuned, "dpo", write_pairs(tuned), mode="dpo", init="sft")
    assert losses[-1] < losses[0] < 0.7
    lines = (tuned / "dpo/evaluations.jsonl").read_text().splitlines()
    last = json.loads(lines[-1])
    assert last["reward_accuracy"] > 0.8 and last["reward_margin"] > 0
    code, out, err = command("eval", str(tuned / "dpo"), "--json", "--device", "cpu")
    assert code == 0, err
    assert [s["source"] for s in json.loads(out)["sources"]] == ["pairs/chosen", "pairs/rejected"]


def test_preferences_resume_to_the_same(tuned: Path) -> None:
    """A resumed run keeps the reference it began with, not what it has become."""
    cut, whole = tuned / "cut", tuned / "whole"
    store = write_pairs(tuned / "again") if (tuned / "again").mkdir() is None else tuned
    for place in (cut, whole):
        run(tuned, place.name, store, mode="dpo", init="sft", steps=10, checkpoint_interval=5)
    assert _rows(cut) == _rows(whole)
    for path in sorted((cut / "checkpoints").glob("step-*"))[1:]:
        for file in path.iterdir():
            file.unlink()
        path.rmdir()
    experiment = (cut / "experiment.toml").read_text()
    run_ranks(1, _resume, make_experiment(tomllib.loads(experiment)), cut)
    assert _rows(cut) == _rows(whole)


def _rows(place: Path) -> list[tuple[Any, ...]]:
    rows = [json.loads(line) for line in (place / "metrics.jsonl").read_text().splitlines()]
    return [(row["step"], row["loss"], row["reward_margin"], row["grad_norm"]) for row in rows]


def _resume(experiment: Any, run_dir: Path) -> None:
    from moe.training.train import train
    from parallel.engine.start import start_engine, stop_engine

    engine = start_engine(experiment.parallel, seed=experiment.train.seed)
    train(experiment, engine, run_dir, resume=True)
    stop_engine()


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"mode": "dpo", "init": None}, "needs init: the model to tune"),
        ({"mode": "dpo", "micro_batch_size": 1}, "micro_batch_size=1 is odd"),
        ({"mode": "sft", "dpo_beta": 0.5}, 'dpo_beta belongs to mode = "dpo"'),
        ({"mode": "sft", "init": "nowhere"}, "neither a run directory nor a checkpoint"),
    ],
)
def test_wrong_experiments(changes: dict[str, Any], fault: str, tmp_path: Path) -> None:
    values = guide_example()
    values["train"] |= SMALL | changes
    model = {} if changes.get("init") == "nowhere" else {"model": MODEL}
    values["train"] = {k: v for k, v in values["train"].items() if v is not None}
    with pytest.raises(ValueError, match=fault):
        make_experiment(values | model)


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        ({"packing": "concatenate"}, "keeps conversations whole and apart"),
        ({"document_mask": False}, "keeps conversations whole and apart"),
    ],
)
def test_wrong_data(data: dict[str, Any], fault: str) -> None:
    values = guide_example() | {"model": MODEL | {"max_seq_len": 256}}
    with pytest.raises(ValueError, match=fault):
        make_experiment(values | {"data": data})


def test_another_tokenizer_is_refused_before_the_start(folder: Path, tmp_path: Path) -> None:
    from data.build.build import build_store

    (tmp_path / "a.txt").write_text("a model learns " * 100)
    build_store([tmp_path / "a.txt"], tmp_path / "store", tokenizer="bpe:258", held_out_fraction=0)
    file = tmp_path / "more.toml"
    file.write_text(
        f'[data]\nstore = "{tmp_path}/store"\n[train]\ninit = "{folder}/base"\nsteps = 1\n'
        "seq_len = 8\nglobal_batch_size = 1\n"
    )
    code, out, err = command("train", str(file), "--run-dir", str(tmp_path / "run"))
    assert (code, out) == (2, "")
    assert "made with another tokenizer than train.init's" in err.splitlines()[-1]
