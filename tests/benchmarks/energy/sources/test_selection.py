"""Which source a run gets: automatic selection, and sources requested by name."""

import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.energy.sources.rapl import RaplSource
from benchmarks.energy.sources.selection import OPENERS, select_source
from benchmarks.errors import BenchmarkError
from moe.config.energy import EnergyConfig
from moe.runs.callbacks import RankContext
from tests.support.fake_meters import FakeClock, Rank, Ranks


def cpu_context(tmp_path: Path) -> RankContext:
    context = Ranks([Rank(lambda: None, FakeClock())], tmp_path).context(0)
    return replace(context, device="cpu", hostname=socket.gethostname())


def test_every_source_of_the_configuration_has_a_meter() -> None:
    """A name that the schema allows must not end in a traceback."""
    names: Any = EnergyConfig.model_fields["source"].annotation
    assert set(names.__args__) == set(OPENERS) | {"auto", "none"}


@pytest.mark.parametrize("name", ["zeus", "codecarbon"])
def test_an_extra_that_is_not_installed_is_named(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "codecarbon", None)
    monkeypatch.setitem(__import__("sys").modules, "zeus.device", None)
    context = Ranks([Rank(lambda: None, FakeClock())], tmp_path).context(0)
    with pytest.raises(BenchmarkError, match=rf"moescale\[{name}\]"):
        select_source(EnergyConfig(source=name), replace(context, device="cuda"))  # type: ignore[arg-type]


def test_a_meter_asked_for_and_absent_is_one_line(tmp_path: Path) -> None:
    context = cpu_context(tmp_path)
    with pytest.raises(BenchmarkError, match='energy.source = "nvml".*"auto"') as error:
        select_source(EnergyConfig(source="nvml"), context)
    assert error.value.exit_code == 2
    assert "\n" not in str(error.value)


def test_none_means_no_meter(tmp_path: Path) -> None:
    context = Ranks([Rank(lambda: None, FakeClock())], tmp_path).context(0)
    selection = select_source(EnergyConfig(source="none"), context)
    assert selection.source is None
    assert selection.reason == "energy.source is none"


def test_auto_takes_the_counter_and_names_what_it_passed_over(
    powercap: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(OPENERS, "rapl", lambda _c, context: RaplSource(context.hostname, powercap))
    selection = select_source(EnergyConfig(), cpu_context(tmp_path))
    assert selection.source is not None
    assert selection.source.info.name == "rapl"
    assert selection.rejected == {"nvml": "the run computes on no GPU"}


def test_auto_falls_back_to_the_model_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "powercap"
    root.mkdir()
    masked = root / "intel-rapl:0"
    monkeypatch.setitem(OPENERS, "rapl", lambda _c, context: RaplSource(context.hostname, root))
    for reason in ("no RAPL zones", "a container may hide it"):
        selection = select_source(EnergyConfig(), cpu_context(tmp_path))
        assert selection.source is not None
        assert selection.source.info.kind == "modelled"
        assert reason in selection.rejected["rapl"]
        masked.unlink(missing_ok=True)
        masked.symlink_to(tmp_path / "nowhere")


def test_asked_for_by_name_and_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(OPENERS, "rapl", lambda _c, context: RaplSource("node", tmp_path / "none"))
    with pytest.raises(BenchmarkError, match='energy.source = "rapl".*no RAPL zones'):
        select_source(EnergyConfig(source="rapl"), cpu_context(tmp_path))
