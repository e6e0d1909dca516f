"""What users submit, see and undo, on a real SLURM."""

import os
from pathlib import Path

import pytest

from tests.support.cluster_user import SECRET, TRAIN, ClusterUser, Run
from tests.support.real_cluster import Cluster


@pytest.fixture(scope="module")
def array(user: ClusterUser, cluster: Cluster) -> list[Run]:
    """Three runs, two of them the same but for their names; the second is disturbed."""
    paths = [user.write(f"sweep/{name}", seed=int(name == "other"), partition="main")
             for name in ("plain", "disturbed", "other")]  # fmt: skip
    runs = user.submit(*paths)
    runs[1].disturb(lambda: cluster.run("scontrol", "requeue", runs[1].job))
    for run in runs:
        run.wait()
    return runs


def test_array_of_experiments(user: ClusterUser, array: list[Run]) -> None:
    plain, disturbed, other = array
    assert {run.job.partition("_")[0] for run in array} == {plain.job.removesuffix("_0")}
    assert plain.outcomes() == other.outcomes() == ["finished"]
    assert disturbed.outcomes() == ["requeued", "finished"]
    assert disturbed.record()["final_loss"] == plain.record()["final_loss"]
    assert disturbed.record()["stream_hash"] == plain.record()["stream_hash"]
    assert other.record()["final_loss"] != plain.record()["final_loss"]
    again = user.moe("slurm", "submit", "sweep")
    assert again.startswith("nothing to submit: 3 finished")


def test_what_is_shown_of_it(user: ClusterUser, cluster: Cluster, array: list[Run]) -> None:
    job = array[0].job.partition("_")[0]
    (shown,) = user.moe_json("slurm", "status", job)["submissions"]
    assert shown["counts"] == {"finished": 3}
    assert {task["step"] for task in shown["tasks"]} == {TRAIN["steps"]}
    assert "3 finished" in user.moe("slurm", "status", job)
    logs = user.moe_json("slurm", "logs", array[1].job)
    assert (logs["attempt"], logs["outcome"], logs["errors"]) == (2, "finished", [])
    assert any("held-out loss" in line for line in logs["lines"])
    used = user.moe_json("slurm", "accounting", job)
    assert used["source"] == "sacct"
    assert [task["states"] for task in used["tasks"]] == [
        ["COMPLETED"], ["REQUEUED", "COMPLETED"], ["COMPLETED"],
    ]  # fmt: skip
    assert all(task["elapsed_s"] > 0 for task in used["tasks"])
    assert all(task["cluster_energy_joules"] is None for task in used["tasks"])
    assert all(task["own_energy_joules"] > 0 for task in used["tasks"])


def test_accounting_where_the_cluster_keeps_none(
    user: ClusterUser, cluster: Cluster, array: list[Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(user.env, "SLURM_CONF", str(cluster.folder / "no-accounting.conf"))
    used = user.moe_json("slurm", "accounting", array[0].job)
    assert used["source"] == "attempts"
    assert used["tasks"][1]["states"] == ["requeued", "finished"]


def test_secret_reaches_ranks_and_nothing_else(user: ClusterUser, cluster: Cluster) -> None:
    run = user.submit_one("secretive")
    run.freeze()
    value = SECRET.encode()
    ranks = run.ranks()
    assert ranks
    assert all(value in Path(f"/proc/{pid}/environ").read_bytes() for pid in ranks)
    assert value.decode() not in cluster.run("scontrol", "show", "job", run.job)
    assert not [pid for pid in os.listdir("/proc") if pid.isdigit() and value in _command_line(pid)]
    secrets = run.submission / "secrets"
    assert value in secrets.read_bytes()
    assert secrets.stat().st_mode & 0o777 == 0o600
    run.thaw()
    run.wait()
    places = (user.folder / "runs", cluster.folder)
    files = {path: _content(path) for place in places for path in place.rglob("*")}
    assert files[run.submission / "logs" / f"{run.job}.log"]
    assert not secrets.exists()
    assert not [path for path, content in files.items() if value in content]


def _content(path: Path) -> bytes:
    """A file's content; none of a folder, a socket, or what is gone since it was listed."""
    try:
        return path.read_bytes() if path.is_file() else b""
    except FileNotFoundError:
        return b""


def _command_line(pid: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:  # also: the process is gone
        return b""


def test_run_goes_on_on_one_node_in_a_new_job(
    user: ClusterUser, cluster: Cluster, array: list[Run]
) -> None:
    """Where requeueing is forbidden, and a node is drained meanwhile: the very same samples."""
    nodes = {"nodes": 2, "min_nodes": 1, "exclude": ["n3", "n4"], "continue_by": "submit"}
    (run,) = user.submit(user.write("elastic", **nodes))

    def tell() -> None:
        cluster.run("scontrol", "update", "NodeName=n2", "State=DRAIN", "Reason=test")
        assert user.moe_json("slurm", "requeue", "elastic")["requeued"] == [run.job]

    run.disturb(tell)
    run.wait()
    cluster.run("scontrol", "update", "NodeName=n2", "State=RESUME")
    assert [attempt["nodes"] for attempt in run.attempts()] == ["n[1-2]", "n1"]
    first, second = (attempt["job"] for attempt in run.attempts())
    assert first == run.job != second
    assert run.outcomes() == ["preempted", "finished"]
    assert [row["step"] for row in run.rows()] == list(range(1, TRAIN["steps"] + 1))
    plain = array[0]
    assert run.record()["stream_hash"] == plain.record()["stream_hash"]
    assert run.record()["goodput"]["lost_tokens"] == 0
    assert run.record()["final_loss"] == pytest.approx(plain.record()["final_loss"], rel=1e-3)


def test_cancelled_run_stays_so_until_it_is_requeued(user: ClusterUser) -> None:
    run = user.submit_one("cancelled")
    run.freeze()
    assert user.moe_json("slurm", "cancel", "cancelled") == {"cancelled": [run.job]}
    run.wait_until(lambda: "asking the ranks" in run.log())
    run.thaw()
    run.wait_for_end("CANCELLED")
    run.wait_until(lambda: run.outcomes() == ["cancelled"])
    (shown,) = user.moe_json("slurm", "status", "cancelled")["submissions"]
    assert shown["counts"] == {"cancelled": 1}
    done = user.moe_json("slurm", "requeue", "cancelled")
    assert done["requeued"] == []
    (run.job,) = done["submitted"]
    run.wait()
    assert [row["step"] for row in run.rows()] == list(range(1, TRAIN["steps"] + 1))


def test_commands_are_submitted_in_shares(user: ClusterUser) -> None:
    build = ["data", "build", "docs.jsonl", "-o", "shared", "--tokenizer", "bytes"]
    share = ["--shard", "{task}/{tasks}"]
    receipt = user.moe_json("slurm", "run", "--tasks", "2", "--", *build, *share)
    runs = [Run(user, Path(receipt["submission"]), receipt["job"], task) for task in range(2)]
    for run in runs:
        run.wait_until(lambda run=run: run.outcomes() == ["finished"])
    shards = [f"shared.shard-{number}-of-2" for number in (1, 2)]
    user.moe("data", "merge", *shards, "-o", "shared")
    user.moe("data", "verify", "shared")


def test_thousand_experiments_are_one_array(user: ClusterUser) -> None:
    text = user.write("many/0", extra=["--hold"]).read_text()
    for seed in range(1000):
        (user.folder / f"many/{seed}.toml").write_text(text.replace("seed = 0", f"seed = {seed}"))
    receipt = user.moe_json("slurm", "submit", "many")
    assert {task["state"] for task in receipt["tasks"]} == {"submitted"}
    (shown,) = user.moe_json("slurm", "status", receipt["job"])["submissions"]
    assert shown["counts"] == {"pending": 1000}
    assert "1000 queued" in user.moe("slurm", "submit", "many")
    assert len(user.moe_json("slurm", "cancel", receipt["job"])["cancelled"]) == 1000
    (shown,) = user.moe_json("slurm", "status", receipt["job"])["submissions"]
    assert shown["counts"] == {"cancelled": 1000}


def test_names_and_comments_arrive_as_they_are(user: ClusterUser) -> None:
    name = 'it\'s "all" $HOME `x` #1 \\ 50% %j'
    comment = 'JobState=DONE "quoted" \\ $x'
    path = user.write("held", comment=comment, extra=["--hold"])
    receipt = user.moe_json("slurm", "submit", str(path), "--name", name)
    run = Run(user, Path(receipt["submission"]), receipt["job"], None)
    text = user.cluster.run("scontrol", "show", "job", run.job)
    assert f" JobName={name}\n" in text
    assert f" Comment={comment} \n" in text or f" Comment={comment}\n" in text
    queued = user.cluster.run("squeue", "--noheader", "--format=%Z", f"--jobs={run.job}")
    assert queued.strip() == str(user.folder)
    user.moe("slurm", "cancel", run.job)


def test_question_whether_it_could_run(user: ClusterUser) -> None:
    path = user.write("asked")
    assert "to start at" in user.moe("slurm", "submit", str(path), "--test-only")
    said = user.moe(
        "slurm", "submit", str(path), "--test-only", "--set", "slurm.constraint=x", code=2
    )
    assert said.count("\n") == 1
    assert not list((user.folder / "runs" / "slurm").glob("asked-*"))


@pytest.mark.parametrize(
    ("key", "remedy"),
    [
        ("slurm.partition=nowhere", "slurm.partition"),
        ("slurm.time=999", "slurm.time"),
        ("slurm.cpus_per_process=99", "lower slurm.cpus_per_process"),
    ],
)
def test_refusal_is_one_line(user: ClusterUser, key: str, remedy: str) -> None:
    path = user.write("refused")
    said = user.moe("slurm", "submit", str(path), "--set", key, code=2)
    assert said.startswith("moe: sbatch: ")
    assert remedy in said
    assert said.count("\n") == 1
    assert not list((user.folder / "runs" / "slurm").glob("refused-*"))
