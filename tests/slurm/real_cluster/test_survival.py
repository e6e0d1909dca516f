"""A run on two real nodes, disturbed in every way, ends in the undisturbed one's very loss."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from tests.support.cluster_user import TRAIN, ClusterUser, Run
from tests.support.real_cluster import Cluster


@pytest.fixture(scope="session")
def limited(user: ClusterUser) -> Iterator[Future[Run]]:
    """A run with a time limit of two minutes: it waits while others are tested."""

    def watch() -> Run:
        run = user.submit_two_nodes(
            "limited", time="00:02:00", partition="urgent", extra=["--nodelist=n3,n4"]
        )
        run.disturb(lambda: None, step=1)
        run.wait()
        return run

    with ThreadPoolExecutor(1) as watcher:
        yield watcher.submit(watch)


@pytest.fixture(scope="session")
def calm(user: ClusterUser, limited: Future[Run]) -> Run:
    """The run that nothing disturbs."""
    run = user.submit_two_nodes("calm")
    run.wait()
    return run


def assert_same(run: Run, calm: Run) -> None:
    """Each step once in the record, the same samples, the same losses to the last bit."""
    assert [row["step"] for row in run.rows()] == list(range(1, TRAIN["steps"] + 1)), run.story()
    for key in ("loss", "grad_norm", "stream_hash"):
        assert [row[key] for row in run.rows()] == [row[key] for row in calm.rows()], key
    assert run.record()["final_loss"] == calm.record()["final_loss"]
    assert run.record()["hardware"]["ranks"] == 2


def assert_nothing_lost(run: Run, calm: Run) -> None:
    """The same, and every step was trained once only."""
    assert_same(run, calm)
    assert run.record()["goodput"]["lost_tokens"] == 0


def submit_urgent(cluster: Cluster) -> None:
    """Want nodes 1 and 2 whole, with a higher priority."""
    where = ("--partition=urgent", "--nodelist=n1,n2", "--exclusive", "--nodes=2")
    cluster.run("sbatch", *where, "--output=/dev/null", "--wrap=sleep 1")


def test_undisturbed_run_spans_two_nodes(calm: Run) -> None:
    assert calm.outcomes() == ["finished"]
    assert calm.attempts()[0]["nodes"] == "n[1-2]"
    assert calm.record()["layout"]["ep"] == 2
    assert_same(calm, calm)


def test_requeue_and_job_of_higher_priority(user: ClusterUser, cluster: Cluster, calm: Run) -> None:
    run = user.submit_two_nodes("requeued")
    run.disturb(lambda: cluster.run("scontrol", "requeue", run.job))
    run.disturb(lambda: submit_urgent(cluster), step=22)
    run.wait()
    assert run.outcomes() == ["requeued", "requeued", "finished"]
    assert run.shown("Restarts") == "2"
    assert_nothing_lost(run, calm)


def test_power_cut_of_a_node(user: ClusterUser, cluster: Cluster, calm: Run) -> None:
    """It ends a rank of one run, and rank 0 with the batch shell of another."""
    bereft = user.submit_two_nodes("bereft", max_error_restarts=0)
    headless = user.submit_two_nodes("headless", exclude=["n1"])
    with ThreadPoolExecutor() as watchers:  # neither may end while the other is awaited
        list(watchers.map(Run.freeze_between_checkpoints, (bereft, headless)))
    frozen_at = {run: run.rows()[-1]["step"] for run in (bereft, headless)}
    assert [run.attempts()[0]["nodes"] for run in (bereft, headless)] == ["n[1-2]", "n[2-3]"]
    with cluster.power_cut("n2"):
        for run in (bereft, headless):
            run.thaw()
        for run in (bereft, headless):
            run.wait()
    for run in (bereft, headless):
        assert "n2" not in cluster.run("scontrol", "show", "hostnames", run.attempts()[1]["nodes"])
        resumed_at = run.record()["starts"][1]["first_step"]
        assert resumed_at % TRAIN["checkpoint_interval"] == 0
        again = (frozen_at[run] - resumed_at) * TRAIN["seq_len"] * TRAIN["global_batch_size"]
        assert run.record()["goodput"]["lost_tokens"] >= again > 0
        assert_same(run, calm)
    # The one batch shell asks the nodes before SLURM notices; the other's job SLURM takes back.
    assert bereft.outcomes() == ["node_failure", "finished"]
    assert bereft.shown("ExcNodeList") == "n2"
    assert headless.outcomes() == [None, "finished"]
    assert headless.shown("Restarts") == "1"


def test_time_limit_shorter_than_the_run(limited: Future[Run], calm: Run) -> None:
    run = limited.result()
    *earlier, last = run.outcomes()
    assert last == "finished"
    assert set(earlier) == {"time_limit"}
    assert_nothing_lost(run, calm)


def test_preemption_with_a_grace_time(user: ClusterUser, cluster: Cluster, calm: Run) -> None:
    """SIGTERM to the ranks alone; then, where the cluster is set so, the job's own signal first."""

    def submit_urgent_with_signal() -> None:
        # While no step is launched anywhere, which a daemon that reads its settings anew may fail.
        cluster.reconfigure("SlurmctldParameters=preempt_send_user_signal")
        submit_urgent(cluster)

    run = user.submit_two_nodes("graceful", partition="graceful")
    run.disturb(lambda: submit_urgent(cluster), step=12)
    run.disturb(submit_urgent_with_signal, step=22)
    run.wait()
    cluster.reconfigure()
    assert run.outcomes() == ["preempted", "preempted", "finished"]
    assert "attempt 1: SIG" not in run.log()
    assert "attempt 2: SIGUSR2" in run.log()
    assert_nothing_lost(run, calm)
