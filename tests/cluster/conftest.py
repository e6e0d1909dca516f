"""One cluster for all tests, and a desk to submit from; where SLURM is missing they skip."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from desk import Desk
from real_cluster import PACKAGES, Cluster, missing_programs

REQUIRED = "slurm" in os.environ.get("MOESCALE_REQUIRE", "").split(",")


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A running SLURM of four nodes."""
    reason = None
    if missing := missing_programs():
        reason = f"{', '.join(missing)} not found: apt-get install {PACKAGES}"
    elif os.geteuid() != 0:
        reason = "SLURM's daemons run jobs as their users: the tests must be root"
    if reason is not None:
        (pytest.fail if REQUIRED else pytest.skip)(f"real SLURM: {reason}")
    # Not in pytest's own folder: sockets want short paths, munge wants readable ones.
    folder = Path(tempfile.mkdtemp(prefix="moescale-slurm-", dir="/tmp"))
    folder.chmod(0o755)
    cluster = Cluster(folder)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def desk(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Desk:
    """A user's folder with a token store, on the login node."""
    return Desk(tmp_path_factory.mktemp("desk with 'spaces' & $x"), cluster)
