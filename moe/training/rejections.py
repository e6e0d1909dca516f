"""Steps whose update the guard rejected: a row, a dump that replays them, and maybe the end."""

import sys
from pathlib import Path

from moe.errors import GuardError, StorageError
from moe.runs.files import REJECTED
from moe.runs.json_lines import Row, finite
from moe.training.logs.totals import RunTotals
from moe.training.optimization.guards import StepRejection
from moe.training.saver import CheckpointSaver
from moe.training.step import StepResult


def keep_rejected_step(
    saver: CheckpointSaver, index: int, result: StepResult, rejection: StepRejection
) -> None:
    """Record a step (from 0) whose update was not made, and dump the state from before it.

    Raises:
        GuardError: The run is to end by it.
        StorageError: The dump cannot be written, and the run is to end by `train.on_failed_save`.
    """
    step, batch = index + 1, saver.trainer.experiment.train.global_batch_size
    first, end = index * batch, step * batch
    row: Row = {
        "fault": rejection.reason,
        "action": rejection.action,
        "samples": [first, end],
        "loss": finite(result.loss),
        "grad_norm": finite(result.grad_norm),
    }
    # First: a disk that refuses the dump may have room for a row.
    if saver.run is not None:
        saver.run.append(REJECTED, {"step": step, **row})
    refused = saver.dump(step, row)
    what = f"step {step} (samples {first} to {end - 1}): {rejection.reason}"
    if rejection.action == "stop":
        saver.wait(may_fail=True)
        look = f"look into it with --replay {step}, or" if refused is None else f"{refused}; then"
        raise GuardError(
            f'{what}; {look} go on with --resume and --set train.on_nonfinite="skip" (or on_spike)'
        )
    if refused is None:
        return
    if saver.trainer.experiment.train.on_failed_save == "stop":
        raise StorageError(f"{what}, and was skipped; {refused}, then continue with --resume")
    if saver.run is not None:
        print(f"moe: {what}; {refused}; training goes on", file=sys.stderr, flush=True)


def warn_of_rejected(totals: RunTotals, run_dir: Path) -> None:
    """Tell the user at a run's end of steps whose update was not made."""
    rejected = totals.rejected_steps
    if not rejected:
        return
    what = f"{rejected} of {totals.step} steps were rejected"
    if rejected == totals.step:
        what = f"the model has learned nothing: all {rejected} steps were rejected"
    print(f"moe: {what}; {run_dir / REJECTED} says why", file=sys.stderr, flush=True)
