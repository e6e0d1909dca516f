"""What a run logs as it goes: metrics rows, expert load, held-out losses, and loggers' numbers."""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from data.store.manifest import HELD_OUT
from moe.routing.statistics import RoutingStatistics
from moe.runs.callbacks import Logger
from moe.runs.directory import RunDirectory
from moe.runs.files import EVALUATIONS, EXPERT_LOAD, METRICS, ROUTING, ROUTING_MAPS
from moe.runs.goodput import ALLOCATION
from moe.runs.json_lines import Row, finite
from moe.training.logs.aux_losses import pop_mean_aux_losses
from moe.training.logs.callback_list import CallbackList
from moe.training.logs.totals import RunTotals
from moe.training.startup.conditions import RunConditions
from moe.training.step import StepResult
from moe.training.trainer import Trainer


@dataclass(frozen=True, kw_only=True)
class Interval:
    """The steps since the last metrics row."""

    first_stall_s: float
    """The loader's stalls before them, s."""
    seconds: float = 0.0
    tokens: int = 0
    flops: float = 0.0
    steps: int = 0

    def after(self, result: StepResult, elapsed_s: float) -> "Interval":
        """Return the interval with one more step, which took `elapsed_s` seconds."""
        return Interval(
            first_stall_s=self.first_stall_s,
            seconds=self.seconds + elapsed_s,
            tokens=self.tokens + result.tokens,
            flops=self.flops + result.flops,
            steps=self.steps + 1,
        )


class MetricsLog:
    """Logs a run; every rank has one, rank 0 writes."""

    def __init__(  # noqa: PLR0913 - whom it asks, and whom it tells
        self,
        trainer: Trainer,
        conditions: RunConditions,
        callbacks: CallbackList,
        *,
        run: RunDirectory | None,
        loggers: Sequence[Logger],
        step: int,
    ) -> None:
        """Start to log after `step`; `run` and `loggers` are used on rank 0 only."""
        self._trainer, self._conditions, self._callbacks = trainer, conditions, callbacks
        self._run = run
        self._loggers = tuple(loggers) if run is not None else ()
        self._interval = self._new_interval()
        if run is not None:
            for logger in self._loggers:
                logger.begin(run.path, run.record, step)

    def add(self, result: StepResult, elapsed_s: float) -> None:
        """Count a step, which took `elapsed_s` seconds."""
        self._interval = self._interval.after(result, elapsed_s)

    def write_row(self, totals: RunTotals, result: StepResult) -> Row:
        """Write a row for the steps since the last one; returns it. A collective call."""
        step = totals.step
        row = self._row(totals, result) | self._callbacks.columns(step, totals.tokens)
        routing = self._trainer.routing.pop()
        if self._run is not None:
            self._run.append(METRICS, row)
            if routing.layers:
                load = {"layers": routing.layers, "counts": routing.counts.tolist()}
                self._run.append(EXPERT_LOAD, {"step": step, **load})
                self._run.append(ROUTING, {"step": step, **routing.as_json()})
            self._log_scalars(step, _scalars(row, routing))
            self._log_expert_load(step, routing)
        self._interval = self._new_interval()
        return row

    def write_evaluation(self, totals: RunTotals, means: Mapping[str, float | None]) -> None:
        """Write held-out means and the routing maps; a collective call."""
        maps = self._trainer.routing_maps.pop()
        if self._run is None:
            return
        step = totals.step
        if maps is not None and means["loss"] is not None:
            content = {"step": step, "split": HELD_OUT, **maps}
            self._run.replace(ROUTING_MAPS, json.dumps(content) + "\n")
        self._run.append(EVALUATIONS, {"step": step, **self._counts(totals), **means})
        known = {f"held_out/{name}": x for name, x in means.items() if x is not None}
        if known:
            self._log_scalars(step, known)

    def finish(self) -> None:
        """Close the loggers, with the final record."""
        run = self._run
        if run is not None:
            self._tell(lambda logger: logger.end(run.record))

    def _counts(self, totals: RunTotals) -> Row:
        """Return how much has been trained on."""
        return {
            "tokens": totals.tokens,
            "positions": totals.step * self._trainer.experiment.train.positions_per_step,
            "training_flops": totals.training_flops,
        }

    def _new_interval(self) -> Interval:
        return Interval(first_stall_s=self._trainer.loader.stall_seconds)

    def _row(self, totals: RunTotals, result: StepResult) -> Row:
        interval = self._interval
        stall_s = self._longest_stall_s()
        return {
            "step": totals.step,
            **self._counts(totals),
            "stream_hash": totals.stream_hash,
            "loss": finite(result.loss),
            **result.extras,
            **pop_mean_aux_losses(self._trainer),
            "grad_norm": finite(result.grad_norm),
            "learning_rate": result.learning_rate,
            "step_time_s": interval.seconds / interval.steps,
            "tokens_per_s": interval.tokens / interval.seconds,
            **self._conditions.speed(interval.flops, interval.seconds),
            "data_stall_s": stall_s,
            "data_stall_share": stall_s / interval.seconds,
            "allocated_s": ALLOCATION.seconds(),
        }

    def _longest_stall_s(self) -> float:
        """Return seconds of this interval that the rank which waited most waited for data."""
        stall_s = self._trainer.loader.stall_seconds - self._interval.first_stall_s
        longest = torch.tensor(stall_s)
        dist.all_reduce(longest, op=dist.ReduceOp.MAX)
        return float(longest)

    def _log_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        self._tell(lambda logger: logger.scalars(step, scalars))

    def _log_expert_load(self, step: int, routing: RoutingStatistics) -> None:
        def log(logger: Logger) -> None:
            for layer, counts in zip(routing.layers, routing.counts.tolist(), strict=True):
                logger.expert_load(step, layer, counts)

        self._tell(log)

    def _tell(self, call: Callable[[Logger], None]) -> None:
        """Call each logger; one that fails is left out from then on, and training goes on."""
        for logger in self._loggers:
            try:
                call(logger)
            except Exception as error:
                self._loggers = tuple(other for other in self._loggers if other is not logger)
                name = type(logger).__name__
                print(f"moe: {name} ends here: {error}; the run goes on", file=sys.stderr)


def _scalars(row: Row, routing: RoutingStatistics) -> dict[str, float]:
    """Return a row's numbers and the measures of routing, by the names that loggers show."""
    numbers = {k: v for k, v in row.items() if isinstance(v, int | float) and k != "step"}
    scalars = {f"train/{name}": float(value) for name, value in numbers.items()}
    measures: dict[str, Any] = routing.as_json() if routing.layers else {}
    for name, values in measures.items():
        if name != "layers":
            by_layer = zip(routing.layers, values, strict=True)
            scalars |= {f"routing/{name}_layer_{layer}": value for layer, value in by_layer}
    return scalars
