"""SLURM's energy accounting as a source, by a fake of its commands."""

from pathlib import Path

import pytest

from benchmarks.energy.source import SourceLostError, SourceUnavailableError
from benchmarks.energy.sources.slurm import SlurmSource

CONFIG = "AcctGatherEnergyType    = acct_gather_energy/{plugin}\nAcctGatherNodeFreq      = 10 sec\n"


class FakeSlurm:
    def __init__(self, plugin: str = "ipmi", energy: str = "1000") -> None:
        self.plugin, self.energy, self.asked = plugin, energy, [""]

    def __call__(self, argv: list[str]) -> str:
        self.asked = argv
        return CONFIG.format(plugin=self.plugin) if argv[0] == "scontrol" else f"{self.energy}\n"


def test_slurm_energy_of_the_running_step() -> None:
    slurm = FakeSlurm()
    source = SlurmSource({"SLURM_JOB_ID": "17", "SLURM_STEP_ID": "0"}, slurm)
    assert source.read_joules() == 1000
    assert slurm.asked[-1] == "--jobs=17.0"
    assert (source.info.resolution_s, source.info.scope) == (10, "job")
    assert "shared node" in (source.info.note or "")
    for nothing in ("0", "", "4294967294", "n/a", "900"):
        slurm.energy = nothing
        with pytest.raises(SourceLostError, match="no energy for 17.0|fell from 1000 to 900 J"):
            source.read_joules()


def test_a_fresh_step_says_0_until_its_nodes_first_sample() -> None:
    slurm = FakeSlurm(energy="0")
    source = SlurmSource({"SLURM_JOB_ID": "17", "SLURM_STEP_ID": "0"}, slurm)
    assert source.read_joules() == source.read_joules() == 0
    for joules in (9000, 12000):
        slurm.energy = str(joules)
        assert source.read_joules() == joules
    slurm.energy = "0"
    with pytest.raises(SourceLostError, match="no energy for 17.0"):
        source.read_joules()


@pytest.mark.parametrize("nothing", ["", "4294967294", "n/a"])
def test_a_fresh_step_without_a_figure_is_a_loss(nothing: str) -> None:
    source = SlurmSource({"SLURM_JOB_ID": "17"}, FakeSlurm(energy=nothing))
    with pytest.raises(SourceLostError, match=r"no energy for 17\.batch"):
        source.read_joules()


def test_an_answer_that_is_no_text_is_no_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = tmp_path / "scontrol"
    command.write_text("#!/bin/sh\nprintf 'AcctGatherEnergyType = \\377none\\n'\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(SourceUnavailableError, match="gathers no energy"):
        SlurmSource({"SLURM_JOB_ID": "17"})


def test_slurm_that_gathers_none_is_said() -> None:
    with pytest.raises(SourceUnavailableError, match="AcctGatherEnergyType is none"):
        SlurmSource({"SLURM_JOB_ID": "17"}, FakeSlurm("none"))
    with pytest.raises(SourceUnavailableError, match="no SLURM job"):
        SlurmSource({}, FakeSlurm())
