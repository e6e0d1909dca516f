"""What failures and checkpoints cost a long run: Young's and Daly's optimum.

J. T. Daly, "A higher order estimate of the optimum checkpoint interval for restart dumps", Future
Generation Computer Systems 22 (2006) 303-312, for failures that come independently at a constant
rate; J. W. Young's first-order optimum is sqrt(2 x checkpoint x mean time between failures).
"""

from dataclasses import dataclass
from math import exp, expm1, sqrt
from typing import Any

from benchmarks.errors import BenchmarkError
from parallel.measurement.units import SECONDS_PER_HOUR

GPU_MTBF_HOURS = 50_000.0
"""Hours of one GPU between interruptions of its job: Llama 3's 419 unexpected ones in 54 days on
16,384 H100 (arXiv:2407.21783, section 3.3.4) are one in 50,700 GPU-hours."""
CHECKPOINT_SECONDS = 60.0
"""Seconds that training waits for a checkpoint: an assumption; `moe bench checkpoint` measures."""
RESTART_SECONDS = 600.0
"""Seconds from a failure to the next step: detection, scheduling, start, loading. An assumption."""
MOST_OVERHEAD = 100.0
"""Wall time over productive time beyond which a run makes no progress worth a number."""


@dataclass(frozen=True, kw_only=True)
class Reliability:
    """How often a job fails, and what it does about that."""

    gpu_mtbf_hours: float = GPU_MTBF_HOURS
    checkpoint_seconds: float = CHECKPOINT_SECONDS
    restart_seconds: float = RESTART_SECONDS

    def mtbf_seconds(self, num_gpus: int) -> float:
        """Return the mean time between failures of a job on so many cards; any one stops it."""
        return self.gpu_mtbf_hours * SECONDS_PER_HOUR / num_gpus

    def interval_seconds(self, num_gpus: int) -> float:
        """Return the seconds of training between checkpoints that cost least."""
        saving, mtbf = self.checkpoint_seconds, self.mtbf_seconds(num_gpus)
        if saving >= 2 * mtbf:
            return mtbf
        ratio = saving / (2 * mtbf)
        return sqrt(2 * saving * mtbf) * (1 + sqrt(ratio) / 3 + ratio / 9) - saving

    def overhead(self, num_gpus: int) -> float:
        """Return expected wall time over that of training without failures (Daly's whole form).

        Raises:
            BenchmarkError: Failures come faster than checkpoints: the run makes no progress.
        """
        mtbf, interval = self.mtbf_seconds(num_gpus), self.interval_seconds(num_gpus)
        exponent = (interval + self.checkpoint_seconds + self.restart_seconds) / mtbf
        factor = float("inf")
        if exponent < 50:
            segment = expm1((interval + self.checkpoint_seconds) / mtbf)
            factor = mtbf * exp(self.restart_seconds / mtbf) * segment / interval
        if factor > MOST_OVERHEAD:
            raise BenchmarkError(
                f"{num_gpus:,} cards with {self.gpu_mtbf_hours:g} h between failures of each fail"
                f" every {mtbf:.3g} s: with a checkpoint of {self.checkpoint_seconds:g} s and a"
                f" restart of {self.restart_seconds:g} s no run ends: raise --gpu-mtbf-hours, or"
                " lower --checkpoint-seconds and --restart-seconds"
            )
        return factor

    def as_json(self, num_gpus: int) -> dict[str, Any]:
        """Return the assumptions and what follows for a job."""
        return {
            "gpu_mtbf_hours": self.gpu_mtbf_hours,
            "checkpoint_seconds": self.checkpoint_seconds,
            "restart_seconds": self.restart_seconds,
            "job_mtbf_hours": self.mtbf_seconds(num_gpus) / SECONDS_PER_HOUR,
            "checkpoint_interval_s": self.interval_seconds(num_gpus),
            "wall_over_productive_time": self.overhead(num_gpus),
            "source": "Llama 3, arXiv:2407.21783, 3.3.4; Daly 2006",
        }
