"""A sparse model made from a dense one starts at its loss; what goes in is checked."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from data.errors import DataError
from moe.checkpoint.index import StoredTensors, read_index
from moe.convert.hugging_face import Conversion, checkpoint_model, from_hub, to_hub
from moe.convert.upcycle import Upcycling, upcycle
from moe.cost.ledger import ledger
from moe.errors import ConfigError
from moescale import app
from tests.support.architecture_options import CONFIGS
from tests.support.distributed import run_ranks
from tests.support.hf_rank_jobs import all_losses, train_one_step
from tests.support.hf_reference_models import make_model
from tests.support.layout_equivalence import make

TOKENS = torch.randint(0, 96, (2, 64), generator=torch.Generator().manual_seed(4))
WAYS: dict[str, Upcycling] = {
    "plain": Upcycling(num_experts=4, top_k=2),
    "granular": Upcycling(num_experts=12, top_k=6, granularity=3),
    "one_copy": Upcycling(num_experts=8, top_k=2, granularity=2),
    "some_layers": Upcycling(num_experts=4, top_k=2, first_dense_layers=1, layer_interval=2),
}


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory, store: Path) -> dict[str, Path]:
    """Dense models: of Hugging Face, with biases, with tied embeddings; a run of ours."""
    folder = tmp_path_factory.mktemp("dense")
    make_model("llama", folder / "biased", attention_bias=True, mlp_bias=True)
    make_model("qwen3", folder / "tied")
    experiment = make(
        store, {"tp": 2}, model=CONFIGS["dense"].model_dump(), train={"steps": 1, "warmup_steps": 0}
    )
    (folder / "run").mkdir()
    (folder / "run/experiment.toml").write_text(experiment.to_toml())
    run_ranks(2, train_one_step, folder / "run", experiment)
    return {name: folder / name for name in ("biased", "tied", "run")}


@pytest.mark.engine
def test_sparse_models_start_at_the_dense_loss(dense: dict[str, Path], tmp_path: Path) -> None:
    checkpoints: dict[str, Path] = {}
    for name, source in dense.items():
        plain = source / "checkpoints/step-00000001"
        if name != "run":
            plain = tmp_path / f"{name}-dense"
            from_hub(source, plain)
        checkpoints[name] = plain
        for way, how in WAYS.items():
            ways = how if name != "run" or how.granularity != 3 else WAYS["one_copy"]
            checkpoints[f"{name} {way}"] = tmp_path / f"{name}-{way}"
            upcycle(source, tmp_path / f"{name}-{way}", ways)
    losses = run_ranks(1, all_losses, checkpoints, TOKENS)[0]
    for name in dense:
        found = {key: loss for key, loss in losses.items() if key.startswith(name)}
        assert len(found) == 1 + len(WAYS)
        assert max(abs(loss - losses[name]) for loss in found.values()) < 1e-5, found


def test_the_dense_copy_lies_where_the_next_start_cleans(
    dense: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copies = []

    def noted(source: Path, out: Path) -> Conversion:
        copies.append(out)
        return from_hub(source, out)

    monkeypatch.setattr("moe.convert.upcycle.from_hub", noted)
    upcycle(dense["tied"], tmp_path / "out", WAYS["plain"])
    assert copies == [tmp_path / ".out.making" / "whole" / "dense"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert not (tmp_path / "out" / "dense").exists()


def test_what_is_made_has_the_layers_asked_for(dense: dict[str, Path], tmp_path: Path) -> None:
    sparse = upcycle(dense["tied"], tmp_path / "out", WAYS["some_layers"]).model
    assert sparse.sparse_layers == (False, True, False)
    assert checkpoint_model(tmp_path / "out") == sparse
    stored = StoredTensors(tmp_path / "out", read_index(tmp_path / "out"))
    shapes = {key: torch.Size(stored.shape(key)) for key in stored.shards}
    assert sum(shape.numel() for shape in shapes.values()) == ledger(sparse, 1).total_parameters
    assert shapes["decoder.layers.1.mlp.experts.experts.linear_fc1.weight"] == (4, 96, 32)


@pytest.mark.engine
def test_shards_are_parts_of_the_dense_network_with_one_router_row(
    dense: dict[str, Path], tmp_path: Path
) -> None:
    upcycle(dense["biased"], tmp_path / "out", WAYS["granular"])
    from_hub(dense["biased"], tmp_path / "dense")
    stored, before = (
        StoredTensors(path, read_index(path)) for path in (tmp_path / "out", tmp_path / "dense")
    )
    down, router = (
        _whole(stored, f"decoder.layers.0.mlp.{n}")
        for n in ("experts.experts.linear_fc2.weight", "router.weight")
    )
    whole = _whole(before, "decoder.layers.0.mlp.linear_fc2.weight")
    for copy in range(4):
        assert torch.equal(torch.cat([*down[3 * copy : 3 * copy + 3]], dim=1), whole)
    rows = router.view(4, 3, -1)
    assert torch.equal(rows, rows[:, :1].expand_as(rows))
    assert len(rows[:, 0].unique(dim=0)) == 4


def _whole(stored: StoredTensors, key: str) -> torch.Tensor:
    whole = torch.empty(stored.shape(key))
    assert stored.read_block(whole, key, (0,) * whole.dim(), tuple(whole.shape))
    return whole


def test_noise_tells_experts_apart_by_seed(dense: dict[str, Path], tmp_path: Path) -> None:
    key = "decoder.layers.0.mlp.experts.experts.linear_fc1.weight"
    found = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        how = Upcycling(num_experts=4, top_k=2, noise=0.1, seed=seed)
        upcycle(dense["tied"], tmp_path / name, how)
        found.append(_whole(StoredTensors(tmp_path / name, read_index(tmp_path / name)), key))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
    difference = (found[0][0] - found[0][1]).std() / found[0][0].std()
    assert 0.1 < float(difference) < 0.2


def test_a_copy_of_whole_networks_is_a_family_of_transformers(
    dense: dict[str, Path], tmp_path: Path
) -> None:
    upcycle(dense["tied"], tmp_path / "sparse", WAYS["plain"])
    assert to_hub(tmp_path / "sparse", tmp_path / "hub").family == "qwen3_moe"
    upcycle(dense["tied"], tmp_path / "granular", WAYS["granular"])
    with pytest.raises(ConfigError, match=r"transformers has no such model.*scaling_factor = 3.0"):
        to_hub(tmp_path / "granular", tmp_path / "hub-granular", family="qwen3_moe")


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"num_experts": 4, "top_k": 1}, "--top-k 1: one expert's normalized weight is always 1"),
        ({"num_experts": 4, "top_k": 3, "granularity": 2}, "--top-k 3 is not a multiple of --gran"),
        ({"num_experts": 5, "top_k": 2, "granularity": 2}, "--experts 5 is not a multiple"),
        ({"num_experts": 14, "top_k": 7, "granularity": 7}, "ffn_hidden_size=48 is not a multiple"),
        ({"num_experts": 4, "top_k": 8}, "top_k=8 exceeds num_experts=4"),
        (
            {"num_experts": 4, "top_k": 2, "first_dense_layers": 3},
            "leaves none of the num_layers=3",
        ),
    ],
)
def test_numbers_that_do_not_go_together_are_refused(
    how: dict[str, Any], message: str, dense: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        upcycle(dense["tied"], tmp_path / "out", Upcycling(**how))
    assert not list(tmp_path.iterdir())


def test_sources_that_are_not_dense_models_are_refused(
    dense: dict[str, Path], tmp_path: Path
) -> None:
    upcycle(dense["tied"], tmp_path / "sparse", WAYS["plain"])
    with pytest.raises(ConfigError, match="has routed experts already"):
        upcycle(tmp_path / "sparse", tmp_path / "again", WAYS["plain"])
    with pytest.raises(DataError, match="exists already: remove it or choose another name"):
        upcycle(dense["tied"], tmp_path / "sparse", WAYS["plain"])
    shutil.rmtree(tmp_path / "sparse")
    with pytest.raises(ConfigError, match="no complete checkpoint"):
        upcycle(tmp_path, tmp_path / "again", WAYS["plain"])


def test_command_counts_what_it_made(dense: dict[str, Path], tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    command = ["convert", "upcycle", str(dense["run"]), "-o", out, "--experts", "8", "--top-k", "2"]
    found = json.loads(CliRunner().invoke(app, [*command, "--granularity", "2", "--json"]).stdout)
    counted = ledger(checkpoint_model(tmp_path / "out"), 1)
    assert found == {
        "path": out,
        "parameters": counted.total_parameters,
        "active_parameters": counted.active_parameters,
    }
