"""Shipped models against what their cards print, and the names by which they are found."""

import json

import pytest
from typer.testing import CliRunner

from moe.config.experiment import load_model
from moe.config.presets.catalog import preset_names, read_card, resolve_preset
from moe.cost.ledger import ledger
from moe.errors import ConfigError
from moescale import app

PUBLISHED = [name for name in preset_names() if read_card(name).total_parameters]
WANTED = {
    "tiny", "small", "olmoe-1b-7b", "mixtral-8x7b", "mixtral-8x22b", "qwen3-30b-a3b",
    "qwen3-235b-a22b", "deepseek-v3", "llama3-8b", "llama3-70b", "llama3.1-405b",
    "qwen2-57b-a14b", "deepseek-v2-lite", "kimi-k2", "moonlight-16b-a3b", "gpt-oss-20b",
    "gpt-oss-120b", "glm-4.5-air",
}  # fmt: skip


UNITS = {"M": 10**6, "B": 10**9, "T": 10**12}


def printed_count(text: str) -> float:
    """Return the parameters that a printed figure like `30.5B` stands for."""
    return float(text[:-1]) * UNITS[text[-1]]


def agrees(value: int, printed: str) -> bool:
    """Within 1%, or within 3% and the same once rounded or cut to the digits printed."""
    digits = len(printed[:-1].partition(".")[2])
    unit = printed_count("1" + printed[-1]) / 10**digits
    shown = round(printed_count(printed) / unit)
    error = abs(value / printed_count(printed) - 1)
    return error < 0.01 or (error < 0.03 and shown in {round(value / unit), value // unit})


def test_agreement_means_the_printed_digits_or_one_percent() -> None:
    assert agrees(3_353_000_000, "3.3B")
    assert agrees(36_626_000_000, "36.7B")
    assert not agrees(3_410_000_000, "3.3B")
    assert not agrees(690_000_000_000, "1T")
    assert not agrees(680_000_000_000, "671B")


def test_the_promised_models_are_shipped() -> None:
    assert set(preset_names()) >= WANTED


@pytest.mark.parametrize("preset", PUBLISHED)
def test_counts_agree_with_the_card(preset: str) -> None:
    card, cost = read_card(preset), ledger(load_model(preset), 4096)
    total, active = cost.total_parameters - cost.mtp_parameters, cost.active_parameters
    if card.counts == "without_input_embedding":
        active = cost.active_parameters_without_input_embedding
    elif card.counts == "without_embeddings":
        total -= cost.embedding_parameters
        active -= cost.embedding_parameters
    assert card.total_parameters is not None
    assert card.active_parameters is not None
    assert agrees(total, card.total_parameters), (total, card.total_parameters)
    assert agrees(active, card.active_parameters), (active, card.active_parameters)
    assert len(card.sources) >= 2


def test_multi_token_prediction_of_deepseek_v3_is_what_its_weights_file_says() -> None:
    assert agrees(ledger(load_model("deepseek-v3"), 4096).mtp_parameters, "11.5B")


@pytest.mark.parametrize(
    ("name", "preset"),
    [
        ("LLAMA3.1_405B", "llama3.1-405b"),
        ("LLAMA3_70B", "llama3-70b"),
        ("Qwen3_30B_a3B", "qwen3-30b-a3b"),
        ("Qwen3 MoE 30B", "qwen3-30b-a3b"),
        ("Qwen3_235B_a22B (tokendrop)", "qwen3-235b-a22b"),
        ("DeepSeek V3 671B", "deepseek-v3"),
        ("DeepSeekV3 (dropless)", "deepseek-v3"),
        ("Mixtral-8x22B", "mixtral-8x22b"),
        ("Moonlight-16B", "moonlight-16b-a3b"),
        ("GPT-OSS 20B", "gpt-oss-20b"),
        ("tiny", "tiny"),
    ],
)
def test_names_of_published_tables_are_understood(name: str, preset: str) -> None:
    assert resolve_preset(name) == preset
    assert load_model(name).preset == preset


def test_no_name_means_two_models() -> None:
    for preset in preset_names():
        for name in (preset, preset.upper(), *read_card(preset).aliases):
            assert resolve_preset(name) == preset


def test_unknown_model_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="no preset 'qwen3-30b': did you mean qwen3-30b-a3b"):
        load_model("qwen3-30b")


@pytest.mark.parametrize("name", ["qwen3-next", "Qwen3-Next-80B-A3B-Instruct", "qwen3_next"])
def test_a_model_that_cannot_be_expressed_is_refused_with_the_reason(name: str) -> None:
    with pytest.raises(ConfigError, match=r"gated DeltaNet.*nearest shipped is qwen3-30b-a3b"):
        load_model(name)


def test_listing_holds_every_preset() -> None:
    result = CliRunner().invoke(app, ["presets", "--json"])
    rows = json.loads(result.stdout)["presets"]
    assert [row["name"] for row in rows] == preset_names()
    shown = CliRunner().invoke(app, ["presets"]).stdout
    assert all(name in shown for name in preset_names())


def test_comparison_shows_each_model() -> None:
    result = CliRunner().invoke(app, ["cost", "tiny", "small"])
    assert result.exit_code == 0
    assert "tiny" in result.stdout
    assert "15.48 M" in result.stdout
