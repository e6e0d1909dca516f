"""What training writes into a run's record: a start, and the results at its end."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from moe.config.experiment import Experiment
from moe.runs.directory import RunDirectory
from moe.runs.files import EVALUATIONS
from moe.runs.goodput import ALLOCATION, Start, append_start, close_start, goodput
from moe.runs.json_lines import finite
from moe.runs.record import new_record, utc_now
from moe.training.held_out import missing_loss_reason
from moe.training.logs.totals import RunTotals
from moe.training.startup.conditions import RunConditions, conditions_record
from moe.training.trainer import Trainer


def open_start(
    run: RunDirectory, experiment: Experiment, totals: RunTotals, num_ranks: int
) -> list[Start]:
    """Drop rows that will be made again; return all starts, with one that follows `totals`."""
    last_row = run.last_metrics()
    run.drop_rows_after(totals.step)
    if totals.step == experiment.train.steps:
        run.drop_rows_after(totals.step - 1, [EVALUATIONS])
    start = {
        "started_at": utc_now(),
        "ranks": num_ranks,
        "threads": torch.get_num_threads(),
        "first_step": totals.step,
        "first_tokens": totals.tokens,
        "allocated_s": ALLOCATION.seconds(),
    }
    return append_start(run.record.get("starts", []), last_row, start)


def record_start(
    run: RunDirectory, trainer: Trainer, conditions: RunConditions, starts: Sequence[Start]
) -> None:
    """Record that a start trains now, and under which conditions."""
    is_new = "run_id" not in run.record
    values = conditions_record(trainer, conditions)
    if conditions.probe is not None and run.record.get("hardware") == values["hardware"]:
        conditions.probe.resume(run.record.get("peak") or {})
    run.update(
        {
            **(new_record(trainer.experiment) if is_new else {}),
            **values,
            "status": "running",
            "starts": starts,
        }
    )


def record_end(  # noqa: PLR0913 - what there is to record
    run: RunDirectory,
    trainer: Trainer,
    conditions: RunConditions,
    totals: RunTotals,
    *,
    status: str,
    final_loss: float | None,
    sections: Mapping[str, Any],
) -> None:
    """Record how a start ended: `finished` or `stopped`.

    Args:
        run: The run's directory.
        trainer: What trained.
        conditions: By which speed is judged.
        totals: How far the run came.
        status: How the start ended.
        final_loss: Held-out loss after the last step, nats per token; None if it was not measured.
        sections: Further sections, of callbacks.
    """
    positions = totals.step * trainer.experiment.train.positions_per_step
    starts = close_start(
        run.record["starts"],
        tokens=totals.tokens,
        allocated_s=ALLOCATION.seconds(),
        ended=status,
    )
    ALLOCATION.end()
    reason = missing_loss_reason(trainer) if status == "finished" else f"the run is {status}"
    run.update(
        {
            "status": status,
            "finished_at": utc_now(),
            "run_dir": str(run.path),
            "steps": totals.step,
            "rejected_steps": totals.rejected_steps,
            "tokens": totals.tokens,
            "positions": positions,
            "training_flops": totals.training_flops,
            "stream_hash": totals.stream_hash,
            "wall_time_s": totals.train_time_s,
            "tokens_per_s": totals.tokens / totals.train_time_s,
            **conditions.speed(totals.training_flops, totals.train_time_s),
            "peak": conditions.peak,
            "final_loss": final_loss,
            "final_loss_reason": reason if final_loss is None else None,
            "train_loss": finite(totals.train_loss),
            "starts": starts,
            "goodput": goodput(starts, totals.tokens, totals.train_time_s),
            **sections,
        }
    )
