"""Evaluation: what training measured, by source, by document, and what is refused."""

import json
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moe.evaluation.results import loss_of
from tests.support.distributed import run_ranks
from tests.support.store_helpers import sources_store
from tests.support.trained_runs import command, train_run

WHOLE = {"eval_sequences": 10_000, "global_batch_size": 2, "micro_batch_size": 1, "steps": 4}
"""Batches so small that the training's evaluation leaves out one sequence at most."""


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of two sources: words, and digits."""
    chance = random.Random(2)
    words = ["a", "model", "learns", "which", "expert", "reads", "the", "next", "token"]
    texts = {
        "words": [" ".join(chance.choices(words, k=60)) for _ in range(20)],
        "digits": ["".join(chance.choices("0123456789", k=200)) for _ in range(15)],
    }
    return sources_store(tmp_path_factory.mktemp("sources"), texts, held_out_fraction=0.3)


@pytest.fixture(scope="module")
def run(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run over two sources, trained in two stages."""
    place = tmp_path_factory.mktemp("runs") / "run"
    train_run(sources, place, 2, layout={"pp": 2}, train=WHOLE)
    return place


def _evaluate(run: Path, **options: Any) -> Any:
    from moe.evaluation.loading import loaded_model
    from moe.evaluation.loss import Evaluator, open_store

    with loaded_model(run, device="cpu") as model:
        return Evaluator(model, open_store(model), **options).run()


@pytest.mark.engine
def test_equals_what_training_measured(run: Path) -> None:
    record = json.loads((run / "record.json").read_text())
    found = run_ranks(1, _evaluate, run)[0]
    assert found.total.loss == pytest.approx(record["final_loss"], rel=2e-3)
    assert {source.source for source in found.sources} == {"words", "digits"}
    weighted = sum(source.loss * source.tokens for source in found.sources) / found.total.tokens
    assert found.total.loss == pytest.approx(weighted, rel=1e-12)
    assert found.total.tokens == sum(source.tokens for source in found.sources)


def _slow_losses(run: Path, documents: bool) -> dict[str, float]:
    """Loss of each source from logits in NumPy, each document (or sequence) on its own."""
    import torch

    from moe.evaluation.loading import loaded_model
    from moe.evaluation.loss import open_store

    found = {}
    with loaded_model(run, device="cpu") as model, torch.no_grad():
        store = open_store(model)
        length, eos = model.seq_len, store.manifest.tokenizer.eos_id
        for stream in store.split("held_out").streams:
            values = []
            for start in range(0, (stream.num_tokens - 1) // length * length, length):
                window = stream.read(start, length + 1).astype(np.int64)
                ends = np.flatnonzero(window[:-1] == eos) + 1 if documents else np.array([], int)
                borders = [0, *ends.tolist(), length]
                for first, end in zip(borders[:-1], borders[1:], strict=True):
                    if first == end:
                        continue
                    ids = torch.from_numpy(window[first:end])[None]
                    logits = model.chunk(ids, torch.arange(end - first)[None], None)[0].double()
                    scores = torch.log_softmax(logits, dim=-1).numpy()
                    labels = window[first + 1 : end + 1]
                    own = -scores[np.arange(end - first), labels]
                    values += own[:-1].tolist() if documents and end < length else own.tolist()
                    if documents and end == length and window[end - 1] == eos:
                        values.pop()
            found[stream.name] = float(np.mean(values))
    return found


@pytest.mark.engine
def test_equals_slow_reference_by_source(run: Path) -> None:
    slow = run_ranks(1, _slow_losses, run, False)[0]
    found = run_ranks(1, _evaluate, run)[0]
    assert {s.source: s.loss for s in found.sources} == pytest.approx(slow, rel=1e-5)


@pytest.mark.engine
def test_documents_see_only_themselves(run: Path, tmp_path: Path) -> None:
    masked = tmp_path / "masked"
    masked.mkdir()
    (masked / "checkpoints").symlink_to(run / "checkpoints")
    text = (run / "experiment.toml").read_text()
    assert "document_mask = false" in text
    (masked / "experiment.toml").write_text(
        text.replace("document_mask = false", "document_mask = true")
    )
    slow = run_ranks(1, _slow_losses, masked, True)[0]
    found = run_ranks(1, _evaluate, masked)[0]
    assert {s.source: s.loss for s in found.sources} == pytest.approx(slow, rel=1e-5)


@pytest.mark.parametrize("scaling", ["current", "delayed"])
def test_emulated_fp8_is_computed_as_in_training(
    scaling: str, sources: Path, tmp_path: Path
) -> None:
    run, precision = tmp_path / "run", {"fp8": "emulated", "fp8_scaling": scaling}
    measured = train_run(sources, run, train=WHOLE | {"global_batch_size": 1}, precision=precision)
    code, out, err = command("eval", str(run), "--json", "--device", "cpu")
    assert (code, err.strip()) == (0, "")
    found = json.loads(out)
    assert found["loss"] == pytest.approx(measured["final_loss"], rel=1e-6)
    assert (found["dtype"], found["fp8"], found["trained_fp8"]) == ("float32", scaling, scaling)
    code, out, err = command("generate", str(run), "a model", "--json", "--max-new-tokens", "2")
    assert (code, json.loads(out)["fp8"], json.loads(out)["trained_fp8"]) == (0, None, scaling)
    assert f"without FP8; the run was trained with FP8 ({scaling})" in err
    lines = (run / "experiment.toml").read_text().splitlines()
    plain = [line for line in lines if not line.startswith("fp8")]
    (run / "experiment.toml").write_text("\n".join(plain))
    without = json.loads(command("eval", str(run), "--json", "--device", "cpu")[1])
    assert abs(without["loss"] / measured["final_loss"] - 1) > 1e-5


def test_standard_error_covers_the_truth() -> None:
    chance = np.random.default_rng(0)
    covered = 0
    for _ in range(400):
        tokens = chance.integers(1, 50, size=60)
        sums = tokens * 3.0 + chance.normal(0, np.sqrt(tokens))
        found = loss_of(None, np.stack([sums, tokens], axis=1).astype(float))
        assert found.standard_error is not None
        covered += abs(found.loss - 3.0) < 1.96 * found.standard_error
    assert 0.90 < covered / 400 < 0.98
    assert loss_of(None, np.array([[6.0, 2.0]])).standard_error is None


def test_subset_is_spread_over_the_split(run: Path) -> None:
    found = run_ranks(1, _evaluate_some, run)[0]
    assert [s.sequences for s in found.sources] == [3, 3]


def _evaluate_some(run: Path) -> Any:
    return _evaluate(run, max_sequences=3)


def test_command(run: Path, sources: Path) -> None:
    code, out, err = command("eval", str(run), "--json", "--device", "cpu")
    assert code == 0, err
    document = json.loads(out)
    assert document["step"] == 4 and document["split"] == "held_out"
    assert document["perplexity"] == pytest.approx(np.exp(document["loss"]))
    code, out, _ = command("eval", str(run), "--split", "train", "--sequences", "2")
    assert code == 0 and "words" in out and "digits" in out


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["{store}"], "not a run directory"),
        (["{run}", "--step", "3"], "no checkpoint of step 3: there are 4"),
        (["{run}", "--store", "{run}"], "no manifest.json"),
        (["{empty}"], "no complete checkpoint"),
        (["{damaged}"], "missing or damaged"),
    ],
)
def test_wrong_input_is_one_line(
    arguments: list[str], fault: str, run: Path, sources: Path, tmp_path: Path
) -> None:
    places = {"run": run, "store": sources}
    for name in ("empty", "damaged"):
        places[name] = tmp_path / name
        places[name].mkdir()
        shutil.copy(run / "experiment.toml", places[name])
    shutil.copytree(run / "checkpoints", tmp_path / "damaged/checkpoints")
    file = next((tmp_path / "damaged/checkpoints").glob("step-*/rank-00000.safetensors"))
    file.write_bytes(file.read_bytes()[:-9])
    code, out, err = command("eval", *(text.format(**places) for text in arguments))
    assert (code, out) == (2, "")
    assert fault in err.splitlines()[-1]
