"""One cluster for all tests, and a user to submit from; where SLURM is missing they skip."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cluster_user import ClusterUser
from tests.support.needs import need
from tests.support.real_cluster import Cluster


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A running SLURM of four nodes."""
    need("slurm", "root")  # its daemons run jobs as their users
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
def user(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> ClusterUser:
    """A user's folder with a token store, on the login node."""
    return ClusterUser(tmp_path_factory.mktemp("user with 'spaces' & $x"), cluster)
