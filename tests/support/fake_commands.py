"""Cluster commands that give prepared answers and keep what they were asked."""

import os
import stat
from pathlib import Path

import pytest

SCRIPT = """#!/bin/bash
folder={folder} name={name}
call=$(ls "$folder" | grep -c "^$name\\\\.[0-9]*\\\\.args$")
printf '%s\\\\0' "$@" >"$folder/$name.$call.args"
env -0 >"$folder/$name.$call.env"
while [[ $call -gt 0 && ! -e $folder/$name.$call.out ]]; do call=$((call - 1)); done
cat "$folder/$name.$call.err" >&2
cat "$folder/$name.$call.out"
exit "$(<"$folder/$name.$call.code")"
"""
PROGRAMS = ("sbatch", "squeue", "sacct", "scontrol", "scancel")


class FakeCommands:
    """Commands on PATH; each gives its answers in order, then the last one again."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder / "answers"
        self.folder.mkdir(parents=True)
        bin_dir = folder / "bin"
        bin_dir.mkdir()
        for name in PROGRAMS:
            path = bin_dir / name
            path.write_text(SCRIPT.replace("\\\\", "\\").format(folder=self.folder, name=name))
            path.chmod(path.stat().st_mode | stat.S_IEXEC)
        monkeypatch.setenv("PATH", f"{bin_dir}:{os.environ['PATH']}")
        self._prepared = dict.fromkeys(PROGRAMS, 0)
        for name in PROGRAMS:
            self._write(name, 0, "", "", 0)

    def answer(self, name: str, stdout: str = "", stderr: str = "", code: int = 0) -> None:
        """Prepare the next answer of a command."""
        self._write(name, self._prepared[name], stdout, stderr, code)
        self._prepared[name] += 1

    def calls(self, name: str) -> list[list[str]]:
        """Return the arguments of each call."""
        count = len(list(self.folder.glob(f"{name}.*.args")))
        files = [self.folder / f"{name}.{number}.args" for number in range(count)]
        return [file.read_text().split("\0")[:-1] for file in files]

    def environment(self, name: str) -> dict[str, str]:
        """Return the environment of the first call."""
        text = (self.folder / f"{name}.0.env").read_text()
        pairs = (entry.partition("=") for entry in text.split("\0") if entry)
        return {key: value for key, _, value in pairs}

    def _write(self, name: str, number: int, stdout: str, stderr: str, code: int) -> None:
        for end, text in (("out", stdout), ("err", stderr), ("code", str(code))):
            (self.folder / f"{name}.{number}.{end}").write_text(text)
