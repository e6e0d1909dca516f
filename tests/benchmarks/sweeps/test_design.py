"""Design files: axes, their combinations, and what is refused in one line."""

from pathlib import Path

import pytest

from benchmarks.errors import BenchmarkError
from benchmarks.sweeps.axes import RandomDesign, Range, drawn, grid, read_axes
from data.errors import InputError
from tests.support.sweep_designs import make_design


def test_axes_are_dials_own_names_and_keys(tmp_path: Path) -> None:
    text = """
    [axes]
    hidden_size = [32, 64]
    tokens = 5000
    train.learning_rate = [1e-3, 2e-3]
    model.moe.aux_loss_coefficient = [0.0]
    """
    design = make_design(tmp_path, text)
    settings = list(grid(design.axes, "test"))
    assert len(settings) == 4
    assert settings[1] == {
        "hidden_size": 32,
        "tokens": 5000,
        "train.learning_rate": 2e-3,
        "model.moe.aux_loss_coefficient": 0.0,
    }
    assert design.uses_ladder
    assert design.name == "design"


def test_random_designs_repeat_and_stay_in_range() -> None:
    axes = read_axes(
        {
            "train": {"learning_rate": {"low": 1e-4, "high": 1e-2}},
            "experts": {"low": 2, "high": 64, "integer": True},
            "top_k": [1, 2],
            "seeds": [0, 1],
        },
        "test",
    )
    first, again, other = (list(drawn(axes, RandomDesign(count=50, seed=s))) for s in (3, 3, 4))
    assert first == again != other
    assert len(first) == 100
    assert {settings["seeds"] for settings in first} == {0, 1}
    assert first[0] | {"seeds": 1} == first[1]
    rates = [settings["train.learning_rate"] for settings in first]
    assert 1e-4 <= min(rates) < 5e-4
    assert 3e-3 < max(rates) <= 1e-2  # even on a logarithmic scale
    assert all(type(settings["experts"]) is int for settings in first)


def test_a_linear_range_is_even() -> None:
    axis = Range(low=-1, high=1, scale="linear")
    values = [settings["x"] for settings in drawn({"x": axis}, RandomDesign(count=400))]
    assert abs(sum(values) / len(values)) < 0.1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kinds = 'grid'", "unknown key kinds: did you mean kind?"),
        ("kind = 'iso-flop'\n[axes]\nhidden_size = 32", "hold, a list of values, go together"),
        ("kind = 'random'", r"a \[random\] table go together"),
        ("hold = [1e9]", "hold, a list of values, go together"),
        ("kind = 'iso-flop'\nhold = [1e9, 1e9]", "hold: a value is there twice"),
        ("kind = 'iso-flop'\nhold = [-1]", "hold.0 = -1: input should be greater than 0"),
        ("kind = 'iso-flop'\nhold = [nan]", "hold.0 = nan"),
        ("[axes]\nexprts = [4]", "axes.exprts: unknown: did you mean experts?"),
        ("[axes]\ntrain.learning_rat = [4]", "did you mean train.learning_rate?"),
        ("[axes]\nenergy.pue = [1.0, 1.5]", "axes.energy.pue: changes nothing of what runs train"),
        ("warmup_share = 0.1\n[axes]\ntrain.warmup_steps = [1, 2]", "warmup_share sets it"),
        ("[axes]\nslurm.nodes = [1, 2]", "axes.slurm.nodes: changes nothing"),
        ("[axes]\ntrack.project = ['a']", "axes.track.project: "),
        ("[axes]\nexperts = {low = 1, high = 1e308, integer = true}", "experts.high = 1e"),
        ("[axes]\nexperts = {low = 1, high = 1e17, integer = true}", "whole numbers reach to"),
        ("[axes]\ntokens = {low = -1e308, high = 1e308, scale = 'linear'}", "tokens.low = -1e"),
        ("[axes]\nexperts = []", "axes.experts: 0 values"),
        ("[axes]\nexperts = [4, 4]", "axes.experts: 4 is there twice"),
        ("[axes]\ntokens = {low = 1, high = 2, step = 3}", "unknown key axes.tokens.step"),
        ("[axes]\ntokens = {low = 3, high = 2}", "low=3.0 exceeds high=2.0"),
        ("[axes]\ntokens = {low = 0, high = 2}", "starts above 0"),
        ("[axes]\nexperts = {low = 1.0, high = 2.6, integer = true}", "high=2.6: integer = true"),
        ("[axes]\nexperts = {low = 0.5, high = 2, integer = true}", "low=0.5: integer = true"),
        ("[axes]\nhidden_size = 64\nparameters = 1e9", "parameters and hidden_size: turn one size"),
        ("[axes]\ntokens = 1\ntrain.steps = 1", "tokens and train.steps set the same"),
        ("[axes]\nseeds = 1\ntrain.seed = 1", "seeds and train.seed set the same"),
        ("[axes]\nexperts = 4\nmodel.hidden_size = 64", "the ladder decides it"),
        ("kind = 'iso-flop'\nhold = [1]\n[axes]\ntokens = 1", "axes.tokens follows from what"),
        ("kind = 'iso-active'\nhold = [1]\n[axes]\nparameters = 1", "axes.parameters follows"),
        ("[transfer]\nlearning_rate = 'mup'", "transfer.learning_rate = 'mup'"),
        ("[transfer]\nlearning_rate = 'step-law'\n[axes]\ntrain.learning_rate = 1e-3", "sets it"),
        ("[budget]\nmax_hours = 0", "budget.max_hours = 0"),
        ("name = 'a b'", "name = 'a b'"),
    ],
)
def test_wrong_designs_are_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as refused:
        make_design(tmp_path, text)
    assert "\n" not in str(refused.value)


def test_a_grid_takes_no_range_and_bounds_its_size(tmp_path: Path) -> None:
    design = make_design(tmp_path, "[axes]\ntokens = {low = 1, high = 2}")
    with pytest.raises(BenchmarkError, match='a range needs kind = "random"'):
        list(grid(design.axes, "test"))
    many = tuple(range(1000))
    with pytest.raises(BenchmarkError, match="1,000,000 combinations: at most 100,000"):
        list(grid({"a": many, "b": many}, "test"))


def test_a_missing_base_is_named(tmp_path: Path) -> None:
    file = tmp_path / "design.toml"
    file.write_text('base = "no.toml"\n')
    from benchmarks.sweeps.design import read_design

    with pytest.raises(InputError, match=r"no\.toml: No such file"):
        read_design(file)
