"""Seconds of a step that no schedule undercuts, from the seconds of a model's parts."""

from collections import Counter
from functools import cached_property
from itertools import accumulate

from parallel.planner.search.candidates import Candidate
from parallel.planner.search.shared_times import ModelSeconds


class StageBound:
    """Bounds of candidates that share a model's seconds but not how it is dealt over stages.

    That of a mean stage is the cheaper one; that of all stages is `lower_bound_seconds` of
    `schedule/estimate.py` without transfers: each stage waits for its first input, runs all its
    passes, and its last result goes back to the first.
    """

    def __init__(self, seconds: ModelSeconds) -> None:
        counts, by_kind = Counter(seconds.kinds), seconds.by_kind
        layers = sum(count * by_kind[kind] for kind, count in counts.items())
        self._seconds = seconds
        self.total = layers + seconds.embedding + seconds.head

    @cached_property
    def _before(self) -> list[float]:
        """Seconds of all layers before each."""
        return list(accumulate(self._seconds.layers, initial=0.0))

    def of_mean_stage(self, candidate: Candidate, micro_batches: int) -> float:
        """Return the passes of a mean stage."""
        seconds = self._seconds
        layers = len(seconds.kinds) / candidate.pp
        fixed = seconds.step + seconds.layer_step * layers
        return fixed + self.total * micro_batches / candidate.pp

    def of_all_stages(self, candidate: Candidate, micro_batches: int) -> float:
        """Return the largest bound of any stage."""
        pp, last = candidate.pp, candidate.pp * candidate.vpp - 1
        bounds = candidate.chunk_bounds(len(self._seconds.kinds))
        most = waited = 0.0
        own = 0
        for stage in range(pp):
            first = 0.0
            passes = 0.0
            layers = 0
            for number in range(stage, last + 1, pp):
                chunk = self._before[bounds[number + 1]] - self._before[bounds[number]]
                if number == 0:
                    chunk += self._seconds.embedding
                if number == last:
                    chunk += self._seconds.head
                if number == stage:
                    first = chunk
                passes += chunk
                layers += bounds[number + 1] - bounds[number]
            most = max(most, waited + micro_batches * passes)
            waited += first
            own = max(own, layers)
        return self._seconds.step + self._seconds.layer_step * own + most
