"""Programs run as processes, several at a time, and stopped together by a signal."""

import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from moe.training.stop_signals import stop_requests

POLL_S = 0.1


@dataclass(frozen=True)
class Task:
    """One program to run."""

    name: str
    command: tuple[str, ...]
    log: Path
    """Takes what it writes."""


def run_tasks(
    tasks: Iterable[Task],
    jobs: int,
    environment: Mapping[str, str],
    ended: Callable[[Task, int], None],
) -> None:
    """Run programs, at most `jobs` at a time, until all ended or a signal stopped them.

    Each is a session of its own: Ctrl-C reaches this process alone, which asks the others to stop
    (SIGTERM), starts no more, and waits for them.

    Args:
        tasks: What to run, in this order.
        jobs: Most at a time.
        environment: Of the programs.
        ended: Called with each task that ended, and its exit code (negative: the signal).
    """
    waiting, running = deque(tasks), dict[str, tuple[Task, subprocess.Popen[bytes]]]()
    stopped = False
    with stop_requests() as is_asked_to_stop:
        try:
            while running or (waiting and not stopped):
                while waiting and len(running) < jobs and not stopped and not is_asked_to_stop():
                    task = waiting.popleft()
                    running[task.name] = task, _start(task, environment)
                if is_asked_to_stop() and not stopped:
                    stopped = True
                    _signal_all(process for _, process in running.values())
                for name, (task, process) in list(running.items()):
                    code = process.poll()
                    if code is not None:
                        del running[name]
                        ended(task, code)
                time.sleep(POLL_S)
        finally:
            _signal_all(process for _, process in running.values())
            for _, process in running.values():
                process.wait()


def _start(task: Task, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    with task.log.open("wb") as log:
        return subprocess.Popen(
            task.command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )


def _signal_all(processes: Iterable[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        process.send_signal(signal.SIGTERM)
