"""The only place that runs sbatch, squeue, sacct, scontrol and scancel.

Their text output is read, with fields of our own choosing: it is the same from SLURM 22 to 25,
which their JSON is not (`job_state` became a list in 23.11, numbers became objects).
"""

import os
import re
import subprocess
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from parallel.measurement.slurm_values import known_joules, known_number
from slurm.errors import JobError, SlurmError

TRANSIENT_ERRORS = (
    "unable to contact slurm controller",
    "socket timed out",
    "connection refused",
    "connection timed out",
    "zero bytes were transmitted",
    "temporarily unable to accept job",
    "transport endpoint is not connected",
    "controller in standby mode",
)
"""Answers (in lower case) of a controller that is down or busy: worth another try."""
DATABASE_ERRORS = ("slurmdbd", "slurm_persist_conn", "accounting database", "slurm database")
"""Parts of sacct's answers (in lower case) where its database is down."""
COMMAND_TIMEOUT_S = 120.0
"""Seconds for one command that changes something."""
PATIENCE_S = 45.0
"""Seconds for a question, all its tries together: who asks waits before the terminal."""
REMEDIES = {
    "invalid account": "set slurm.account to one that `sacctmgr show assoc user=$USER` lists",
    "invalid partition": "set slurm.partition to one that `sinfo` lists",
    "invalid qos": "set slurm.qos to one that `sacctmgr show assoc user=$USER` lists",
    "requested time limit is invalid": "lower slurm.time to the partition's limit (`sinfo`)",
    "node configuration is not available": "ask for less: slurm.nodes, gpus_per_node, memory,"
    " cpus_per_process, constraint",
    "more processors requested than permitted": "lower slurm.cpus_per_process",
    "submit limit": "the queue is full for you: wait, or submit fewer",
    "submitjoblimit": "the queue is full for you: wait, or submit fewer",
    "submitjobper": "the queue is full for you: wait, or submit fewer",
    "configuration source": "SLURM is not set up on this machine: run this on a login node",
    "operation is presently disabled": 'slurm.continue_by = "requeue" lets a job be requeued',
    "invalid job array": "more tasks than MaxArraySize: submit them in parts",
}
"""What mends a refusal, by a part of the answer in lower case; the first match counts."""
SECRET_NAME = re.compile(r"TOKEN|SECRET|PASSW|API_?KEY|CREDENTIAL", re.IGNORECASE)
JOB_VARIABLES = re.compile(
    r"(SLURMD?|SBATCH|SRUN|MASTER|TORCHELASTIC)_|((LOCAL_|GROUP_|ROLE_|NODE_)?(RANK|WORLD_SIZE)"
    r"|ROLE_NAME|(CUDA|ROCR|HIP)_VISIBLE_DEVICES|GPU_DEVICE_ORDINAL)$"
)
"""What SLURM and launchers tell processes of a job: where they stand, which GPUs are theirs."""
CLIENT_VARIABLES = frozenset({"SLURM_CONF", "SLURM_JWT", "SLURM_CLUSTERS"})
USER_FORMAT_VARIABLES = re.compile(
    r"(SQUEUE|SACCT|SCONTROL|SCANCEL)_|SLURM_TIME_FORMAT$|POSIXLY_CORRECT$"
)
"""Variables by which users change what the commands select and how they write it."""


@dataclass(frozen=True, kw_only=True)
class QueueEntry:
    """One job or array task as squeue shows it."""

    job: str
    """Id, `123` or `123_4`."""
    state: str
    """For example `RUNNING`."""
    reason: str
    """Why it waits, or `None`."""
    time_left_s: int | None
    """Seconds to its time limit; none where unlimited or not known."""
    start: str | None
    """When it started or is expected to, ISO 8601, the cluster's local time."""
    nodes: str
    """Node list, empty while it waits."""


@dataclass(frozen=True, kw_only=True)
class AccountingEntry:
    """One start of a job as sacct records it; a requeued job has several."""

    job: str
    """Id, `123` or `123_4`."""
    state: str
    """For example `COMPLETED`, `REQUEUED`, `CANCELLED`."""
    elapsed_s: int | None
    """Wall time, s; none where it is not known."""
    nodes: str
    """Node list."""
    energy_joules: float | None
    """Energy of its nodes while ranks ran, J; none where the cluster did not meter all of it."""
    has_steps: bool = False
    """Whether ranks ran: without any there is no energy to know of."""


class Client:
    """Runs the cluster's commands, with retries; answers become values or one-line errors."""

    def __init__(
        self,
        *,
        pauses_s: Sequence[float] = (2, 5, 10),
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pauses_s = pauses_s
        self._sleep = sleep
        self._clock = clock
        self._settings: str | None = None

    def submit(
        self,
        script: Path,
        *,
        options: Sequence[str] = (),
        known_jobs: Collection[str] = (),
        secrets: Iterable[str] = (),
    ) -> str:
        """Submit a script and return the job's id.

        A controller that stops answering may have taken the job all the same: the queue is
        searched for the script, `known_jobs` apart, before another try.

        Args:
            script: Absolute path of the batch script.
            options: Options that override the script's.
            known_jobs: Ids of the script's earlier submissions.
            secrets: Variables that must not reach the cluster's job environment.

        Raises:
            JobError: The cluster refuses the job.
            SlurmError: It does not answer.
        """
        argv = ["sbatch", "--parsable", *options, str(script)]
        env = submission_environment(os.environ, secrets)

        def accepted_job() -> str | None:
            new_jobs = self.jobs_of_script(script) - set(known_jobs)
            return max(new_jobs, key=int) if new_jobs else None

        return (
            self._run_with_retries(argv, env=env, fallback=accepted_job).strip().partition(";")[0]
        )

    def test(self, script: Path, *, options: Sequence[str] = ()) -> str:
        """Ask whether and when a script could run, without submitting it; returns the answer."""
        env = submission_environment(os.environ, ())
        done = self._run(["sbatch", "--test-only", *options, str(script)], env=env)
        if done.returncode:
            raise _refusal("sbatch", done.stderr)
        return _last_line(done.stderr or done.stdout)

    def queue(self, jobs: Collection[str]) -> dict[str, QueueEntry]:
        """Return what squeue knows of these jobs (ids without array index), by id."""
        if not jobs:
            return {}
        fields = "%i|%T|%r|%L|%S|%N"
        argv = ["squeue", "--noheader", "--array", "--states=all", f"--format={fields}"]
        try:
            text = self._run_with_retries([*argv, f"--jobs={','.join(sorted(jobs))}"])
        except JobError as error:
            if "invalid job id" in str(error).lower():  # all are long gone
                return {}
            raise
        return {entry.job: entry for entry in map(_queue_entry, text.splitlines())}

    def cancel(self, jobs: Sequence[str]) -> None:
        """Cancel jobs or array tasks."""
        self._run_with_retries(["scancel", *jobs])

    def signal_batch_shell(self, job: str) -> None:
        """Signal a running job's batch shell to checkpoint and continue."""
        self._run_with_retries(["scancel", "--batch", "--signal=USR2", job])

    def requeue(self, job: str) -> None:
        """Put a running or ended job back into the queue."""
        self._run_with_retries(["scontrol", "requeue", job])

    def max_array_size(self) -> int:
        """Return the number of indices that one array may span."""
        return int(self._setting("MaxArraySize") or 1001)

    def cluster_name(self) -> str | None:
        """Return the cluster's name: two clusters that share folders number their jobs alike."""
        return self._setting("ClusterName")

    def _setting(self, name: str) -> str | None:
        if self._settings is None:
            self._settings = self._run_with_retries(["scontrol", "show", "config"])
        match = re.search(rf"^{name}\s*=\s*(\S+)", self._settings, re.MULTILINE)
        return match[1] if match else None

    def accounting(self, jobs: Collection[str]) -> list[AccountingEntry] | None:
        """Return what the accounting keeps of these jobs; none where it is disabled.

        Raises:
            SlurmError: It does not answer.
        """
        if not jobs:
            return []
        text = self._sacct(jobs, "JobID,State,ElapsedRaw,NodeList,ConsumedEnergyRaw")
        return None if text is None else _accounting_entries(text.splitlines())

    def ends(self, jobs: Collection[str]) -> dict[str, str]:
        """Return how jobs ended, by id, for example `FAILED, exit code 0:53`; {} if not kept."""
        if not jobs:
            return {}
        try:
            text = self._sacct(jobs, "JobID,State,ExitCode,Reason", "--allocations") or ""
        except SlurmError:  # it only adds to what is known
            return {}
        return dict(_end(*_fields("sacct", line, 4)) for line in text.splitlines())

    def _sacct(self, jobs: Collection[str], fields: str, *options: str) -> str | None:
        options = ("--noheader", "--parsable2", "--duplicates", "--local", *options)
        argv = ["sacct", *options, f"--format={fields}", f"--jobs={','.join(sorted(jobs))}"]
        try:
            return self._run_with_retries(argv)
        except (JobError, SlurmError) as error:
            said = str(error).lower()
            if "accounting storage is disabled" in said:
                return None
            if any(text in said for text in DATABASE_ERRORS):
                raise SlurmError(str(error)) from None
            raise

    def jobs_of_script(self, script: Path) -> set[str]:
        """Return the ids of one's own queued jobs that a script made, without array index."""
        text = self._run_with_retries(["squeue", "--noheader", "--me", "--format=%F|%o"])
        pairs = (line.strip().partition("|") for line in text.splitlines())
        return {job for job, _, command in pairs if command == str(script)}

    def _run_with_retries(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        fallback: Callable[[], str | None] = lambda: None,
    ) -> str:
        """Run a command until the controller answers; `fallback` may get the answer elsewhere."""
        is_question = argv[0] in {"squeue", "sacct"} or argv[1:2] == ["show"]
        began_s = self._clock()
        tries = 0
        for pause_s in (*self._pauses_s, None):
            tries += 1
            left_s = began_s + PATIENCE_S - self._clock() if is_question else COMMAND_TIMEOUT_S
            done = self._run(argv, env=env, timeout_s=min(COMMAND_TIMEOUT_S, left_s))
            if done.returncode == 0:
                return done.stdout
            if not any(text in done.stderr.lower() for text in TRANSIENT_ERRORS):
                raise _refusal(argv[0], done.stderr)
            if is_question and self._clock() - began_s + (pause_s or 0) >= PATIENCE_S:
                break
            if pause_s is not None:
                self._sleep(pause_s)
                if (answer := fallback()) is not None:
                    return answer
        consequence = "; nothing was submitted" if argv[0] == "sbatch" else ""
        server = "accounting database" if argv[0] == "sacct" else "controller"
        times = "1 try" if tries == 1 else f"{tries} tries"
        raise SlurmError(
            f"{argv[0]}: {_last_line(done.stderr)} ({times}): the cluster's {server} is down"
            f" or busy{consequence}: try again later"
        )

    @staticmethod
    def _run(
        argv: Sequence[str],
        env: Mapping[str, str] | None = None,
        timeout_s: float = COMMAND_TIMEOUT_S,
    ) -> "subprocess.CompletedProcess[str]":
        try:
            return subprocess.run(
                argv,
                env=_without_user_formats(os.environ if env is None else env),
                capture_output=True,
                text=True,
                errors="replace",
                timeout=timeout_s,
                check=False,
            )
        except FileNotFoundError:
            raise SlurmError(
                f"{argv[0]} is not on this machine: run this on a login node of the cluster"
            ) from None
        except subprocess.TimeoutExpired:
            said = f"Socket timed out (after {timeout_s:.0f} s)"
            return subprocess.CompletedProcess(argv, 1, "", said)


def submission_environment(env: Mapping[str, str], secrets: Iterable[str]) -> dict[str, str]:
    """Return what a job may inherit: nothing secret, nothing of a surrounding job."""
    named = set(secrets)
    return {
        name: value
        for name, value in env.items()
        if name in CLIENT_VARIABLES
        or not (name in named or SECRET_NAME.search(name) or JOB_VARIABLES.match(name))
    }


def _without_user_formats(env: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in env.items() if not USER_FORMAT_VARIABLES.match(name)}


def seconds(text: str) -> int | None:
    """Read squeue's `[days-][[HH:]MM:]SS`; none for `UNLIMITED`, `NOT_SET`, `INVALID`."""
    match = re.fullmatch(r"(?:(\d+)-)?(\d+(?::\d+){0,2})", text)
    if match is None:
        return None
    total = 0
    for part in match[2].split(":"):
        total = total * 60 + int(part)
    return total + int(match[1] or 0) * 86_400


def _queue_entry(line: str) -> QueueEntry:
    job, state, reason, left, start, nodes = _fields("squeue", line, 6)
    return QueueEntry(
        job=job,
        state=state,
        reason=reason,
        time_left_s=seconds(left),
        start=None if start in {"N/A", ""} else start,
        nodes=nodes,
    )


def _accounting_entries(lines: Iterable[str]) -> list[AccountingEntry]:
    """Gather each allocation with its steps.

    Energy is that of srun's steps: the batch step's is metered on the same node at the same time.
    A sum with a step whose energy is not known is not known.
    """
    entries: list[AccountingEntry] = []
    for line in lines:
        identity, state, elapsed, nodes, energy = _fields("sacct", line, 5)
        job, _, step = identity.partition(".")
        if not step:
            entries.append(
                AccountingEntry(
                    job=job,
                    state=(state.split() or ["UNKNOWN"])[0],
                    elapsed_s=known_number(elapsed),
                    nodes="" if nodes == "None assigned" else nodes,
                    energy_joules=None,
                )
            )
        elif step.isdigit() and entries and entries[-1].job == job:
            joules, last = known_joules(energy), entries[-1]
            if last.has_steps:
                so_far = last.energy_joules
                joules = None if joules is None or so_far is None else so_far + joules
            entries[-1] = replace(last, energy_joules=joules, has_steps=True)
    return entries


def _fields(program: str, line: str, count: int) -> list[str]:
    fields = line.strip().split("|")
    if len(fields) != count:
        raise SlurmError(f"{program}: {line!r} has not the {count} fields that were asked for")
    return fields


def _end(job: str, state: str, exit_code: str, reason: str) -> tuple[str, str]:
    why = f", {reason}" if reason not in {"", "None"} else ""
    if exit_code == "0:53":  # SLURM's own mark
        why += ": SLURM could not open its log or enter its folder on the node"
    return job, f"{state}, exit code {exit_code}{why}"


def _refusal(program: str, stderr: str) -> JobError:
    """Make one line of a refusal: the cluster's message, and the remedy."""
    said = "; ".join(dict.fromkeys(_messages(stderr))) or "no message"
    remedy = next((text for sign, text in REMEDIES.items() if sign in said.lower()), None)
    return JobError(f"{program}: {said}" + (f": {remedy}" if remedy else ""))


def _last_line(text: str) -> str:
    messages = _messages(text)
    return messages[-1] if messages else "no answer"


def _messages(stderr: str) -> list[str]:
    lines = (line.strip() for line in stderr.splitlines())
    return [re.sub(r"^(\w+: )?(error: |fatal: )?", "", line) for line in lines if line]
