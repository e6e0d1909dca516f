"""A real SLURM of our own on one machine: munge, accounting, one controller, four nodes.

Every daemon has its configuration, ports, sockets, keys, spool and logs in one temporary folder,
so nothing of the machine's own SLURM, if it has one, is touched. Daemons run as root without
systemd, and end with `stop`.
"""

import os
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

from tests.support.needs import SEARCH_PATH

NODES = ("n1", "n2", "n3", "n4")
WAIT_S = 900.0

SLURM_CONF = """\
ClusterName=moescale
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ctld}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
# A requeued job waits as long as credentials live: 120 s by default.
AuthInfo=socket={folder}/munge.socket,cred_expire=10
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
{more}
SlurmdParameters=config_overrides
SlurmdTimeout=30
MessageTimeout=60
BatchStartTimeout=120
KillWait=60
ReturnToService=2
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=batch_sched_delay=0,sched_min_interval=0,bf_interval=1
MaxArraySize=1201
FirstJobId={first_job}
EnforcePartLimits=ALL
MpiDefault=none
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
{accounting}
NodeName=n[1-4] NodeHostname={host} NodeAddr=127.0.0.1 Port=[{nodes}] CPUs=8 RealMemory=1000
PartitionName=main Nodes=n[1-4] Default=YES PriorityTier=1 MaxTime=60
PartitionName=urgent Nodes=n[1-4] PriorityTier=10 PreemptMode=OFF
PartitionName=graceful Nodes=n[1-4] PriorityTier=1 GraceTime=60
"""
ACCOUNTING = """\
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={dbd}
AccountingStoragePass={folder}/munge.socket
"""
DBD_CONF = """\
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
DbdHost={host}
DbdAddr=127.0.0.1
DbdPort={dbd}
SlurmUser=root
LogFile={folder}/slurmdbd.log
PidFile={folder}/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={database}
StorageUser=root
StorageLoc=slurm
"""


class Cluster:
    """Daemons in a folder, and the environment in which the cluster's commands find them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])
        first = _free_ports(11_000 + 1000 * worker, 7)
        self._names = {
            "folder": str(folder),
            "host": socket.gethostname().partition(".")[0],
            "ctld": first[0],
            "dbd": first[1],
            "database": first[2],
            "nodes": ",".join(map(str, first[3:])),
            # A job's port follows from its number: clusters side by side must differ.
            "first_job": 1 + 700 * worker,
        }
        self.env = {
            **os.environ,
            "PATH": SEARCH_PATH,
            "SLURM_CONF": str(folder / "slurm.conf"),
        }

    # --- daemons

    def start(self) -> None:
        """Start every daemon and wait until each answers."""
        for name in ("state", "database"):
            (self.folder / name).mkdir()
        self.configure()
        self._start_munge()
        self._start_database()
        self._start("slurmdbd", "slurmdbd", "-D")
        self.wait_until(lambda: self._answers("sacctmgr", "list", "cluster"))
        self._start("slurmctld", "slurmctld", "-D", "-c")
        for name in NODES:
            self.start_node(name)
        self.wait_until(lambda: set(self.node_states().values()) == {"idle"})

    def configure(self, more: str = "") -> None:
        """Write the configuration files, `more` lines in slurm.conf."""
        names = {**self._names, "more": more}
        names["accounting"] = ACCOUNTING.format(**names)
        (self.folder / "slurm.conf").write_text(SLURM_CONF.format(**names))
        dbd = self.folder / "slurmdbd.conf"
        dbd.write_text(DBD_CONF.format(**names))
        dbd.chmod(0o600)
        names["accounting"] = ""
        (self.folder / "no-accounting.conf").write_text(SLURM_CONF.format(**names))

    def reconfigure(self, more: str = "") -> None:
        """Have other lines in slurm.conf while everything runs."""
        self.configure(more)
        self.run("scontrol", "reconfigure")

    def start_node(self, name: str) -> None:
        """Start the daemon of one node."""
        # Step daemons inherit the variable, so that they are known by it as ranks are.
        self._start(f"slurmd-{name}", "slurmd", "-D", "-N", name, SLURMD_NODENAME=name)

    @contextmanager
    def power_cut(self, name: str) -> Iterator[None]:
        """Kill a node's daemon and all that it runs, without a word; starts it again at the end."""
        daemon = self._running.pop(f"slurmd-{name}")
        # The daemon goes first: it would report the end of its steps.
        daemon.kill()
        daemon.wait()
        for pid in self.processes_of(name):
            _kill(pid)
        try:
            yield
        finally:
            self.start_node(name)

    def stop(self) -> None:
        """End every daemon and whatever jobs left, the newest first."""
        subprocess.run(["scancel", "--me"], env=self.env, capture_output=True, check=False)
        for name in NODES:
            for pid in self.processes_of(name):
                _kill(pid)
        for daemon in reversed(self._running.values()):
            daemon.terminate()
            try:
                daemon.wait(20)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        self._running.clear()

    # --- what can be asked

    def run(self, *argv: str) -> str:
        """Run one of the cluster's commands; returns what it prints."""
        done = subprocess.run(argv, env=self.env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{argv}: {done.stdout}{done.stderr}"
        return done.stdout

    def node_states(self) -> dict[str, str]:
        """Return each node's state as sinfo writes it."""
        text = self.run("sinfo", "--Node", "--noheader", "--partition=main", "--format=%N %T")
        return dict(line.split() for line in text.splitlines())

    def processes_of(self, name: str) -> list[int]:
        """Return what runs on a node: its daemon, step daemons, ranks."""
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            try:
                env = (entry / "environ").read_bytes().split(b"\0")
            except OSError:
                continue
            mine = f"SLURM_CONF={self.env['SLURM_CONF']}".encode() in env
            if mine and f"SLURMD_NODENAME={name}".encode() in env:
                found.append(int(entry.name))
        return found

    def wait_until(
        self, condition: Callable[[], bool], why: Callable[[], str] = lambda: ""
    ) -> None:
        """Poll a condition; fails at once where a daemon has ended."""
        end = time.monotonic() + WAIT_S
        while not condition():
            ended = [name for name, daemon in self._running.items() if daemon.poll() is not None]
            assert not ended, f"{ended} ended\n{self.logs()}"
            assert time.monotonic() < end, why() or self.logs()
            time.sleep(0.1)

    def logs(self) -> str:
        """Return the ends of all daemons' logs."""
        paths = sorted(self.folder.glob("*.log")) + sorted(self.folder.glob("*.out"))
        return "\n".join(f"== {path.name}\n{path.read_text()[-3000:]}" for path in paths)

    # --- one daemon each

    def _start_munge(self) -> None:
        key = self.folder / "munge.key"
        key.touch(0o600)
        key.write_bytes(secrets.token_bytes(128))
        files = {"key-file": key.name, "socket": "munge.socket", "pid-file": "munge.pid",
                 "log-file": "munge.log", "seed-file": "munge.seed"}  # fmt: skip
        options = [f"--{option}={self.folder / name}" for option, name in files.items()]
        self._start("munged", "munged", "--foreground", "--force", *options)
        self.wait_until((self.folder / "munge.socket").exists)

    def _start_database(self) -> None:
        data = self.folder / "database"
        common = ["--no-defaults", f"--datadir={data}", "--user=root"]
        subprocess.run(
            ["mariadb-install-db", *common, "--auth-root-authentication-method=normal",
             "--skip-test-db"],
            env=self.env, capture_output=True, check=True,
        )  # fmt: skip
        self._start(
            "mariadbd", "mariadbd", *common,
            f"--socket={self.folder}/database.socket", f"--port={self._names['database']}",
            "--bind-address=127.0.0.1", f"--pid-file={self.folder}/database.pid",
            "--innodb-flush-log-at-trx-commit=0",
        )  # fmt: skip
        self.wait_until((self.folder / "database.socket").exists)

    def _start(self, name: str, *argv: str, **variables: str) -> None:
        """Start a daemon that ends with us, even if we are killed."""
        with (self.folder / f"{name}.out").open("ab") as out:
            self._running[name] = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *argv],
                env=self.env | variables, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                start_new_session=True,
            )  # fmt: skip

    def _answers(self, *argv: str) -> bool:
        done = subprocess.run(argv, env=self.env, capture_output=True, check=False)
        return done.returncode == 0


def _free_ports(first: int, count: int) -> list[int]:
    """Return free ports from `first` on, where the system gives none to whoever asks for any."""
    return list(islice(filter(_is_free, range(first, first + 1000)), count))


def _is_free(port: int) -> bool:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
