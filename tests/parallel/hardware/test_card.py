"""Cards: names, files of one's own, sources, and what a wrong one is told."""

from pathlib import Path

import pytest

from parallel.errors import ParallelError
from parallel.hardware.card import card_names, find_card, load_card
from parallel.hardware.datasheet import datasheet_peak, rated_watts


@pytest.mark.parametrize(
    ("name", "card"),
    [
        ("h100", "H100"),
        ("H100-SXM", "H100"),
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H100 PCIe", "H100 PCIe"),
        ("NVIDIA GB200", "GB200"),
        ("gb300", "GB300"),
        ("mi300x", "MI300X"),
        ("cpu", "CPU"),
    ],
)
def test_names_and_aliases(name: str, card: str) -> None:
    assert load_card(name).name == card


def test_all_cards_are_valid_and_named_once() -> None:
    cards = [load_card(name) for name in card_names()]
    assert len(cards) >= 12
    names = [name.lower() for card in cards for name in (card.name, *card.aliases)]
    assert len(names) == len(set(names))
    for card in cards:
        stated = {name for name, value in card.rates if value is not None}
        assert stated | {"memory_bytes"} == set(card.sources)
        assert card.kernels.fitted_on


def test_a_lent_card_keeps_its_own_overrides() -> None:
    gb200, gb300 = load_card("gb200"), load_card("gb300")
    assert gb300.kernels.matrix == gb200.kernels.matrix
    assert gb300.kernels.attention_forward != gb200.kernels.attention_forward
    assert load_card("h800").kernels == load_card("h100").kernels


@pytest.mark.parametrize("name", ["NVIDIA GH200 480GB", "NVIDIA H100 NVL", "NVIDIA H200 NVL"])
def test_a_device_is_not_taken_for_another(name: str) -> None:
    assert find_card(name) is None
    assert datasheet_peak(name, "bf16").value is None
    assert rated_watts(name).value is None


def test_data_sheets_are_the_cards() -> None:
    assert datasheet_peak("NVIDIA B200", "bf16").value == load_card("b200").rates.bf16
    assert rated_watts("NVIDIA H200").value == 700
    assert "SXM" in rated_watts("NVIDIA H100 80GB HBM3").source


def test_an_unknown_card_is_told_what_there_is() -> None:
    with pytest.raises(ParallelError, match=r"gpu 'h101': no such card; choose a100, .*mi300x"):
        load_card("h101")


def _own_card(folder: Path, text: str) -> str:
    path = folder / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


OWN = """
name = "Mine"
aliases = []
architecture = "hopper"
memory_bytes = 1_000
kernels_of = "h100"
[rates]
bf16 = 1e15
fp32 = 1e13
memory_bytes_per_s = 1e12
sms = 100
l2_bytes = 1_000
[sources]
memory_bytes = "me"
bf16 = "me"
fp32 = "me"
memory_bytes_per_s = "me"
sms = "me"
l2_bytes = "me"
[kernels]
launch_seconds = 7e-6
"""


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    card = load_card(_own_card(tmp_path, OWN))
    assert (card.name, card.rates.sms, card.kernels.launch_seconds) == ("Mine", 100, 7e-6)
    assert card.kernels.matrix == load_card("h100").kernels.matrix


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (("sms = 100", "sms = 0"), r"mine.toml: rates.sms: .*greater than 0"),
        (('fp32 = "me"', ""), r"mine.toml: .*\[sources\] says nothing of fp32"),
        (('kernels_of = "h100"', 'kernels_of = "h9"'), r"kernels_of = 'h9': no such card"),
        (("[rates]", "[rates"), r"cannot be read as a card"),
        (("memory_bytes = 1_000", "memory = 1_000"), r"mine.toml: memory"),
    ],
)
def test_wrong_files_are_told_in_one_line(
    tmp_path: Path, change: tuple[str, str], complaint: str
) -> None:
    with pytest.raises(ParallelError, match=complaint) as caught:
        load_card(_own_card(tmp_path, OWN.replace(*change, 1)))
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ParallelError, match="cannot be read as a card"):
        load_card(str(tmp_path / "none.toml"))
