"""Jobs to plan in tests: a preset on a few cards."""

from typing import Any

from benchmarks.planning.job import JobOptions, read_job
from benchmarks.planning.planner import Planner


def planner(model: str = "mixtral-8x7b", gpus: int = 64, **options: Any) -> Planner:
    """Return a planner of a preset on H100s."""
    return Planner(read_job(model, JobOptions(gpus=gpus, gpu="h100", **options)))
