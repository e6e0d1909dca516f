"""What some tests need of the machine. A test that lacks it is skipped, and says what to install;
where `MOESCALE_REQUIRE` names it (as CI does) the test fails instead.
"""

import os
import shutil
from collections.abc import Iterable
from importlib.util import find_spec
from typing import NoReturn

import pytest

from tests.support.transformer_engine import locate

SEARCH_PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"
PROGRAMS = {
    "chromium": ("chromium", "chromedriver"),
    "shellcheck": ("shellcheck",),
    "slurm": (
        "munged",
        "slurmctld",
        "slurmd",
        "slurmdbd",
        "mariadbd",
        "mariadb-install-db",
        "sbatch",
    ),
}
PACKAGES = {
    "chromium": "chromium chromium-driver",
    "shellcheck": "shellcheck",
    "slurm": "munge slurm-wlm slurmdbd mariadb-server",
}
MODULES = {
    "dali": ("nvidia.dali",),
    "eval": ("lm_eval",),
    "hub": ("transformers",),
    "loggers": ("wandb", "mlflow", "sqlalchemy"),
}
EXTRAS = {"loggers": "wandb,mlflow"}
REQUIRED = frozenset(filter(None, os.environ.get("MOESCALE_REQUIRE", "").split(",")))


def need(*names: str) -> None:
    """Skip the running test, or fail it, where one of `names` is not on this machine."""
    for name in names:
        reason = _lacks(name)
        if reason is not None:
            lack(name, reason)


def lack(name: str, reason: str) -> NoReturn:
    """Skip the running test, or fail it, for a lack found on the way."""
    (pytest.fail if name in REQUIRED else pytest.skip)(f"needs {name}: {reason}")


def _lacks(name: str) -> str | None:
    if name == "root":
        return "run the tests as root" if os.geteuid() else None
    if name == "transformer_engine":
        return locate.missing()
    if name in PROGRAMS:
        found = all(shutil.which(program, path=SEARCH_PATH) for program in PROGRAMS[name])
        return None if found else f"apt-get install {PACKAGES[name]}"
    extras = EXTRAS.get(name, name)
    return None if _importable(MODULES[name]) else f"pip install 'moescale[{extras}]'"


def _importable(modules: Iterable[str]) -> bool:
    try:
        return all(find_spec(module) for module in modules)
    except ModuleNotFoundError:  # the package around it
        return False
