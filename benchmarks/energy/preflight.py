"""What `[energy]` names, checked before a run starts: its files and its grid zone."""

from pathlib import Path

from benchmarks.energy.samples.power_samples import SampleFile
from benchmarks.energy.source import SourceUnavailableError
from benchmarks.errors import BenchmarkError
from benchmarks.footprint.carbon_intensity import grid_zone
from moe.config.energy import EnergyConfig
from moe.config.power_csv import check_power_csv


def check_energy(config: EnergyConfig) -> None:
    """Refuse a grid zone that is not in the table, and power samples that cannot be read.

    Raises:
        InputError: Names the key, the reason and the remedy.
    """
    if config.region is not None:
        grid_zone(config.region)
    if config.power_csv is None:
        return
    path = Path(config.power_csv)
    check_power_csv(path)
    try:
        SampleFile(path, config.power_devices)
    except SourceUnavailableError as error:
        raise BenchmarkError(
            f"energy.power_csv = {error}: repair the log, or set energy.source to another meter"
        ) from None
