"""What a run writes down as it goes: metrics rows, expert load, loggers; a row an interval."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from data.storage.atomic import write_text
from data.store.manifest import HELD_OUT
from moe.cost.ledger import Ledger
from moe.routing.statistics import RoutingStatistics
from moe.runs.callbacks import Callback, Logger
from moe.runs.directory import RunDirectory
from moe.runs.files import EVALUATIONS, EXPERT_LOAD, METRICS, ROUTING, ROUTING_MAPS
from moe.runs.goodput import process_age_s
from moe.training.tensorboard import TensorBoardLogger
from moe.training.trainer import StepResult, Trainer


def finite(value: float) -> float | None:
    """Return a number, or None where it is infinite or none: JSON has no word for that."""
    return value if math.isfinite(value) else None


class StepLog:
    """Adds up steps between rows; every rank has one, rank 0 writes."""

    def __init__(
        self,
        run: RunDirectory | None,
        trainer: Trainer,
        callbacks: Sequence[Callback],
        loggers: Sequence[Logger],
        ledger: Ledger,
        peak: Mapping[str, Any],
    ) -> None:
        self.run, self.trainer, self.callbacks = run, trainer, callbacks
        self.ledger, self.peak = ledger, peak
        self.positions_per_step = trainer.experiment.train.positions_per_step
        self.loggers: list[Logger] = [TensorBoardLogger(), *loggers]

    def start(self, run_dir: Path, step: int) -> None:
        """Begin to write after `step`."""
        if self.run is not None:
            for logger in self.loggers:
                logger.begin(run_dir, self.run.record, step)
        self._restart()

    def add(self, result: StepResult, elapsed_s: float) -> None:
        """Count a step."""
        self.interval_s += elapsed_s
        self.interval_tokens += result.tokens
        self.interval_steps += 1

    def write(self, step: int, tokens: int, stream_hash: str, result: StepResult) -> dict[str, Any]:
        """Write a row for the steps since the last one; returns it. A collective call."""
        rate = self.interval_tokens / self.interval_s
        stall_s = self._longest_stall_s()
        positions = self.interval_steps * self.positions_per_step
        flops = positions * self.ledger.training_flops_per_token
        flops_per_s = flops / self.interval_s / self.trainer.engine.world_size
        row: dict[str, Any] = {
            "step": step,
            "tokens": tokens,
            "positions": step * self.positions_per_step,
            "stream_hash": stream_hash,
            "loss": finite(result.loss),
            **result.extras,
            **self.trainer.router_losses(self.interval_steps),
            "grad_norm": finite(result.grad_norm),
            "learning_rate": result.learning_rate,
            "step_time_s": self.interval_s / self.interval_steps,
            "tokens_per_s": rate,
            "flops_per_s": flops_per_s,
            "mfu": flops_per_s / self.peak["flops_per_s"],
            "data_stall_s": stall_s,
            "data_stall_share": stall_s / self.interval_s,
            "allocated_s": process_age_s(),
        }
        for callback in self.callbacks:
            row |= callback.step(step, tokens)
        routing = self.trainer.routing.pop()
        if self.run is not None:
            self.run.append(METRICS, row)
            if routing.layers:
                counts = {"layers": routing.layers, "counts": routing.counts.tolist()}
                self.run.append(EXPERT_LOAD, {"step": step, **counts})
                self.run.append(ROUTING, {"step": step, **routing.as_json()})
            self._show(step, row, routing)
        self._restart()
        return row

    def evaluated(self, step: int, tokens: int, found: Mapping[str, float | None]) -> None:
        """Write the held-out loss, the mode's further means, and the routing maps; collective."""
        maps = self.trainer.routing_maps.pop()
        if self.run is not None:
            if maps is not None and found["loss"] is not None:
                values = {"step": step, "split": HELD_OUT, **maps}
                write_text(self.run.path / ROUTING_MAPS, json.dumps(values) + "\n")
            counts = {"tokens": tokens, "positions": step * self.positions_per_step}
            self.run.append(EVALUATIONS, {"step": step, **counts, **found})
            known = {f"held_out/{name}": x for name, x in found.items() if x is not None}
            for logger in self.loggers if known else ():
                logger.scalars(step, known)

    def close(self) -> None:
        """Complete what loggers show, by the final record."""
        if self.run is not None:
            for logger in self.loggers:
                logger.end(self.run.record)

    def _longest_stall_s(self) -> float:
        """Return seconds of this interval that the rank which waited most waited for data."""
        stall = torch.tensor(self.trainer.loader.stall_seconds - self.interval_stall_s)
        dist.all_reduce(stall, op=dist.ReduceOp.MAX)
        return float(stall)

    def _restart(self) -> None:
        self.interval_s = 0.0
        self.interval_tokens = self.interval_steps = 0
        self.interval_stall_s = self.trainer.loader.stall_seconds

    def _show(self, step: int, row: Mapping[str, Any], routing: RoutingStatistics) -> None:
        numbers = {k: v for k, v in row.items() if isinstance(v, int | float) and k != "step"}
        scalars = {f"train/{name}": float(value) for name, value in numbers.items()}
        measures = routing.as_json() if routing.layers else {}
        for name, values in measures.items():
            if name != "layers":
                by_layer = zip(routing.layers, values, strict=True)
                scalars |= {f"routing/{name}_layer_{layer}": value for layer, value in by_layer}
        for logger in self.loggers:
            logger.scalars(step, scalars)
            for layer, counts in zip(routing.layers, routing.counts.tolist(), strict=True):
                logger.expert_load(step, layer, counts)
