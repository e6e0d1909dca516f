"""Routing statistics and maps: against slow sums, under every layout, by source; and replays."""

import json
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from moe.config.experiment import Experiment
from moe.config.model import ModelConfig
from moe.errors import StorageError
from moe.model.routing_rule import RoutingDecision
from moe.routing.maps import RoutingMaps
from moe.routing.record import RoutingRecord
from moe.routing.specialization import specialization
from tests.support.distributed import RankFailedError, run_ranks
from tests.support.layout_equivalence import make, started
from tests.support.routing_recordings import origin
from tests.support.store_helpers import sources_store
from tests.support.trained_runs import command, train_run


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of two sources that share no byte: letters, and digits."""
    chance = random.Random(2)
    texts = {
        name: ["".join(chance.choices(letters, k=150)) for _ in range(30)]
        for name, letters in (("letters", "abcdefgh"), ("digits", "0123456789"))
    }
    return sources_store(tmp_path_factory.mktemp("sources"), texts, held_out_fraction=0.4)


def _routed(experiment: Experiment) -> tuple[list[dict[str, Any]], dict[str, Any], Any]:
    """Train two steps and evaluate; returns the rows, the maps, and the decisions seen."""
    from moe.training.held_out import evaluate_held_out
    from moe.training.step import train_step

    seen: list[tuple[int, Any, Any, Any]] = []
    with started(experiment) as trainer:
        for router in trainer.routing._routers:
            router.decision_hooks.append(
                lambda n, d: seen.append(
                    (n - 1, d.logits.detach().numpy(), d.experts.numpy(), d.kept.numpy())
                )
            )
        rows = []
        for index in range(2):
            train_step(trainer, index)
            rows.append(trainer.routing.pop().as_json())
        trained = list(seen)
        evaluate_held_out(trainer)
        return rows, trainer.routing_maps.pop(), (trained, seen[len(trained) :])


TRAIN = {"train": {"steps": 2, "warmup_steps": 0, "eval_sequences": 48}}
LAYOUTS: dict[str, tuple[int, dict[str, Any]]] = {
    "tp2_ep2": (2, {"tp": 2, "ep": 2}),
    "pp2": (2, {"pp": 2}),
    "cp2": (2, {"cp": 2}),
    "dp2": (2, {}),
}


@pytest.fixture(scope="module")
def alone(sources: Path) -> Any:
    return run_ranks(1, _routed, make(sources, **TRAIN))[0]


@pytest.mark.engine
def test_statistics_equal_slow_sums(alone: Any) -> None:
    rows, maps, (trained, evaluated) = alone
    layer = rows[0]["layers"][1]
    mine = [entry for entry in trained if entry[0] == layer]
    half = mine[: len(mine) // 2]  # of the first step
    logits = np.concatenate([entry[1] for entry in half]).astype(float)
    counts = np.bincount(np.concatenate([entry[2] for entry in half]).flatten(), minlength=8)
    share = counts / counts.sum()
    weights = np.exp(logits)
    probs = weights / weights.sum(1, keepdims=True)
    expected = {
        "load_entropy": -(share * np.log(share)).sum() / math.log(8),
        "max_over_mean": counts.max() / counts.mean(),
        "token_entropy": -(probs * np.log(probs)).sum(1).mean() / math.log(8),
        "drop_rate": 0.0,
        "router_z": (np.log(weights.sum(1)) ** 2).mean(),
    }
    assert {k: rows[0][k][1] for k in expected} == pytest.approx(expected, rel=1e-5)
    experts = np.concatenate([entry[2] for entry in evaluated if entry[0] == layer])
    together = np.zeros((8, 8), int)
    for one, other in experts:
        together[one, other] += 1
        together[other, one] += 1
    together[np.diag_indices(8)] = np.bincount(experts.flatten(), minlength=8)
    place = maps["layers"].index(layer)
    assert maps["together"][place] == together.tolist()
    assert np.array(maps["counts"][place]).sum(0).tolist() == together.diagonal().tolist()


def test_tokens_are_counted_at_their_source(sources: Path, alone: Any) -> None:
    _, maps, _ = alone
    assert maps["sources"] == ["letters", "digits"]
    tokens = np.array(maps["counts"]).sum(2) / 2  # two experts a token
    assert (tokens == tokens[0]).all() and (tokens % 32 == 0).all()
    assert tokens[0].sum() == 48 * 32
    assert max(specialization(counts) or 0 for counts in maps["counts"]) > 0.02


@pytest.mark.engine
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_agree(layout: str, sources: Path, alone: Any) -> None:
    num_ranks, parallel = LAYOUTS[layout]
    for rows, maps, _ in run_ranks(num_ranks, _routed, make(sources, parallel, **TRAIN)):
        for row, expected in zip(rows, alone[0], strict=True):
            for name, values in expected.items():
                assert row[name] == pytest.approx(values, rel=1e-4), name
        assert maps["counts"] == alone[1]["counts"]
        assert maps["together"] == alone[1]["together"]


def _counted(experiments: list[Experiment]) -> list[tuple[Any, Any, Any]]:
    """Train one step and evaluate; returns choices by layer and expert, tokens by layer, maps."""
    from moe.training.held_out import evaluate_held_out
    from moe.training.startup.build import build_trainer
    from moe.training.step import train_step
    from parallel.engine.start import start_engine, stop_engine

    found = []
    engine = start_engine(experiments[0].parallel, seed=0)
    for experiment in experiments:
        trainer = build_trainer(experiment, engine)
        train_step(trainer, 0)
        routing = trainer.routing.pop()
        evaluate_held_out(trainer)
        tokens = routing.sums[:, 0].tolist()
        found.append((routing.counts.tolist(), tokens, trainer.routing_maps.pop()))
        trainer.close()
    stop_engine()
    return found


RECOMPUTED: dict[str, tuple[int, dict[str, Any]]] = {
    "full": (1, {"recompute": "full"}),
    "experts": (1, {"recompute": "selective", "recompute_modules": ["moe"]}),
    "full_pp2_vpp2": (2, {"pp": 2, "vpp": 2, "recompute": "full"}),
    "experts_tp2_ep2": (
        2, {"tp": 2, "ep": 2, "recompute": "selective", "recompute_modules": ["moe", "core_attn"]}
    ),
}  # fmt: skip


@pytest.mark.engine
def test_recomputed_tokens_count_once(sources: Path) -> None:
    """Whatever learns: what is frozen has no backward pass, and may not be recomputed."""
    size = {"global_batch_size": 8, "eval_sequences": 8}
    trains = [TRAIN["train"] | size | {"trainable": [part]}
              for part in ("*", "*.router.*", "output_layer.*")]  # fmt: skip
    expected = run_ranks(1, _counted, [make(sources, train=train) for train in trains])[0]
    for choices, tokens, _ in expected:
        assert tokens == [8 * 32] * 3
        assert [sum(layer) for layer in choices] == [2 * 8 * 32] * 3
    for name, (num_ranks, layout) in RECOMPUTED.items():
        laid_out = [make(sources, layout, train=train) for train in trains]
        for found in run_ranks(num_ranks, _counted, laid_out):
            assert found == expected, name


@pytest.mark.engine
def test_drop_rate(sources: Path) -> None:
    moe = {"num_experts": 8, "top_k": 2, "expert_ffn_hidden_size": 32, "capacity_factor": 0.5}
    experiment = make(sources, model={"moe": moe}, **TRAIN)
    rows, _, (trained, _) = run_ranks(1, _routed, experiment)[0]
    half = [entry for entry in trained if entry[0] == 0]
    kept = np.concatenate([entry[3] for entry in half[: len(half) // 2]])
    assert rows[0]["drop_rate"][0] == pytest.approx((~kept).mean())
    assert rows[0]["drop_rate"][0] > 0.4


def test_run_directory_has_the_statistics(sources: Path, tmp_path: Path) -> None:
    train_run(sources, tmp_path / "run", 2, layout={"ep": 2}, **TRAIN)
    rows = [json.loads(line) for line in (tmp_path / "run/routing.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2]
    assert rows[0]["layers"] == [1, 2, 3] and len(rows[0]["router_z"]) == 3
    maps = json.loads((tmp_path / "run/routing_maps.json").read_text())
    assert (maps["step"], maps["split"], maps["sources"]) == (2, "held_out", ["letters", "digits"])


@pytest.fixture(scope="module")
def runs(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("runs")
    for name, seed in (("a", 1), ("b", 2)):
        train_run(sources, folder / name, train={"steps": 2, "warmup_steps": 0, "seed": seed})
    return folder / "a", folder / "b"


def _loss(*arguments: str | Path) -> float:
    code, out, err = command("eval", *map(str, arguments), "--json", "--device", "cpu")
    assert code == 0, err
    return float(json.loads(out)["loss"])


@pytest.mark.engine
def test_record_and_replay(runs: tuple[Path, Path], tmp_path: Path) -> None:
    one, other = runs
    record = tmp_path / "routing.safetensors"
    loss = _loss(one, "--record-routing", record)
    assert _loss(one, "--replay-routing", record) == loss
    found = RoutingRecord.load(record)
    assert found.origin is not None
    assert found.origin.model_dump() | {"store": ""} == {
        "format": 2, "run": str(one), "step": 2, "store": "", "split": "held_out", "seq_len": 32,
        "micro_batch_size": found.origin.micro_batch_size, "num_experts": 8, "top_k": 2,
    }  # fmt: skip
    assert sorted(found.passes) == [2, 3, 4]
    natural = _loss(other)
    assert natural == _loss(other, "--record-routing", tmp_path / "its.safetensors")
    assert abs(_loss(other, "--replay-routing", record) - natural) > 1e-6
    code, out, err = command("eval", str(one), "--replay-routing", str(record), "--split", "train")
    assert (code, out) == (2, "") and "the routing record does not fit" in err
    code, _, err = command("eval", str(one), "--replay-routing", str(one / "experiment.toml"))
    assert code == 2 and "no record of routing decisions" in err


def test_path_of_the_record_is_checked_first(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "none" / "r.safetensors"):
        code, out, err = command("eval", "no run", "--record-routing", str(place))
        assert (code, out) == (2, "")
        assert f"moe: {place}: " in err and "choose another file" in err


def test_record_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    record = RoutingRecord({1: [torch.zeros(2, 2, dtype=torch.int16)]}, origin())
    with pytest.raises(StorageError, match=r"none/r: .*No such file"):
        record.save(tmp_path / "none" / "r")


def test_eval_reports_experts(runs: tuple[Path, Path]) -> None:
    code, out, err = command("eval", str(runs[0]), "--routing", "--device", "cpu")
    assert code == 0, err
    assert "specialization" in out and "letters" in out
    code, out, _ = command("eval", str(runs[0]), "--routing", "--json", "--device", "cpu")
    assert json.loads(out)["routing"]["sources"] == ["letters", "digits"]


def _replay_elsewhere(experiment: Experiment) -> None:
    from moe.routing.replay import replaying

    with started(experiment) as trainer:
        chunks = [chunk.module for chunk in trainer.chunks]
        with replaying(chunks, RoutingRecord({2: [torch.zeros(8, 2)]})):
            pass


def test_a_record_of_other_layers_is_refused(sources: Path) -> None:
    with pytest.raises(
        RankFailedError, match=r"record is of layers \[2\], the model's are \[2, 3, 4\]"
    ):
        run_ranks(1, _replay_elsewhere, make(sources))


def test_maps_find_the_source_of_tokens_between_padding() -> None:
    model = ModelConfig.model_validate(
        {
            "num_layers": 1, "hidden_size": 8, "num_heads": 1, "vocab_size": 9, "max_seq_len": 8,
            "moe": {"num_experts": 4, "top_k": 1, "normalize_top_k": False,
                    "expert_ffn_hidden_size": 8},
        }
    )  # fmt: skip
    maps = RoutingMaps(model, [], ["letters", "digits"], lambda: torch.tensor([0, 1]))
    experts = torch.tensor([[2], [0], [2], [3]])
    # Two sequences lie at each place: the first has three tokens, the second one.
    maps._add(
        1,
        RoutingDecision(
            logits=torch.zeros(4, 4),
            experts=experts,
            weights=torch.ones(4, 1),
            kept=torch.ones(4, 1, dtype=torch.bool),
            positions=torch.tensor([0, 1, 2, 4]),
        ),
    )
    assert maps._load[0].tolist() == [[0, 0, 2, 1], [1, 0, 0, 0]]
