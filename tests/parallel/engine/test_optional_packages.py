"""Broken packages beside megatron-core: kernel set `torch` runs, `te` is refused in one line."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from parallel.engine.megatron_version import NEEDS_TRITON
from parallel.engine.optional_packages import OPTIONAL

pytestmark = pytest.mark.engine
FAULTS = {
    "library": "raise OSError('libbroken.so: cannot open shared object file')",
    "import": "raise ImportError('undefined symbol: broken')",
    "empty": "",
}
"""No shared library, one of another torch, a package that lacks what is imported from it."""
ENGINE = """
import moescale  # noqa: F401
from parallel.engine.imports import import_engine
import_engine()
import moe.training.loop
from parallel.engine.optional_packages import import_fault
print(import_fault("{package}"))
"""


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join((str(folder), os.getcwd()))
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, *words], env=environment, capture_output=True, text=True, check=False
    )


def install_broken(folder: Path, package: str, fault: str) -> None:
    (folder / package).mkdir()
    (folder / package / "__init__.py").write_text(FAULTS[fault])


@pytest.mark.parametrize("fault", FAULTS)
def test_engine_runs_beside_broken_packages(fault: str, tmp_path: Path) -> None:
    for package in OPTIONAL:
        if package != "triton" or not NEEDS_TRITON:
            install_broken(tmp_path, package, fault)
    done = run(tmp_path, "-c", ENGINE.format(package="transformer_engine"))
    assert (done.stderr, done.returncode) == ("", 0)
    said = {"library": "OSError: libbroken.so", "import": "ImportError: undefined symbol",
            "empty": "ModuleNotFoundError: No module named 'transformer_engine."}  # fmt: skip
    assert done.stdout.startswith(said[fault])


def test_a_package_that_megatron_core_needs_is_named(tmp_path: Path) -> None:
    install_broken(tmp_path, "triton", "library")
    done = run(tmp_path, "-c", ENGINE.format(package="triton"))
    said = (done.stdout + done.stderr).strip().splitlines()[-1]
    if NEEDS_TRITON:
        assert "cannot be imported without triton (OSError: libbroken.so" in said
    else:
        assert said.startswith("OSError: libbroken.so")


@pytest.mark.parametrize("command", ["train", "bench"])
def test_kernel_set_te_names_what_is_broken(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from moe.config.experiment import make_experiment
    from moe.errors import ConfigError
    from moe.training.startup import preflight
    from parallel.engine import optional_packages

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(preflight.util, "find_spec", lambda _: object())
    monkeypatch.setattr(optional_packages, "import_fault", lambda _: "OSError: libbroken.so")
    message = r'^precision.kernels = "te", but .*\(OSError: libbroken.so\): install .* or set'
    with pytest.raises(ConfigError, match=message) as refusal:
        if command == "train":
            values = {"steps": 1, "seq_len": 64, "global_batch_size": 2}
            preflight.check_before_start(
                make_experiment(
                    {"model": {"preset": "tiny"}, "train": values,
                     "data": {"store": "/nowhere"}, "precision": {"kernels": "te"}}
                ),
                1,
            )  # fmt: skip
        else:
            from benchmarks.bench.cases import BenchOptions
            from benchmarks.bench.session import bench_session

            options = BenchOptions(repeats=1, overrides=("precision.kernels=te",))
            with bench_session(options):
                pass
    assert refusal.value.exit_code == 2
