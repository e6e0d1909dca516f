"""The claim of a run's directory: one rank makes it, and every rank learns how it went."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch.distributed as dist

from moe.checkpoint.directory import checkpoint_to_resume, set_aside_after
from moe.config.experiment import Experiment
from moe.errors import ConfigError, StorageError
from moe.runs.directory import RunDirectory

if TYPE_CHECKING:
    from parallel.engine.start import Engine


def claim(
    run_dir: Path, experiment: Experiment, engine: "Engine", resume: bool, from_step: int | None
) -> tuple[RunDirectory | None, Path | None]:
    """Claim the directory on rank 0 and find the checkpoint; a refusal there ends every rank.

    Raises:
        ConfigError: It is in use or holds another run, or the checkpoint is damaged.
        StorageError: It cannot be read or written.
    """
    run = None
    told: list[Any] = [None, None]
    if engine.is_main:
        try:
            run = RunDirectory(run_dir, experiment, resume=resume or from_step is not None)
            told[1] = checkpoint_to_resume(run.checkpoints, from_step)
            if from_step is not None:
                set_aside_after(run.checkpoints, from_step)
        except (ConfigError, OSError) as error:
            told[0] = _refusal(run_dir, error)
            if run is not None:
                run.release()
    if engine.world_size > 1:
        dist.broadcast_object_list(told)
    if told[0] is not None:
        raise told[0]
    return run, told[1]


def _refusal(run_dir: Path, error: ConfigError | OSError) -> Exception:
    if isinstance(error, ConfigError):
        return ConfigError(str(error))
    return StorageError(
        f"{error.filename or run_dir}: {error.strerror or error}: make room or make it"
        " writable, or choose another with --run-dir"
    )
