"""The fit of a card: true parameters come back, and a wrong table is told."""

from functools import partial
from pathlib import Path

import pytest

from parallel.errors import ParallelError
from parallel.hardware.card import Card, load_card
from parallel.hardware.kernel_parameters import KernelParameters
from parallel.planner.calibration.card_parameters import get_parameter, with_parameters
from parallel.planner.calibration.fit_card import Fitted, fit_parameters
from parallel.planner.calibration.refit import kernels_toml, main, starting_card
from parallel.planner.calibration.samples import Sample, Terms, is_held_out, read_rows
from parallel.planner.compute_time.gemm import gemm_seconds

ROOT = Path(__file__).parents[4]
H100 = load_card("h100")
TRUE = {
    "launch_seconds": 5e-6,
    "memory_efficiency": 0.6,
    "matrix.bf16.efficiency": 0.7,
    "matrix.bf16.tile_seconds": 4e-6,
}


def predict(m: int, n: int, k: int, card: Card, terms: Terms) -> float:
    return terms["factor"] * gemm_seconds(card, m, n, k, "bf16", repetitions=0)


def test_true_parameters_come_back() -> None:
    truth = with_parameters(H100, TRUE)
    samples = []
    for m in (128, 1024, 8192, 32768):
        for n in (512, 4096, 16384):
            for k in (256, 4096, 16384):
                seconds = 1.25 * gemm_seconds(truth, m, n, k, "bf16", repetitions=0)
                samples.append(
                    Sample(group="made", seconds=seconds, predict=partial(predict, m, n, k))
                )
    start = Fitted(H100, {"factor": 1.25})
    fitted = fit_parameters(start, samples, list(TRUE))
    for name, value in TRUE.items():
        assert get_parameter(fitted.card, name) == pytest.approx(value, rel=0.02)
    factor = fit_parameters(Fitted(truth, {"factor": 1.0}), samples, ["terms.factor"])
    assert factor.terms["factor"] == pytest.approx(1.25, rel=0.01)
    assert factor.card.kernels == truth.kernels


def test_a_section_is_written_as_it_is_read(tmp_path: Path) -> None:
    text = kernels_toml(H100.kernels)
    path = tmp_path / "again.toml"
    head = (ROOT / "parallel/hardware/cards/h100.toml").read_text(encoding="utf-8")
    path.write_text(head.split("[kernels]")[0] + text, encoding="utf-8")
    assert load_card(str(path)).kernels == H100.kernels
    assert "tiles = [[128, 256], [256, 128]," in text


def test_where_a_fit_starts() -> None:
    h200, b200 = load_card("h200"), load_card("b200")
    start = starting_card(H100, h200, h200).kernels
    assert isinstance(start, KernelParameters)
    assert start.static_watts == h200.kernels.static_watts
    assert start.attention_forward == h200.kernels.attention_forward
    assert "nvfp4" in starting_card(b200, None, None).kernels.matrix
    assert "nvfp4" not in start.matrix


def test_a_tenth_is_held_out() -> None:
    held = sum(is_held_out((str(m), str(n))) for m in range(100) for n in range(100))
    assert held == pytest.approx(1000, rel=0.1)


def test_wrong_tables_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path), "h101"]) == 2
    assert "gpu 'h101': no such card" in capsys.readouterr().err
    assert main([str(tmp_path), "h100"]) == 2
    assert "attention_train.csv': cannot be read" in capsys.readouterr().err
    table = tmp_path / "table.csv"
    table.write_text("m,n\n1,2\n", encoding="utf-8")
    with pytest.raises(ParallelError, match="no column 'k'"):
        read_rows(table, ("m", "n", "k"), held_out=True)
