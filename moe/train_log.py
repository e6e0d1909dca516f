"""What a run writes down as it goes: metrics rows, expert load, TensorBoard; a row an interval."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from moe.goodput import process_age_s
from moe.ledger import Ledger
from moe.observe import Observer
from moe.run import RunDirectory
from moe.train_step import StepResult, Trainer


class StepLog:
    """Adds up steps between rows; every rank has one, rank 0 writes."""

    def __init__(
        self,
        run: RunDirectory | None,
        trainer: Trainer,
        observers: Sequence[Observer],
        ledger: Ledger,
        peak: Mapping[str, Any],
    ) -> None:
        self.run, self.trainer, self.observers = run, trainer, observers
        self.ledger, self.peak = ledger, peak
        self.writer: Any = None

    def start(self, run_dir: Path, step: int) -> None:
        """Begin to write after `step`."""
        if self.run is not None:
            from torch.utils.tensorboard import SummaryWriter

            self.writer = SummaryWriter(run_dir / "events", purge_step=step + 1)
        self._restart()

    def add(self, result: StepResult, elapsed_s: float) -> None:
        """Count a step."""
        self.interval_s += elapsed_s
        self.interval_tokens += result.tokens
        self.interval_steps += 1

    def write(self, step: int, tokens: int, result: StepResult) -> dict[str, Any]:
        """Write a row for the steps since the last one; returns it. A collective call."""
        rate = self.interval_tokens / self.interval_s
        stall_s = self._longest_stall_s()
        flops_per_s = rate * self.ledger.training_flops_per_token / self.trainer.engine.world_size
        row: dict[str, Any] = {
            "step": step,
            "tokens": tokens,
            "loss": result.loss,
            **self.trainer.router_losses(self.interval_steps),
            "grad_norm": result.grad_norm,
            "learning_rate": result.learning_rate,
            "step_time_s": self.interval_s / self.interval_steps,
            "tokens_per_s": rate,
            "flops_per_s": flops_per_s,
            "mfu": flops_per_s / self.peak["flops_per_s"],
            "data_stall_s": stall_s,
            "data_stall_share": stall_s / self.interval_s,
            "allocated_s": process_age_s(),
        }
        for observer in self.observers:
            row |= observer.step(step, tokens)
        load = self.trainer.expert_load.take()
        if self.run is not None:
            self.run.append("metrics", row)
            if load.numel():
                layers = self.trainer.expert_load.layers
                self.run.append(
                    "expert_load", {"step": step, "layers": layers, "counts": load.tolist()}
                )
            self._draw(step, row, load)
        self._restart()
        return row

    def evaluated(self, step: int, tokens: int, loss: float | None) -> None:
        """Write the held-out loss."""
        if self.run is not None:
            self.run.append("evaluations", {"step": step, "tokens": tokens, "loss": loss})
            if loss is not None:
                self.writer.add_scalar("held_out/loss", loss, step)

    def close(self) -> None:
        """Complete TensorBoard's file."""
        if self.writer is not None:
            self.writer.close()

    def _longest_stall_s(self) -> float:
        """Return seconds of this interval that the rank which waited most waited for data."""
        stall = torch.tensor(self.trainer.loader.stall_seconds - self.interval_stall_s)
        dist.all_reduce(stall, op=dist.ReduceOp.MAX)
        return float(stall)

    def _restart(self) -> None:
        self.interval_s = 0.0
        self.interval_tokens = self.interval_steps = 0
        self.interval_stall_s = self.trainer.loader.stall_seconds

    def _draw(self, step: int, row: Mapping[str, Any], load: torch.Tensor) -> None:
        for name, value in row.items():
            if isinstance(value, int | float) and name != "step":
                self.writer.add_scalar(f"train/{name}", value, step)
        for layer, counts in zip(self.trainer.expert_load.layers, load.float(), strict=True):
            busiest = float(counts.max() / counts.mean())
            self.writer.add_scalar(f"expert_load/max_over_mean_layer_{layer}", busiest, step)
            self.writer.add_histogram(f"expert_load/layer_{layer}", counts, step)
