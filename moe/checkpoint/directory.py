"""A run's directory of checkpoints: which are complete, retained and read. Needs no engine."""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from data.storage.atomic import fsync, write_json, write_text
from data.storage.checksums import file_sha256
from data.storage.new_directory import discard
from moe.checkpoint.index import INDEX, read_object, verify_files, write_index
from moe.checkpoint.state_format import CheckpointState
from moe.config.experiment import validated
from moe.errors import ConfigError, StorageError
from moe.runs.files import CHECKPOINTS

STATE = "state.json"
LATEST = "latest"
TRIES = 3
"""Checkpoints that are tried, each removed by its run meanwhile, before that is an error."""
T = TypeVar("T")
_NAME = re.compile(r"step-[0-9]+")


def checkpoint_name(step: int) -> str:
    """Return the name of a step's checkpoint; names sort by step."""
    return f"step-{step:08d}"


def step_of(path: Path) -> int:
    """Return a checkpoint's step by its name."""
    return int(path.name.removeprefix("step-"))


def partial_path(root: Path, step: int) -> Path:
    """Return the path of a checkpoint while it is written; readers do not see it."""
    return root / f".{checkpoint_name(step)}.partial"


def tidy(root: Path) -> None:
    """Remove what killed writers left behind; only the run's one writer may, between saves."""
    for partial in root.glob(".step-*.partial"):
        discard(partial)
    for partial in root.glob(f".{LATEST}.*.partial"):
        partial.unlink(missing_ok=True)
    for old in root.glob(".step-*.old"):
        final = root / old.name.removeprefix(".").removesuffix(".old")
        if os.path.lexists(final):
            discard(old)
        else:
            old.rename(final)


def begin(root: Path, step: int) -> None:
    """Make the empty directory that ranks write into."""
    tidy(root)
    partial_path(root, step).mkdir(parents=True)


def complete(root: Path, step: int, state: Mapping[str, Any], index: dict[str, Any]) -> None:
    """Add state and index to the ranks' files, rename the directory, then point `latest` at it.

    An older checkpoint of the same step stays until the new one has its name.
    """
    partial, final = partial_path(root, step), root / checkpoint_name(step)
    write_json(partial / STATE, {"step": step, **state})
    files = index["files"] | {STATE: file_sha256(partial / STATE)}
    write_index(partial, index | {"files": files})
    old = root / f".{final.name}.old"
    if os.path.lexists(final):
        discard(old)
        final.rename(old)
    partial.rename(final)
    fsync(root)
    write_text(root / LATEST, final.name)
    discard(old)


def remove_old(root: Path, keep: int, keep_every: int | None) -> None:
    """Remove checkpoints but the newest `keep`, and multiples of `keep_every` steps."""
    for path in complete_checkpoints(root)[:-keep]:
        if keep_every is None or step_of(path) % keep_every:
            # Its name goes first: no reader finds half of it, or takes it up.
            with suppress(OSError):
                discard(path.rename(partial_path(root, step_of(path))))


def complete_checkpoints(root: Path) -> list[Path]:
    """Return a run's complete checkpoints, oldest first; copies under other names are not."""
    named = (path for path in root.glob("step-*") if _NAME.fullmatch(path.name))
    return sorted(path for path in named if (path / STATE).is_file())


def latest_checkpoint(root: Path) -> Path | None:
    """Return the newest complete checkpoint of a run, or None where there is none."""
    checkpoints = complete_checkpoints(root)
    return checkpoints[-1] if checkpoints else None


def find_checkpoint(path: Path, step: int | None = None) -> Path:
    """Return a run directory's newest checkpoint, or that of `step`, or `path` if it is one.

    Raises:
        ConfigError: There is none.
    """
    if step is None and (path / INDEX).is_file():
        return path
    root = path / CHECKPOINTS
    if step is None:
        newest = latest_checkpoint(root)
        if newest is None:
            raise ConfigError(f"{path}: no complete checkpoint: train the run, or resume it")
        return newest
    checkpoint = root / checkpoint_name(step)
    if not (checkpoint / INDEX).is_file():
        others = ", ".join(str(step_of(p)) for p in complete_checkpoints(root)) or "none"
        raise ConfigError(f"{path}: no checkpoint of step {step}: there are {others}")
    return checkpoint


def use_checkpoint(path: Path, step: int | None, use: Callable[[Path], T]) -> T:
    """Call `use` with a checkpoint; looks for another where the run removed it meanwhile."""
    for _ in range(TRIES - 1):
        checkpoint = find_checkpoint(path, step)
        try:
            return use(checkpoint)
        except (ConfigError, StorageError, OSError):
            if checkpoint.exists():
                raise
    return use(find_checkpoint(path, step))


def checkpoint_to_resume(root: Path, step: int | None = None) -> Path | None:
    """Return the newest checkpoint, or that of `step`, verified; None where there is none.

    Raises:
        ConfigError: It is damaged, or there is none of that step; says which others are complete.
    """
    tidy(root)
    checkpoint = latest_checkpoint(root)
    if step is not None:
        checkpoint = root / checkpoint_name(step)
        if not (checkpoint / STATE).is_file():
            others = ", ".join(str(step_of(path)) for path in complete_checkpoints(root)) or "none"
            raise ConfigError(f"{root}: no checkpoint of step {step}: there are {others}")
    if checkpoint is None:
        return None
    try:
        verify_files(checkpoint)
    except ConfigError as error:
        raise ConfigError(f"{error}; {_alternative(root, checkpoint)}") from None
    return checkpoint


def _alternative(root: Path, damaged: Path) -> str:
    """Return which checkpoint may be resumed instead, as a sentence."""
    for path in reversed(complete_checkpoints(root)):
        if path < damaged and _is_whole(path):
            return (
                f"the checkpoint of step {step_of(path)} is whole: resume from it with"
                f" --step {step_of(path)}"
            )
    return "no earlier checkpoint is whole: start a new run with --run-dir"


def _is_whole(path: Path) -> bool:
    try:
        verify_files(path)
    except ConfigError:
        return False
    return True


def set_aside_after(root: Path, step: int) -> None:
    """Rename checkpoints later than `step`, so that no resume uses them."""
    for path in complete_checkpoints(root):
        if step_of(path) > step:
            aside = root / f"set-aside-{path.name}"
            discard(aside)
            path.rename(aside)


def read_state(path: Path, needed: Sequence[str] = ()) -> dict[str, Any]:
    """Return the JSON values stored beside a checkpoint's tensors, checked.

    Raises:
        ConfigError: The file is missing or damaged, a value breaks a rule, or one of the keys
            `needed` is not there.
    """
    file = path / STATE
    values = read_object(file)
    state = validated(CheckpointState, values, str(file), by_hand=False).values()
    lacking = [key for key in needed if state.get(key) is None]
    if lacking:
        raise ConfigError(
            f"{file}: lacks {', '.join(lacking)}, so training cannot go on from it: to start"
            " another run from its weights, set train.init"
        )
    return state
