"""The `[energy]` section: where joules come from and what they cost."""

from typing import Literal, Self

from pydantic import Field, model_validator

from data.frozen_model import FrozenModel

LARGEST_PRICE = 1e12


class EnergyConfig(FrozenModel):
    """The `[energy]` section."""

    source: Literal[
        "auto", "nvml", "rapl", "slurm", "csv", "zeus", "codecarbon", "model", "none"
    ] = "auto"
    """Meter: `auto` takes the best of nvml, rapl and model that works here, and the record names
    it; `slurm` is the job's ConsumedEnergyRaw; `csv` reads `power_csv`; `zeus` and `codecarbon`
    need their extras; `model` is computed from power and utilization and marked *modelled*."""
    power_csv: str | None = None
    """Power samples that a PDU's or IPMI logger is writing, for `csv`: columns `time` (ISO 8601,
    UTC where it names no zone, or Unix seconds), `watts` and, where several are summed, `device`.
    Other columns are refused, and so is any cell that cannot be read with certainty."""
    power_devices: tuple[str, ...] | None = Field(default=None, min_length=1)
    """Devices of `power_csv` whose sum is the run's power; others are not read. Needed where their
    names differ in more than numbers (`node`, `gpu0`): one may be a part of another."""
    cpu_watts: float | None = Field(default=None, gt=0, le=1e6)
    """Power of the CPU package at full load, W, for `model`. Default: a stated per-core figure."""
    gpu_watts: float | None = Field(default=None, gt=0, le=1e6)
    """Rated power of one GPU, W, for `model`. Default: the data sheet's."""
    gpu_utilisation: float = Field(default=1.0, gt=0, le=1)
    """Share of the rated power that a GPU is taken to draw, for `model`; 1 is an upper bound."""
    idle_seconds: float = Field(default=2.0, ge=0, le=3600)
    """Time before the run in which idle power is measured, s (counters only); 0: not measured."""
    region: str | None = None
    """Grid zone for carbon intensity, for example `FRA`, `US-CA` or `aws:eu-north-1`; `moe carbon
    --zones` lists them."""
    carbon_intensity: float | None = Field(default=None, ge=0, le=1e6)
    """Your own value in gCO2e per kWh, in place of `region`."""
    pue: float = Field(default=1.0, ge=1, le=100)
    """Power usage effectiveness of the facility."""
    water_litres_per_kwh: float | None = Field(default=None, ge=0, le=1e6)
    """Water used on site and for power generation, litres per kWh."""
    price_per_device_hour: float | None = Field(default=None, ge=0, le=LARGEST_PRICE)
    """Money one device costs an hour, in `currency`."""
    price_per_kwh: float | None = Field(default=None, ge=0, le=LARGEST_PRICE)
    """Money a kWh costs, in `currency`, where power is paid beside the device."""
    currency: str = Field(default="EUR", pattern=r"^[A-Z]{3}$")
    """Currency of the prices, ISO 4217."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.region is not None and self.carbon_intensity is not None:
            raise ValueError("region and carbon_intensity both say the same: set one of them")
        if (self.source == "csv") != (self.power_csv is not None):
            raise ValueError('source = "csv" and power_csv go together: set both, or neither')
        if self.power_devices is not None:
            if self.power_csv is None:
                raise ValueError("power_devices are those of power_csv: set both, or neither")
            if len({name.strip() for name in self.power_devices}) < len(self.power_devices):
                raise ValueError("power_devices names a device twice: it would count twice")
        return self
