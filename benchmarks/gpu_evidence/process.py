"""One command as a process group of its own, with a time limit and a reason where it fails."""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import IO

from moe.runs.source_state import CHECKOUT

GRACE_S = 10.0
"""What a process that is told to end gets before it is killed."""
MAX_REASON = 300
LAST_LINES = 15


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a process ended."""

    reason: str | None
    """Why it failed, in one line; None: it did not."""
    out: str
    wall_s: float
    last_lines: str = ""
    """Of what it printed."""


def run_process(
    words: Sequence[str], timeout_s: float, environment: Mapping[str, str] | None = None
) -> Ended:
    """Run this Python with `words` in the checkout, and end all it started with it."""
    begin = time.monotonic()
    path = os.pathsep.join(filter(None, (str(CHECKOUT), os.environ.get("PYTHONPATH"))))
    # Files, not pipes: whatever still holds a pipe would be waited for.
    with tempfile.TemporaryFile() as out_file, tempfile.TemporaryFile() as err_file:
        process = subprocess.Popen(
            [sys.executable, *words],
            cwd=CHECKOUT,
            env={**os.environ, **(environment or {}), "PYTHONPATH": path},
            stdin=subprocess.DEVNULL,
            stdout=out_file,
            stderr=err_file,
            start_new_session=True,
        )
        try:
            returncode: int | None = process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            returncode = None
        finally:  # also after an interrupt, or a signal to end
            end_group(process)
        out, err = (_text(file) for file in (out_file, err_file))
    if returncode is None:
        reason: str | None = f"took longer than {timeout_s:g} s"
    else:
        reason = failure(returncode, out, err) if returncode else None
    lines = [*out.splitlines(), *err.splitlines()]
    return Ended(
        reason=reason,
        out=out,
        wall_s=time.monotonic() - begin,
        last_lines="\n".join(lines[-LAST_LINES:]),
    )


def failure(returncode: int, out: str, err: str) -> str:
    """Return the one line that says why a command failed."""
    if returncode < 0:
        return f"ended by {signal.Signals(-returncode).name}"
    tests = [line for line in out.splitlines() if re.match(r"(FAILED|ERROR) ", line)]
    said = tests[:1] or [line for line in (err or out).splitlines() if line.strip()][-1:]
    line = said[0].removeprefix("moe: ").strip() if said else "it said nothing"
    return f"{line[:MAX_REASON]} (exit code {returncode})"


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")


def end_group(process: subprocess.Popen[bytes]) -> None:
    """Tell a process and all it started to end; kill what does not, or is left."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(GRACE_S)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue
