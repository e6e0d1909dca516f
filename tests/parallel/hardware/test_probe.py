"""The matmul rate that MFU is relative to: measured again beside the steps, seldom and safely."""

from typing import Any

import pytest
import torch

from parallel.hardware import probe
from parallel.hardware.probe import MatmulProbe, measure_matmul_rate, utilization

CPU = torch.device("cpu")


@pytest.fixture
def rates(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Rates that the next measurements give, FLOP/s."""
    coming: list[float] = []

    def measure(_device: Any, _dtype: Any, _repeats: int = 0) -> dict[str, Any]:
        rate = coming.pop(0)
        if not rate:
            raise torch.OutOfMemoryError("no room")
        return {"flops_per_s": rate, "source": "measured"}

    monkeypatch.setattr(probe, "measure_matmul_rate", measure)
    return coming


def test_the_peak_is_the_highest_and_the_spread_is_kept(rates: list[float]) -> None:
    rates += [38e9, 80e9, 81e9]
    device = MatmulProbe(CPU, torch.float32)
    record = device.record
    assert (record["flops_per_s"], record["rates_flops_per_s"]) == (38e9, [38e9])
    for _ in range(2):
        device.repeat(1e6)
    assert record == {
        "flops_per_s": 81e9,
        "source": "measured",
        "median_flops_per_s": 80e9,
        "lowest_flops_per_s": 38e9,
        "rates_flops_per_s": [38e9, 80e9, 81e9],
    }


def test_a_resumed_run_keeps_what_its_earlier_starts_measured(rates: list[float]) -> None:
    rates += [38e9]
    device = MatmulProbe(CPU, torch.float32)
    device.resume({"flops_per_s": 81e9, "source": "measured", "rates_flops_per_s": [81e9, 79e9]})
    assert device.record["flops_per_s"] == 81e9
    assert device.record["median_flops_per_s"] == 79e9
    rates += [38e9] * 2
    other = MatmulProbe(CPU, torch.float32)
    other.resume({"flops_per_s": 81e9, "source": "measured: another number format"})
    assert other.record["rates_flops_per_s"] == [38e9]
    other.resume({"flops_per_s": 60e9, "source": "measured"})  # by an older version
    assert other.record["flops_per_s"] == 60e9


def test_a_long_run_keeps_some_rates_and_the_highest(rates: list[float]) -> None:
    rates += [38e9, 81e9, *[50e9] * 300]
    device = MatmulProbe(CPU, torch.float32)
    for _ in range(300):
        device.repeat(1e6)
    assert len(device.record["rates_flops_per_s"]) <= probe.MAX_RATES
    assert device.record["flops_per_s"] == 81e9


def test_repetitions_take_little_of_the_training(rates: list[float]) -> None:
    rates += [38e9] * 2
    device = MatmulProbe(CPU, torch.float32)
    needed_s = 4 * 2 * 1024**3 / 38e9
    device.repeat(0.9 * needed_s / probe.MAX_PROBE_SHARE)
    assert len(device.record["rates_flops_per_s"]) == 1
    device.repeat(1.1 * needed_s / probe.MAX_PROBE_SHARE)
    assert len(device.record["rates_flops_per_s"]) == 2
    device.spent_s = needed_s
    device.repeat(1.1 * needed_s / probe.MAX_PROBE_SHARE)
    assert len(device.record["rates_flops_per_s"]) == 2


def test_a_full_device_is_left_alone(rates: list[float]) -> None:
    rates += [38e9, 0.0]
    device = MatmulProbe(CPU, torch.float32)
    device.repeat(1e6)
    assert len(device.record["rates_flops_per_s"]) == 1


def test_a_runs_random_numbers_do_not_depend_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "_matmul_size", lambda _device: 8)
    torch.manual_seed(1)
    expected = torch.rand(4)
    torch.manual_seed(1)
    assert measure_matmul_rate(CPU, torch.float32, 1)["flops_per_s"] > 0
    assert torch.equal(torch.rand(4), expected)


def test_more_than_the_peak_is_no_utilization() -> None:
    peak = {"flops_per_s": 38e9}
    assert utilization(19e9, peak) == 0.5
    assert utilization(38e9, peak) == 1
    assert utilization(81e9, peak) is None


def test_a_cpu_without_a_model_name_is_named_by_its_architecture(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise FileNotFoundError

    monkeypatch.setattr("builtins.open", refuse)
    monkeypatch.setattr("platform.processor", lambda: "")
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert probe.describe_device(CPU)["name"] == "aarch64"
