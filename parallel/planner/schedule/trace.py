"""A simulated step as a trace that Chrome and Perfetto open.

The JSON array form of the Trace Event Format: complete events (`ph` "X"), times in microseconds;
one track for each stage. Passes that run side by side share a stretch of it.
"""

from typing import Any

from parallel.planner.schedule.timeline import StepTime

MICROSECONDS = 1e6
_COLORS = {"forward": "thread_state_running", "backward": "thread_state_runnable"}


def trace(step: StepTime) -> dict[str, Any]:
    """Return the document; write it with `json.dump` to a file that ends in `.json`."""
    events = [_name(stage) for stage in range(step.schedule.pp)]
    events += [
        _event(
            one.stage,
            f"{one.kind} {one.micro_batch}" + (f" chunk {one.chunk}" if one.chunk else ""),
            one.start_s,
            one.end_s,
            cname=_COLORS[one.kind],
            args={"kind": one.kind, "micro_batch": one.micro_batch, "chunk": one.chunk},
        )
        for one in step.passes()
    ]
    together = max(step.reduced)
    for stage, (computed, reduced) in enumerate(zip(step.computed, step.reduced, strict=True)):
        updated = together + step.optimizer[stage]
        gathered = updated + step.gather[stage]
        for name, start, end in (
            ("reduce gradients", computed, reduced),
            ("optimizer", together, updated),
            ("gather parameters", updated, gathered),
        ):
            if end > start:
                events.append(_event(stage, name, start, end))
    return {"traceEvents": events, "displayTimeUnit": "ms", "otherData": {"kind": "modelled"}}


def _name(stage: int) -> dict[str, Any]:
    return {
        "ph": "M", "pid": 0, "tid": stage, "name": "thread_name", "args": {"name": f"stage {stage}"}
    }  # fmt: skip


def _event(stage: int, name: str, start_s: float, end_s: float, **more: Any) -> dict[str, Any]:
    return {
        "ph": "X", "pid": 0, "tid": stage, "name": name,
        "ts": start_s * MICROSECONDS, "dur": (end_s - start_s) * MICROSECONDS, **more,
    }  # fmt: skip
