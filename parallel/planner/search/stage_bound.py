"""Seconds of a step that no schedule undercuts, from the seconds of a model's parts."""

from operator import mul

from parallel.planner.search.shared_times import Kind, ModelSeconds
from parallel.planner.search.stage_loads import Counts, StageLoads
from parallel.planner.search.stages import Stages


class StageBound:
    """Bounds of candidates that share a model's seconds but not how it is dealt over stages.

    That of mean stages is the cheaper one; that of all stages is `lower_bound_seconds` of
    `schedule/estimate.py` without transfers: each stage waits for its first input, runs all its
    passes, and its last result goes back to the first.
    """

    def __init__(self, seconds: ModelSeconds, loads: StageLoads[Kind]) -> None:
        """Take the seconds of a model's parts, and what its stages hold."""
        self._loads, self._step, self._layer_step = loads, seconds.step, seconds.layer_step
        self._parts = (
            *(seconds.by_kind[kind] for kind in loads.kinds), seconds.embedding, seconds.head
        )  # fmt: skip
        self.total = self._seconds(loads.whole)

    def of_mean_stages(self, pp: int, passes: float) -> float:
        """Return the passes of a mean stage.

        Args:
            pp: The most stages.
            passes: Micro-batches over stages.
        """
        return self._step + self._layer_step * self._loads.num_layers / pp + self.total * passes

    def of_all_stages(self, stages: Stages, micro_batches: int) -> float:
        """Return the largest bound of any stage."""
        loads, layers = self._loads.slowest(stages)
        most = max(
            self._seconds(one.waits) + micro_batches * self._seconds(one.runs) for one in loads
        )
        return self._step + self._layer_step * layers + most

    def _seconds(self, counts: Counts) -> float:
        return sum(map(mul, counts, self._parts), 0.0)
