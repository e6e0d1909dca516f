"""Points of designs: what is held, what follows, duplicates, budgets."""

from pathlib import Path
from typing import Any

import pytest

from benchmarks.errors import BenchmarkError
from benchmarks.sweeps.expand import expand
from benchmarks.sweeps.expansion import Expansion
from benchmarks.sweeps.held import training_bytes
from benchmarks.sweeps.point import flops_per_token
from benchmarks.sweeps.speed import RunCost, UnknownSpeed
from data.errors import InputError
from moe.config.experiment import Experiment, load_experiment
from moe.cost.ledger import ledger
from tests.support.sweep_designs import BASE, make_design


class PlainSpeed:
    """Takes a second and 2 joules for each 1e9 FLOPs."""

    source: str | None = "made up"

    def cost(self, experiment: Experiment) -> RunCost:
        train = experiment.train
        flops = flops_per_token(experiment) * train.steps * train.positions_per_step
        return RunCost(seconds=flops / 1e9, joules=2 * flops / 1e9)


def points(folder: Path, text: str) -> Expansion:
    return expand(make_design(folder, text), PlainSpeed())


def test_a_grid_changes_keys_and_seeds(tmp_path: Path) -> None:
    found = points(tmp_path, "[axes]\ntrain.weight_decay = [0.0, 0.1]\nseeds = [0, 7]")
    trains = [one.point.experiment.train for one in found.points]
    assert [(train.weight_decay, train.seed) for train in trains] == [
        (0.0, 0), (0.0, 7), (0.1, 0), (0.1, 7)
    ]  # fmt: skip
    assert {one.point.experiment.model.hidden_size for one in found.points} == {64}  # no ladder
    assert len({one.point.run_name for one in found.points}) == 4


def test_tokens_become_whole_steps(tmp_path: Path) -> None:
    found = points(tmp_path, "warmup_share = 0.25\n[axes]\ntokens = 1000")
    first = found.points[0].point
    assert (first.experiment.train.steps, first.tokens, first.asked_tokens) == (8, 1024, 1000)
    assert first.experiment.train.warmup_steps == 2
    costs = ledger(first.experiment.model, 32)
    assert first.flops == 1024 * costs.training_flops_per_token


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ("nan", "axes.tokens = nan: write a number greater than 0"),
        ("inf", "axes.tokens = inf"),
        ("-5", "axes.tokens = -5"),
        ("true", "axes.tokens = True"),
        ("'many'", "axes.tokens = 'many'"),
        ("60", "60 tokens are less than one step of 128"),
        ("1e300", "train.steps"),
    ],
)
def test_tokens_are_a_number_of_steps(tmp_path: Path, tokens: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        points(tmp_path, f"[axes]\ntokens = {tokens}")


def test_presets_and_free_names_are_axes(tmp_path: Path) -> None:
    text = "[axes]\nmodel.preset = ['tiny', 'small']\ndata.weights.code = [1.0]"
    tiny, small = (one.point.experiment for one in points(tmp_path, text).points)
    assert (tiny.model.hidden_size, small.model.hidden_size) == (64, 256)
    assert tiny.data.weights == {"code": 1.0}


def test_dials_that_are_not_turned_are_the_bases(tmp_path: Path) -> None:
    found = points(tmp_path, "[axes]\nexperts = [1, 16]")
    dense, sparse = (one.point.experiment.model for one in found.points)
    assert dense.moe is None
    assert sparse.moe is not None
    assert (sparse.hidden_size, sparse.num_layers, sparse.vocab_size) == (64, 2, 512)
    assert (sparse.moe.num_experts, sparse.moe.top_k) == (16, 2)
    assert sparse.moe.expert_ffn_hidden_size == 64
    assert sparse.moe.z_loss_coefficient == 0.001


def test_what_no_axis_turns_is_exactly_the_bases(tmp_path: Path) -> None:
    """Attention twice as wide as the model, 8 heads on a key-value head."""
    base = BASE.replace("tiny", "qwen3-30b-a3b")
    design = make_design(tmp_path, "[axes]\ntop_k = [4]", base=base)
    (one,) = expand(design, UnknownSpeed()).points
    before, after = design.base.model, one.point.experiment.model
    assert (after.num_heads, after.kv_heads, after.head_dim) == (32, 4, 128)
    assert before.moe is not None
    expected = before.moe.model_copy(update={"top_k": 4})
    rest = {"moe": expected, "preset": None, "ffn_hidden_size": after.ffn_hidden_size}
    assert after.model_dump() == before.model_copy(update=rest).model_dump()


def test_a_base_that_the_ladder_would_change_is_refused(tmp_path: Path) -> None:
    base = BASE.replace('"tiny"', '"tiny"\nffn_hidden_size = 100')
    with pytest.raises(BenchmarkError, match=r"model\.ffn_hidden_size: 100 in the base, 96 on"):
        expand(make_design(tmp_path, "[axes]\ntop_k = [1]", base=base), UnknownSpeed())
    turned = make_design(tmp_path, "[axes]\ntop_k = [1]\nffn_ratio = 2", base=base)
    assert expand(turned, UnknownSpeed()).points[0].point.experiment.model.ffn_hidden_size == 128


def test_depth_follows_an_aspect_ratio_that_is_turned(tmp_path: Path) -> None:
    found = points(tmp_path, "[axes]\naspect_ratio = [16, 32]")
    models = [one.point.experiment.model for one in found.points]
    assert [(one.hidden_size, one.num_layers) for one in models] == [(64, 4), (64, 2)]


def test_iso_memory_says_what_is_wrong_with_the_base(tmp_path: Path) -> None:
    base = BASE.replace("tiny", "deepseek-v2-lite")
    design = make_design(tmp_path, "kind = 'iso-memory'\nhold = [3e8]", base=base)
    with pytest.raises(BenchmarkError, match=r"model\.mla: a ladder has no latent attention"):
        expand(design, UnknownSpeed())


def test_iso_flop_holds_flops_by_the_ledger(tmp_path: Path) -> None:
    text = "kind = 'iso-flop'\nhold = [1e10, 1e11]\n[axes]\nhidden_size = [32, 128]\nhead_dim = 16"
    found = points(tmp_path, text)
    assert len(found.points) == 4
    for one in found.points:
        held = one.point.held
        assert held is not None
        assert held.real == one.point.flops == pytest.approx(held.asked, rel=0.05)
        assert one.point.tokens % 128 == 0
    small, large = found.points[0].point, found.points[2].point
    assert small.tokens > 3 * large.tokens


@pytest.mark.parametrize(
    ("kind", "count"), [("iso-active", "active_parameters"), ("iso-total", "total_parameters")]
)
def test_iso_sizes_hold_parameters(tmp_path: Path, kind: str, count: str) -> None:
    text = f"kind = '{kind}'\nhold = [4e6, 2e7]\n[axes]\nexperts = [1, 8, 32]"
    found = points(tmp_path, text)
    for one in found.points:
        held = one.point.held
        assert held is not None
        real = getattr(ledger(one.point.experiment.model, 1), count)
        assert held.real == real == pytest.approx(held.asked, rel=0.2)


def test_iso_memory_holds_bytes_of_the_planner(tmp_path: Path) -> None:
    text = "kind = 'iso-memory'\nhold = [3e8]\n[axes]\nexperts = [1, 8]"
    dense, sparse = (one.point for one in points(tmp_path, text).points)
    for point in (dense, sparse):
        assert point.held is not None
        assert training_bytes(point.experiment) == point.held.real
        assert point.held.real == pytest.approx(3e8, rel=0.1)
    active = [ledger(one.experiment.model, 1).active_parameters for one in (dense, sparse)]
    assert active[0] > 1.5 * active[1]  # experts take memory too


def test_iso_energy_holds_joules(tmp_path: Path) -> None:
    text = "kind = 'iso-energy'\nhold = [50]\n[axes]\nhidden_size = [32, 128]"
    for one in points(tmp_path, text).points:
        assert one.cost.joules == pytest.approx(50, rel=0.05)
    design = make_design(tmp_path, text)
    with pytest.raises(BenchmarkError, match="needs the joules of a token: give --measured RUN"):
        expand(design, UnknownSpeed())


def test_transferred_rates_and_batches_reach_the_experiment(tmp_path: Path) -> None:
    text = """
    [axes]
    hidden_size = [32, 256]
    tokens = 1e5
    [transfer]
    learning_rate = "width"
    batch = "step-law"
    anchor = {learning_rate = 8e-3, hidden_size = 64}
    """
    small, large = (one.point.experiment.train for one in points(tmp_path, text).points)
    assert (small.learning_rate, large.learning_rate) == (16e-3, 2e-3)
    assert large.min_learning_rate == pytest.approx(2e-4)  # a tenth, as the base's
    batch = 0.58 * 1e5**0.571 / 32
    assert large.global_batch_size == 2 * round(batch / 2)
    assert large.steps == round(1e5 / (large.global_batch_size * 32))


def test_the_step_law_takes_parameters_without_embeddings(tmp_path: Path) -> None:
    text = "[axes]\ntokens = 128000\n[transfer]\nlearning_rate = 'step-law'"
    (one,) = points(tmp_path, text).points
    costs = ledger(one.point.experiment.model, 1)
    size = costs.total_parameters - costs.embedding_parameters
    rate = 1.79 * size**-0.713 * 128000**0.307
    assert one.point.experiment.train.learning_rate == pytest.approx(rate)


def test_written_experiments_have_the_names_of_runs(tmp_path: Path) -> None:
    for one in points(tmp_path, "[axes]\nhidden_size = [32, 64]\nexperts = [1, 4]").points:
        file = tmp_path / "written.toml"
        file.write_text(one.point.experiment.to_toml())
        again = load_experiment(file)
        assert f"{again.name}-{again.content_hash}" == one.point.run_name


def test_dense_points_that_differ_in_nothing_run_once(tmp_path: Path) -> None:
    found = points(tmp_path, "[axes]\nexperts = [1, 8]\ntop_k = [1, 2]")
    assert (len(found.points), found.duplicates) == (3, 1)


def test_illegal_points_are_refused_or_of_random_designs_counted(tmp_path: Path) -> None:
    axes = "[axes]\nexperts = [2, 8]\ntop_k = [1, 4]\n"
    with pytest.raises(InputError, match=r"top_k=4 exceeds experts=2.*experts=2, top_k=4"):
        points(tmp_path, axes)
    found = points(tmp_path, f"kind = 'random'\n{axes}[random]\ncount = 30")
    assert len(found.points) == 3
    assert found.illegal
    assert all("top_k=4 exceeds experts=2" in reason for reason in found.illegal)
    assert len(found.illegal) + found.duplicates + 3 == 30


@pytest.mark.parametrize(
    ("limit", "spent"), [("runs", 1), ("flops", 1e9), ("joules", 2), ("hours", 1 / 3600)]
)
def test_a_budget_refuses_or_cuts(tmp_path: Path, limit: str, spent: float) -> None:
    axes = "kind = 'iso-flop'\nhold = [1e9]\n[axes]\nseeds = [0, 1, 2]\n"
    budget = f"[budget]\nmax_{limit} = {2 if limit == 'runs' else 2.2 * spent}\n"
    with pytest.raises(BenchmarkError, match=rf"budget.max_{limit}=.*3 points take"):
        points(tmp_path, axes + budget)
    found = points(tmp_path, f"{axes}{budget}beyond = 'cut'")
    assert len(found.points) == 2
    assert found.cut is not None
    assert "the last 1 of 3 are left out" in found.cut
    assert found.as_json()["totals"][limit] == pytest.approx(2 * spent, rel=0.1)


def test_a_budget_needs_what_it_limits(tmp_path: Path) -> None:
    design = make_design(tmp_path, "[budget]\nmax_hours = 1")
    with pytest.raises(
        BenchmarkError, match="budget.max_hours needs hours: no speed: give --measured"
    ):
        expand(design, UnknownSpeed())


def test_unknown_costs_are_null(tmp_path: Path) -> None:
    document: dict[str, Any] = expand(make_design(tmp_path, ""), UnknownSpeed()).as_json()
    assert document["totals"]["runs"] == 1
    assert document["totals"]["hours"] is document["points"][0]["joules"] is None
    assert "no speed" in document["reason"]
    assert document["costs"] is document["speed"] is None
