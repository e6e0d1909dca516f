"""The callbacks of one rank, called together and in order."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from moe.errors import ConfigError
from moe.runs.callbacks import Callback, Phase, RankContext
from parallel.engine.collectives import gather_objects
from parallel.engine.start import Engine


def rank_context(engine: Engine, run_dir: Path) -> RankContext:
    """Return what callbacks and meters know of a rank."""
    return RankContext(
        run_dir=run_dir,
        rank=engine.rank,
        local_rank=engine.local_rank,
        world_size=engine.world_size,
        hostname=engine.hostname,
        device="cuda" if engine.device.type == "cuda" else "cpu",
        gather=gather_objects,
    )


class CallbackList:
    """Callbacks that have been started; every method is a collective call."""

    def __init__(
        self,
        callbacks: Sequence[Callback],
        context: RankContext,
        states: Sequence[Mapping[str, Any] | None] | None,
    ) -> None:
        """Start the callbacks; `states` are those of the resumed checkpoint, if there is one."""
        self._callbacks = tuple(callbacks)
        states = states or [None] * len(self._callbacks)
        if len(states) != len(self._callbacks):
            raise ConfigError(
                f"the checkpoint has the states of {len(states)} meters, and this run has"
                f" {len(self._callbacks)}: restore the checkpoint, or resume as the run was started"
            )
        for callback, state in zip(self._callbacks, states, strict=True):
            callback.start(context, state)

    def enter(self, phase: Phase) -> None:
        """Tell every callback that another phase begins."""
        for callback in self._callbacks:
            callback.phase(phase)

    def columns(self, step: int, tokens: int) -> dict[str, float | None]:
        """Return all callbacks' columns for the metrics row of a step."""
        columns: dict[str, float | None] = {}
        for callback in self._callbacks:
            columns |= callback.step(step, tokens)
        return columns

    def states(self) -> list[Mapping[str, Any]]:
        """Return every callback's state, for a checkpoint."""
        return [callback.state() for callback in self._callbacks]

    def finish(self) -> dict[str, Any]:
        """End all callbacks; returns their sections of the record."""
        sections: dict[str, Any] = {}
        for callback in self._callbacks:
            sections |= callback.finish()
        return sections
