"""What `[energy]` names is checked before anything starts."""

from pathlib import Path

import pytest

from benchmarks.energy.callback import EnergyCallback
from benchmarks.energy.preflight import check_energy
from benchmarks.errors import BenchmarkError
from data.errors import InputError
from moe.config.energy import EnergyConfig
from tests.support.power_log import write_power_log


def test_power_samples_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "pdu.csv"
    config = EnergyConfig(source="csv", power_csv=str(path))
    with pytest.raises(InputError, match=r"energy.power_csv = .*pdu.csv: No such file"):
        check_energy(config)
    write_power_log(path, (1, 300, ""), (1, 310, ""))
    with pytest.raises(InputError, match=r"energy.power_csv = .*line 3: times of a device.*repair"):
        check_energy(config)
    write_power_log(path, (1, 300, ""))
    check_energy(config)


def test_a_meter_is_not_made_for_a_zone_that_is_not_in_the_table() -> None:
    with pytest.raises(BenchmarkError, match="Atlantis"):
        EnergyCallback(EnergyConfig(region="Atlantis"))
