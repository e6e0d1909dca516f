"""What a run really runs on and with: measured and read from the built model, for its record."""

from dataclasses import dataclass
from typing import Any

import torch

from moe.cost.ledger import Ledger, ledger
from moe.training.startup.execution_report import execution_report, verify_execution
from moe.training.trainer import Trainer
from parallel.engine.megatron_version import MEGATRON_VERSION
from parallel.hardware.probe import MatmulProbe, describe_device, utilization


@dataclass(frozen=True, kw_only=True)
class RunConditions:
    """Cost and peak rate of one rank, by which speed is judged, and what executes."""

    num_ranks: int
    ledger: Ledger
    peak: dict[str, Any]
    """Measured matmul rate of this rank's device (`flops_per_s`, and how it was measured)."""
    probe: MatmulProbe | None = None
    """Measures it again beside the steps, and keeps `peak` up to date."""
    execution: dict[str, Any]
    """As of `execution_report`."""

    def speed(self, training_flops: float | None, seconds: float) -> dict[str, float | None]:
        """Return `flops_per_s` of each rank, and `mfu`: its fraction of the peak.

        `mfu` is `None` where it would be above 1: the peak was not measured undisturbed.

        Args:
            training_flops: Of all ranks; None: not counted, and so are both.
            seconds: Of wall time.
        """
        if training_flops is None:
            return {"flops_per_s": None, "mfu": None}
        flops_per_s = training_flops / seconds / self.num_ranks
        return {"flops_per_s": flops_per_s, "mfu": utilization(flops_per_s, self.peak)}


def measure_conditions(trainer: Trainer) -> RunConditions:
    """Measure the device, and compare what was built with what was requested.

    Raises:
        ExecutionError: They differ.
    """
    experiment = trainer.experiment
    dtype = torch.bfloat16 if experiment.precision.dtype == "bf16" else torch.float32
    probe = MatmulProbe(trainer.engine.device, dtype)
    execution = execution_report(trainer)
    verify_execution(experiment, execution)
    return RunConditions(
        num_ranks=trainer.engine.world_size,
        ledger=ledger(experiment.model, experiment.train.seq_len),
        peak=probe.record,
        probe=probe,
        execution=execution,
    )


def conditions_record(trainer: Trainer, conditions: RunConditions) -> dict[str, Any]:
    """Return the sections of a run's record that describe its conditions."""
    experiment, engine = trainer.experiment, trainer.engine
    layout = experiment.parallel.model_dump(include={"tp", "sp", "pp", "vpp", "ep", "etp", "cp"})
    return {
        "hardware": describe_device(engine.device) | {"ranks": engine.world_size},
        "execution": conditions.execution | {"megatron_core": MEGATRON_VERSION},
        "layout": layout | {"dp": engine.dp},
        "data": trainer.loader.describe(experiment.train.steps),
        "ledger": conditions.ledger.as_json(),
        "peak": conditions.peak,
    }
