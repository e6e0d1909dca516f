"""The client against SLURM 22 to 25 and against clusters that say no, or nothing."""

import subprocess
from pathlib import Path

import pytest

from slurm.cluster.client import Client, seconds, submission_environment
from slurm.cluster.sbatch_variables import unused_variables
from slurm.errors import JobError, SlurmError
from tests.support.fake_commands import FakeCommands

FAILED = "sbatch: error: Batch job submission failed:"
DOWN = f"{FAILED} Unable to contact slurm controller (connect failure)\n"
TIMED_OUT = f"{FAILED} Socket timed out on send/recv operation\n"
SCRIPT = Path("/shared/job.sh")


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeCommands:
    return FakeCommands(tmp_path, monkeypatch)


@pytest.fixture
def client() -> Client:
    return Client(pauses_s=(1, 2), sleep=lambda _: None)


# What each version prints for our fields. 22.05 was recorded from a real cluster; the others differ
# in what surrounds the fields: cluster names, states, and how unknown values are written.
SUBMITTED = {"22.05": "17\n", "23.11": "17;alpha\n", "24.11": "17\n", "25.05": "17;alpha\n"}
QUEUES = {
    "22.05": "17_0|RUNNING|None|29:30|2026-11-23T23:58:04|n[1-2]\n"
    "17_1|PENDING|Resources|30:00|N/A|\n",
    "23.11": "17_0|RUNNING|None|29:30|2026-11-23T23:58:04|n[1-2]\n"
    "17_1|PENDING|Resources|30:00|N/A|\n",
    "24.11": "17_0|RUNNING|None|29:30|2026-11-23T23:58:04|n[1-2]\n17_1|PENDING|Resources|30:00||\n",
    "25.05": "17_0|RUNNING|None|29:30|2026-11-23T23:58:04|n[1-2]\n"
    "17_1|PENDING|Resources|30:00|N/A|\n",
}
ACCOUNTS = {
    "22.05": """\
17_0|REQUEUED|60|n[1-2]|
17_0.batch|CANCELLED|60|n1|900
17_0.0|CANCELLED|58|n[1-2]|1700
17_0|COMPLETED|40|n[1,3]|
17_0.batch|COMPLETED|40|n1|0
17_0.0|COMPLETED|38|n[1,3]|1100
17_1|PENDING|0|None assigned|
""",
    "25.05": """\
17_0|REQUEUED|60|n[1-2]|
17_0.batch|CANCELLED|60|n1|900
17_0.extern|COMPLETED|60|n[1-2]|950
17_0.0|CANCELLED by 0|58|n[1-2]|1700
17_0|COMPLETED|40|n[1,3]|
17_0.extern|COMPLETED|40|n[1,3]|
17_0.0|COMPLETED|38|n[1,3]|1100
17_1|PENDING|0|None assigned|
""",
}


@pytest.mark.parametrize("version", SUBMITTED)
def test_job_id(fake: FakeCommands, client: Client, version: str) -> None:
    fake.answer("sbatch", SUBMITTED[version])
    assert client.submit(SCRIPT, options=["--array=0-3"]) == "17"
    assert fake.calls("sbatch") == [["--parsable", "--array=0-3", str(SCRIPT)]]


@pytest.mark.parametrize("version", QUEUES)
def test_queue(fake: FakeCommands, client: Client, version: str) -> None:
    fake.answer("squeue", QUEUES[version])
    queue = client.queue({"17"})
    assert set(queue) == {"17_0", "17_1"}
    assert (queue["17_0"].state, queue["17_0"].time_left_s) == ("RUNNING", 29 * 60 + 30)
    assert queue["17_0"].nodes == "n[1-2]"
    assert (queue["17_1"].reason, queue["17_1"].start) == ("Resources", None)


@pytest.mark.parametrize("version", ACCOUNTS)
def test_accounting_keeps_every_stay_and_its_ranks_energy(
    fake: FakeCommands, client: Client, version: str
) -> None:
    """The batch and extern steps are metered on the same nodes at the same time: not added."""
    fake.answer("sacct", ACCOUNTS[version])
    entries = client.accounting({"17"})
    assert entries is not None
    assert [(one.job, one.state, one.elapsed_s, one.energy_joules) for one in entries] == [
        ("17_0", "REQUEUED", 60, 1700.0),
        ("17_0", "COMPLETED", 40, 1100.0),
        ("17_1", "PENDING", 0, None),
    ]
    assert entries[2].nodes == ""


@pytest.mark.parametrize(
    ("steps", "joules"),
    [
        (["18446744073709551614"], None),
        (["4294967294"], None),
        (["1000000", "18446744073709551614"], None),
        (["18446744073709551614", "1000000"], None),
        (["1000000", "0"], None),  # nothing metered the second one
        (["1000000", "18446744073709551000"], None),  # a counter that went backward
        (["1000000", ""], None),
        (["1000000", "500000"], 1_500_000.0),
    ],
)
def test_energy_with_a_part_that_is_not_known_is_not_known(
    fake: FakeCommands, client: Client, steps: list[str], joules: float | None
) -> None:
    """The job's own line and its batch step hold the same energy, and are not added."""
    lines = [f"101|COMPLETED|3600|node01|{steps[0]}", f"101.batch|COMPLETED|3600|node01|{steps[0]}"]
    lines += [f"101.{i}|COMPLETED|3590|node01|{text}" for i, text in enumerate(steps)]
    fake.answer("sacct", "\n".join(lines) + "\n")
    (entry,) = client.accounting({"101"}) or []
    assert entry.energy_joules == joules


def test_time_that_is_no_value_is_none(fake: FakeCommands, client: Client) -> None:
    fake.answer("sacct", "17|COMPLETED|4294967294|n1|\n18|COMPLETED||n1|\n19||0|n1|\n")
    entries = client.accounting({"17", "18", "19"}) or []
    assert [(one.elapsed_s, one.state) for one in entries] == [
        (None, "COMPLETED"), (None, "COMPLETED"), (0, "UNKNOWN"),
    ]  # fmt: skip


def test_step_of_another_job_is_not_added(fake: FakeCommands, client: Client) -> None:
    fake.answer("sacct", "17|COMPLETED|5|n1|\n16.0|COMPLETED|5|n1|700\n17.0|COMPLETED|5|n1|30\n")
    (entry,) = client.accounting({"17"}) or []
    assert entry.energy_joules == 30.0
    assert "--local" in fake.calls("sacct")[0]  # of a federation's clusters this one


def test_answer_of_another_shape_is_one_line(fake: FakeCommands, client: Client) -> None:
    fake.answer("sacct", "sacct: something new in SLURM 26\n")
    fake.answer("squeue", "17|RUNNING\n")
    for question in (client.accounting, client.queue):
        with pytest.raises(SlurmError, match="has not the . fields"):
            question({"17"})


@pytest.mark.parametrize(
    "said",
    [
        "sacct: error: Problem talking to the database: Connection refused\n",
        "sacct: error: slurmdbd: Getting response to message type: DBD_GET_JOBS_COND\n",
    ],
)
def test_database_that_is_down_is_no_wrong_input(
    fake: FakeCommands, client: Client, said: str
) -> None:
    fake.answer("sacct", stderr=said, code=1)
    with pytest.raises(SlurmError):
        client.accounting({"17"})
    assert client.ends({"17"}) == {}


def test_question_has_an_end_whatever_a_command_takes(
    fake: FakeCommands, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A controller that hangs: each try would take two minutes, four of them eight."""
    clock, limits = [0.0], []

    def hang(argv: list[str], *, timeout: float, **_: object) -> object:
        limits.append(timeout)
        clock[0] += timeout
        raise subprocess.TimeoutExpired(argv, timeout)

    monkeypatch.setattr(subprocess, "run", hang)
    client = Client(sleep=lambda _: None, clock=lambda: clock[0])
    with pytest.raises(SlurmError, match="down or busy"):
        client.queue({"17"})
    assert limits == [45.0]
    with pytest.raises(SlurmError, match="nothing was submitted"):
        Client(pauses_s=(), sleep=lambda _: None, clock=lambda: clock[0]).submit(SCRIPT)
    assert limits[1:] == [120.0]


def test_how_jobs_ended(fake: FakeCommands, client: Client) -> None:
    fake.answer("sacct", "17|FAILED|0:53|None\n18|NODE_FAIL|1:0|NodeDown\n")
    ends = client.ends({"17", "18"})
    assert ends["17"].startswith("FAILED, exit code 0:53: SLURM could not open its log")
    assert ends["18"] == "NODE_FAIL, exit code 1:0, NodeDown"


def test_unmetered_energy_is_none_not_zero(fake: FakeCommands, client: Client) -> None:
    fake.answer("sacct", "17|COMPLETED|5|n1|0\n17.0|COMPLETED|5|n1|0\n")
    (entry,) = client.accounting({"17"}) or []
    assert entry.energy_joules is None


def test_disabled_accounting_is_none(fake: FakeCommands, client: Client) -> None:
    fake.answer("sacct", stderr="Slurm accounting storage is disabled\n", code=1)
    assert client.accounting({"17"}) is None


def test_forgotten_job_is_not_in_the_queue(fake: FakeCommands, client: Client) -> None:
    fake.answer("squeue", stderr="slurm_load_jobs error: Invalid job id specified\n", code=1)
    assert client.queue({"17"}) == {}


def test_nothing_is_asked_about_nothing(fake: FakeCommands, client: Client) -> None:
    assert client.queue(set()) == {}
    assert client.accounting(set()) == []
    assert not fake.calls("squeue") + fake.calls("sacct")


def test_controller_that_comes_back_is_asked_again(fake: FakeCommands, client: Client) -> None:
    fake.answer("sbatch", stderr=DOWN, code=1)
    fake.answer("sbatch", stderr=DOWN, code=1)
    fake.answer("sbatch", "17\n")
    assert client.submit(SCRIPT) == "17"
    assert len(fake.calls("sbatch")) == 3


def test_controller_that_stays_down_is_told_in_one_line(fake: FakeCommands, client: Client) -> None:
    fake.answer(
        "squeue", stderr="slurm_load_jobs error: Unable to contact slurm controller\n", code=1
    )
    with pytest.raises(SlurmError, match="Unable to contact slurm controller") as error:
        client.queue({"17"})
    assert "\n" not in str(error.value)
    assert error.value.exit_code == 1
    assert len(fake.calls("squeue")) == 3


def test_submission_that_timed_out_is_not_repeated_where_it_arrived(
    fake: FakeCommands, client: Client
) -> None:
    """The controller took the job, its answer was lost: a second sbatch would train it twice."""
    fake.answer("sbatch", stderr=TIMED_OUT, code=1)
    fake.answer("squeue", f"16|{SCRIPT}\n17|{SCRIPT}\n18|/shared/other.sh\n")
    assert client.submit(SCRIPT, known_jobs={"16"}) == "17"
    assert len(fake.calls("sbatch")) == 1


def test_submission_that_timed_out_is_repeated_where_it_did_not_arrive(
    fake: FakeCommands, client: Client
) -> None:
    fake.answer("sbatch", stderr=TIMED_OUT, code=1)
    fake.answer("sbatch", "17\n")
    fake.answer("squeue", f"16|{SCRIPT}\n")
    assert client.submit(SCRIPT, known_jobs={"16"}) == "17"


@pytest.mark.parametrize(
    ("said", "remedy"),
    [
        ("Invalid account or account/partition combination specified", "slurm.account"),
        ("invalid partition specified: gpus", "slurm.partition"),
        ("Invalid qos specification", "slurm.qos"),
        ("Requested time limit is invalid (missing or exceeds some limit)", "slurm.time"),
        ("Requested node configuration is not available", "ask for less"),
        (
            "Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)",
            "queue is full",
        ),
        ("AssocMaxSubmitJobLimit", "queue is full"),
        ("QOSMaxSubmitJobPerUserLimit", "queue is full"),
        ("Invalid job array specification", "in parts"),
        ("Something new in SLURM 26", "Something new"),
    ],
)
def test_refusal_is_one_line_with_a_remedy(
    fake: FakeCommands, client: Client, said: str, remedy: str
) -> None:
    lines = f"sbatch: error: {said}\nsbatch: error: Batch job submission failed: {said}\n"
    fake.answer("sbatch", stderr=lines, code=1)
    with pytest.raises(JobError) as error:
        client.submit(SCRIPT)
    assert said in str(error.value)
    assert remedy in str(error.value)
    assert "\n" not in str(error.value)
    assert error.value.exit_code == 2
    assert len(fake.calls("sbatch")) == 1


def test_machine_without_slurm_is_told(monkeypatch: pytest.MonkeyPatch, client: Client) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SlurmError, match="login node"):
        client.queue({"17"})


def test_test_only_answers_on_stderr(fake: FakeCommands, client: Client) -> None:
    said = "sbatch: Job 99 to start at 2026-11-24T00:00:00 using 4 processors on nodes n1 in main\n"
    fake.answer("sbatch", stderr=said)
    assert client.test(SCRIPT).startswith("Job 99 to start at")
    assert fake.calls("sbatch")[0][0] == "--test-only"


def test_cancel_requeue_and_limits(fake: FakeCommands, client: Client) -> None:
    fake.answer("scontrol", "Configuration data\nMaxArraySize            = 501\nMaxJobCount = 1\n")
    assert client.max_array_size() == 501
    client.cancel(["17_1", "17_2"])
    client.requeue("17_3")
    assert fake.calls("scancel") == [["17_1", "17_2"]]
    assert fake.calls("scontrol")[-1] == ["requeue", "17_3"]


def test_job_inherits_no_secret_and_nothing_of_a_surrounding_job(
    fake: FakeCommands, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets = {"WANDB_API_KEY": "k", "HF_TOKEN": "t", "DB_PASSWORD": "p", "NAMED": "n"}
    surrounding = {"SLURM_JOB_ID": "5", "SBATCH_PARTITION": "x", "RANK": "0", "MASTER_ADDR": "h"}
    launcher = "LOCAL_RANK LOCAL_WORLD_SIZE GROUP_RANK ROLE_RANK ROLE_NAME NODE_RANK WORLD_SIZE"
    elastic = "TORCHELASTIC_USE_AGENT_STORE TORCHELASTIC_RESTART_COUNT CUDA_VISIBLE_DEVICES"
    surrounding |= dict.fromkeys([*launcher.split(), *elastic.split()], "1")
    kept = {"SLURM_CONF": "/etc/c", "MODULEPATH": "/m", "SLURP": "1", "RANKING": "2"}
    kept |= {"CUDA_HOME": "/cuda", "OMP_NUM_THREADS": "4"}
    for name, value in (secrets | surrounding | kept).items():
        monkeypatch.setenv(name, value)
    fake.answer("sbatch", "17\n")
    client.submit(SCRIPT, secrets=["NAMED"])
    environment = fake.environment("sbatch")
    assert not set(secrets | surrounding) & set(environment)
    assert kept.items() <= environment.items()


def test_variables_of_sbatch_are_not_dropped_without_a_word() -> None:
    env = {"SBATCH_ACCOUNT": "g1", "SBATCH_MAIL_TYPE": "FAIL", "SBATCH_QOS": "", "SLURM_CONF": "x"}
    account, mail = unused_variables(env)
    assert account.startswith("SBATCH_ACCOUNT=g1 is not used")
    assert "set slurm.account" in account
    assert "set slurm.extra" in mail


def test_environment_is_not_changed_otherwise() -> None:
    env = {"PATH": "/bin", "LANG": "C"}
    assert submission_environment(env, ["PATH"]) == {"LANG": "C"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0:05", 5),
        ("1:02:03", 3723),
        ("2-00:00:01", 172_801),
        ("UNLIMITED", None),
        ("INVALID", None),
    ],
)
def test_time_left(text: str, expected: int | None) -> None:
    assert seconds(text) == expected
