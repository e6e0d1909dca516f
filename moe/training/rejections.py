"""Steps whose update the guard rejected: a row, a dump that replays them, and maybe the end."""

from moe.errors import GuardError
from moe.runs.files import REJECTED
from moe.runs.json_lines import Row, finite
from moe.training.optimization.guards import StepRejection
from moe.training.saver import CheckpointSaver
from moe.training.step import StepResult


def keep_rejected_step(
    saver: CheckpointSaver, index: int, result: StepResult, rejection: StepRejection
) -> None:
    """Record a step (from 0) whose update was not made, and dump the state from before it.

    Raises:
        GuardError: The run is to end.
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
    saver.dump(step, row)
    if saver.run is not None:
        saver.run.append(REJECTED, {"step": step, **row})
    if rejection.action == "stop":
        saver.wait(may_fail=True)
        raise GuardError(
            f"step {step} (samples {first} to {end - 1}): {rejection.reason}; look into it with"
            f" --replay {step}, or go on with --resume and"
            ' --set train.on_nonfinite="skip" (or on_spike)'
        )
