"""Programs as processes: several at a time, and stopped together."""

import os
import signal
import sys
import threading
import time
from pathlib import Path

from benchmarks.sweeps.processes import Task, run_tasks


def tasks(folder: Path, program: str, count: int) -> list[Task]:
    command = (sys.executable, "-S", "-c", program)
    return [
        Task(str(i), (*command, str(i), str(folder)), folder / f"{i}.log") for i in range(count)
    ]


COUNTS_OTHERS = """
import os, sys, time
own = os.path.join(sys.argv[2], "running-" + sys.argv[1])
open(own, "w").close()
time.sleep(0.2)
print(sum(name.startswith("running-") for name in os.listdir(sys.argv[2])))
os.remove(own)
sys.exit(int(sys.argv[1]))
"""


def test_at_most_so_many_run_at_a_time_and_all_end(tmp_path: Path) -> None:
    ended: dict[str, int] = {}
    run_tasks(
        tasks(tmp_path, COUNTS_OTHERS, 5),
        2,
        os.environ,
        lambda one, code: ended.update({one.name: code}),
    )
    assert ended == {str(i): i for i in range(5)}
    together = [int((tmp_path / f"{i}.log").read_text()) for i in range(5)]
    assert max(together) <= 2


STOPS_IN_ORDER = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
open(sys.argv[2] + "/ready", "w").close()
time.sleep(60)
"""


def test_a_signal_stops_them_and_starts_no_more(tmp_path: Path) -> None:
    ended: dict[str, int] = {}

    def stop_when_ready() -> None:
        deadline = time.monotonic() + 60
        while not (tmp_path / "ready").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=stop_when_ready, daemon=True)
    thread.start()
    run_tasks(
        tasks(tmp_path, STOPS_IN_ORDER, 3),
        1,
        os.environ,
        lambda one, code: ended.update({one.name: code}),
    )
    thread.join()
    assert ended == {"0": 75}
