"""Puts a layout into an experiment file; what it does not decide stays byte for byte."""

import re
import shutil
from pathlib import Path
from typing import Any

import tomli_w

from benchmarks.errors import BenchmarkError
from data.storage.atomic import atomic_path
from moe.config.experiment import load_experiment
from moe.config.toml_file import read_toml
from parallel.layout.layout import Layout
from parallel.planner.workload import Workload

_HEADER = re.compile(r"^\s*\[")


def write_layout(path: Path, work: Workload) -> None:
    """Replace an experiment's `[parallel]` section and its micro-batch by those of a job.

    The file is replaced in one step, once the experiment's own loader has read the new one.

    Raises:
        BenchmarkError: The section is written in a way that cannot be replaced, or the file cannot
            be written.
        InputError: The new experiment breaks a rule.
    """
    try:
        path = path.resolve(strict=True)
        with path.open(encoding="utf-8", newline="") as file:
            text = file.read()
        values = read_toml(path)
        section = {**_decided(work.layout)}
        new = _with_section(text, "parallel", section)
        new = _with_micro_batch(new, values, work.batch.micro_batch_size)
        expected = {**values, "parallel": section}
        size = work.batch.micro_batch_size
        expected["train"] = {**values["train"], "micro_batch_size": size}
        if "micro_batch_size" not in values["train"] and size == 1:
            del expected["train"]["micro_batch_size"]
        with atomic_path(path) as temporary:
            temporary.write_text(new, encoding="utf-8", newline="")
            shutil.copymode(path, temporary)
            _check(path, temporary, expected)
    except OSError as error:
        raise BenchmarkError(f"{error.filename or path}: {error.strerror or error}") from None


def _check(path: Path, temporary: Path, expected: dict[str, Any]) -> None:
    """Read the new file as the experiment's loader does, and compare it with what it should say."""
    try:
        says = read_toml(temporary)
    except ValueError:
        says = {}
    if says != expected:
        raise BenchmarkError(
            f"{path}: its [parallel] or [train] is not a plain section of its own: write it so, or"
            " copy the layout by hand"
        )
    load_experiment(temporary)


def _decided(layout: Layout) -> dict[str, Any]:
    """Return the section's keys that differ from defaults; derived ones are left out."""
    values = layout.model_dump(mode="json", exclude_defaults=True)
    if layout.sp == (layout.tp > 1):
        values.pop("sp", None)
    if layout.expert_tp == 1:
        values.pop("etp", None)
    if layout.recompute != "selective":
        values.pop("recompute_modules", None)
    if layout.dispatcher != "flex":
        values.pop("flex_backend", None)
    return values


def _with_section(text: str, name: str, values: dict[str, Any]) -> str:
    """Return a TOML text with one section replaced, or added at its end."""
    end = "\r\n" if "\r\n" in text else "\n"
    body = tomli_w.dumps(values).replace("\n", end)
    lines = text.splitlines(keepends=True)
    found = _section(lines, name)
    if found is None:
        gap = "" if not text else end if text.endswith("\n") else 2 * end
        return f"{text}{gap}[{name}]{end}{body}"
    first, last = found
    header = lines[first].rstrip("\r\n") + end
    return "".join([*lines[:first], header, body, *lines[last:]])


def _section(lines: list[str], name: str) -> tuple[int, int] | None:
    """Return a section's first line and the one after its last; what leads to the next is not it.

    Blank lines and comments before the next header belong to that.
    """
    header = re.compile(rf"^\s*\[\s*{name}\s*\]\s*(#.*)?$")
    first = next((i for i, line in enumerate(lines) if header.match(line.rstrip("\r\n"))), None)
    if first is None:
        return None
    last = next((i for i in range(first + 1, len(lines)) if _HEADER.match(lines[i])), len(lines))
    while last > first + 1 and (not lines[last - 1].strip() or lines[last - 1].lstrip()[0] == "#"):
        last -= 1
    return first, last


def _with_micro_batch(text: str, values: dict[str, Any], size: int) -> str:
    """Return a TOML text with `train.micro_batch_size` set, its line added where there is none."""
    if values["train"].get("micro_batch_size", 1) == size:
        return text
    lines = text.splitlines(keepends=True)
    found = _section(lines, "train")
    if found is None:
        return text
    first, last = found
    key = re.compile(r"^(\s*micro_batch_size\s*=\s*)[0-9_]+")
    for number in range(first + 1, last):
        changed, count = key.subn(rf"\g<1>{size}", lines[number])
        if count:
            return "".join([*lines[:number], changed, *lines[number + 1 :]])
    end = "\r\n" if lines[first].endswith("\r\n") else "\n"
    return "".join([*lines[: first + 1], f"micro_batch_size = {size}{end}", *lines[first + 1 :]])
