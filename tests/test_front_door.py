"""The front door: fast, light, guarded, and one line for a user's mistake."""

import errno
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

import moescale

NOT_FOR_ALL = ("megatron", "pandas", "scipy", "torch")
"""Packages of a second or more that no command without a model on hand loads."""
HEAVY = ("torch", "numpy", "megatron", "pyarrow", "pandas")


def run_python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=600
    )
    return done.stdout


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command below a group, with the words that name it."""
    for name, command in group.commands.items():
        yield (*path, name), command
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))


COMMANDS = dict(commands(typer.main.get_command(moescale.app)))


@pytest.mark.parametrize("action", ["", "moescale.app(['--help'], standalone_mode=False)"])
def test_front_door_loads_nothing_heavy(action: str) -> None:
    code = f"import sys, moescale\n{action}\nprint('LOADED', set(sys.modules) & set({HEAVY!r}))"
    assert run_python(code).splitlines()[-1] == "LOADED set()"


@pytest.mark.parametrize(
    ("words", "absent"),
    [
        (("cost", "tiny"), ("numpy", "pyarrow", *NOT_FOR_ALL)),
        (("presets", "--json"), ("numpy", "pyarrow", "rich", *NOT_FOR_ALL)),
        (("schema",), ("numpy", "pyarrow", "rich", *NOT_FOR_ALL)),
        (("plan", "tiny", "--gpus", "8", "--gpu", "h100"), ("numpy", "pyarrow", *NOT_FOR_ALL)),
        (("carbon", "--zones"), ("numpy", "pyarrow", *NOT_FOR_ALL)),
        (("predict", "chinchilla", "--flops", "1e21"), ("pyarrow", *NOT_FOR_ALL)),
        (("slurm", "--help"), ("numpy", "pyarrow", *NOT_FOR_ALL)),
        (("data", "build", "--help"), ("numpy", "pyarrow", *NOT_FOR_ALL)),
    ],
    ids=lambda value: value[0],
)
def test_a_command_loads_only_what_it_uses(words: tuple[str, ...], absent: tuple[str, ...]) -> None:
    code = (
        f"import sys, moescale\nmoescale.app({list(words)!r}, standalone_mode=False)"
        f"\nprint('\\nLOADED', sorted(set(sys.modules) & set({absent!r})))"
    )
    assert run_python(code).splitlines()[-1] == "LOADED []"


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_help_explains_every_command_and_option(words: tuple[str, ...]) -> None:
    command = COMMANDS[words]
    shown = CliRunner().invoke(moescale.app, [*words, "--help"])
    assert shown.exit_code == 0
    assert command.help
    assert command.help.splitlines()[0] in shown.output
    for parameter in command.params:
        text = getattr(parameter, "help", None)
        assert text, f"{parameter.name} is not explained"
        # Markup must not swallow what stands in brackets, such as [model] or [default: ...].
        for word in text.replace("`", "").split():
            assert word in shown.output, f"{word!r} of {parameter.name} is lost"


def test_completion_and_version_answer() -> None:
    shown = CliRunner().invoke(moescale.app, ["--version"])
    assert shown.output.startswith("moescale ")
    script = subprocess.run(
        [sys.executable, "-m", "moescale"],
        env={"_MOE_COMPLETE": "complete_bash", "COMP_WORDS": "moe ", "COMP_CWORD": "1", "PATH": ""},
        capture_output=True, text=True, check=False, timeout=600, cwd=moescale.HERE,
    )  # fmt: skip
    assert {"train", "demo", "cost"} <= set(script.stdout.split()), script.stderr


def test_guard_names_the_intruder(tmp_path: Path) -> None:
    with pytest.raises(ImportError, match=rf"instead of .*moe: set PYTHONPATH={tmp_path}"):
        moescale.guard_rooms(tmp_path)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (
            OSError(errno.EROFS, "Read-only file system", "runs/.lock"),
            "runs/.lock: Read-only file system",
        ),
        (OSError(errno.ENOSPC, "No space left on device"), "disk: No space left on device"),
    ],
)
def test_a_disk_that_refuses_is_one_line(
    error: OSError, line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse() -> None:
        raise error

    monkeypatch.setattr(moescale, "app", refuse)
    with pytest.raises(SystemExit) as ended:
        moescale.main()
    assert ended.value.code == 1
    assert capsys.readouterr().err == f"moe: {line}\n"


def test_another_error_is_shown_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise BlockingIOError(errno.EAGAIN, "a fault of ours")

    monkeypatch.setattr(moescale, "app", fail)
    with pytest.raises(BlockingIOError):
        moescale.main()
