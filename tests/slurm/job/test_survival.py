"""Every way in which a job is disturbed, simulated: nothing lost, nothing trained twice."""

import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from slurm.job.cluster_profile import ClusterProfile, ContainerConfig, EnvironmentConfig
from tests.support.simulator import STEPS, Simulator

Simulate = Callable[..., Simulator]


def assert_whole(simulator: Simulator, undisturbed: dict[str, object]) -> None:
    """The same samples in the same order, each step once in the record, to the same loss."""
    assert [row["step"] for row in simulator.rows()] == list(range(1, STEPS + 1)), simulator.log()
    assert simulator.record() == undisturbed


def user_signal(job: Simulator) -> None:
    """--signal, or preempt_send_user_signal: SIGUSR2 to the batch shell alone."""
    job.signal_batch(signal.SIGUSR2)


def term_to_ranks(job: Simulator) -> None:
    """Preemption with a grace time: SIGTERM to the step, nothing to the batch shell."""
    job.signal_ranks(signal.SIGTERM)


def taken_back(job: Simulator) -> None:
    """Preemption without a grace time, or `scontrol requeue`: requeued by SLURM, then SIGTERM."""
    job.take_back()
    job.signal_all(signal.SIGTERM)


def both_signals(job: Simulator) -> None:
    """The user signal, then SIGTERM to everything while the ranks still write."""
    job.signal_batch(signal.SIGUSR2)
    job.signal_all(signal.SIGTERM)
    job.signal_all(signal.SIGTERM)


def killed(job: Simulator) -> None:
    """A power cut that SLURM notices: requeued, nobody was warned."""
    job.take_back()
    job.kill_all()


WAYS = {
    user_signal: "preempted",
    term_to_ranks: "preempted",
    taken_back: "requeued",
    both_signals: "preempted",
    killed: None,
}


@pytest.mark.parametrize("disturb", WAYS)
def test_interruption_is_survived(
    simulate: Simulate, undisturbed: dict[str, object], disturb: Callable[[Simulator], None]
) -> None:
    job = simulate()
    job.start(hold_at=11)
    disturb(job)
    assert job.run_to_end() == 0, job.log()
    assert job.outcomes() == [WAYS[disturb], "finished"], job.log()
    assert job.state()["Restarts"] == 1
    assert_whole(job, undisturbed)


def test_killed_run_goes_back_to_its_last_checkpoint_only(simulate: Simulate) -> None:
    job = simulate()
    job.start(hold_at=11)
    killed(job)
    job.wait()
    assert [row["step"] for row in job.rows()] == list(range(1, 12))
    assert job.restarted(hold_at=12)
    assert [row["restarts"] for row in job.rows()] == [0] * 8 + [1] * 4


def test_signal_before_training_began_is_survived(
    simulate: Simulate, undisturbed: dict[str, object]
) -> None:
    job = simulate()
    job.start(hold_at=0)
    attempt = job.job_dir / "tasks/0/attempt-1"
    job.wait_until(lambda: len(list(attempt.glob("rank-*.log"))) == 4)
    job.signal_all(signal.SIGTERM)
    assert job.run_to_end() == 0
    assert job.outcomes() == ["preempted", "finished"]
    assert_whole(job, undisturbed)


def test_torchrun_hears_no_signal_but_its_ranks_do(
    simulate: Simulate, undisturbed: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither while it starts, nor while a checkpoint takes longer than it would give its ranks."""
    monkeypatch.setenv("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", "1")
    job = simulate(launch="torchrun", experiment="save_s = 3")
    job.start(hold_at=0)
    attempt = job.job_dir / "tasks/0/attempt-1"
    job.wait_until(lambda: len(list(attempt.glob("torchrun-*"))) == 2)
    job.signal_ranks(signal.SIGTERM)
    job.wait()
    assert job.restarted(hold_at=11), job.log()
    job.signal_ranks(signal.SIGTERM)
    job.signal_ranks(signal.SIGUSR2)
    assert job.run_to_end() == 0, job.log()
    assert job.outcomes() == ["preempted", "preempted", "finished"], job.log()
    assert_whole(job, undisturbed)


def test_every_start_of_several_counts(simulate: Simulate, undisturbed: dict[str, object]) -> None:
    job = simulate()
    job.start(hold_at=3)
    for disturb, next_hold in (
        (user_signal, 9), (killed, 15), (term_to_ranks, 21), (taken_back, None)
    ):  # fmt: skip
        disturb(job)
        job.wait()
        assert job.restarted(next_hold), job.log()
    assert job.run_to_end() == 0
    assert job.outcomes() == ["preempted", None, "preempted", "requeued", "finished"]
    assert_whole(job, undisturbed)


def test_array_task_is_requeued_by_its_own_id(
    simulate: Simulate, undisturbed: dict[str, object]
) -> None:
    job = simulate(array_task=3)
    job.start(hold_at=5)
    job.signal_batch(signal.SIGUSR2)
    assert job.run_to_end() == 0, job.log()
    assert job.calls("scontrol", "requeue") == [["scontrol", "requeue", "90_3"]]
    assert_whole(job, undisturbed)


def test_time_limit_is_told_from_preemption(simulate: Simulate) -> None:
    end = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(time.time() + 100))
    job = simulate(checkpoint_lead_s=60)
    job.set_state(EndTime=end)
    job.start(hold_at=5)
    job.signal_batch(signal.SIGUSR2)
    job.wait()
    assert job.outcomes() == ["time_limit"]
    assert job.restarted()


def test_ranks_that_do_not_stop_in_time_are_requeued_as_the_limit_ends(
    simulate: Simulate, undisturbed: dict[str, object]
) -> None:
    job = simulate(experiment="deaf = true")
    job.start(hold_at=9)
    job.signal_batch(signal.SIGUSR2)
    job.set_state(JobState="COMPLETING", Reason="TimeLimit")
    job.signal_all(signal.SIGTERM)
    job.wait_until(lambda: job.state()["Restarts"] == 1)
    job.kill_all()  # KillWait is over
    job.wait()
    assert job.outcomes() == ["time_limit"]
    (job.folder / "experiment.toml").write_text("")
    assert job.restarted()
    assert job.run_to_end() == 0
    assert_whole(job, undisturbed)


def test_cancelled_job_is_not_resurrected(simulate: Simulate) -> None:
    job = simulate()
    job.start(hold_at=5)
    job.set_state(JobState="COMPLETING")  # as scancel leaves it: no reason, no restart
    job.signal_all(signal.SIGTERM)
    assert job.wait() != 0
    assert job.outcomes() == ["cancelled"]
    assert not job.calls("scontrol", "requeue")


def test_preemption_that_cancels_is_undone(simulate: Simulate) -> None:
    """PreemptMode=CANCEL: SLURM ends the job for good, but says that it preempted it."""
    job = simulate()
    job.start(hold_at=5)
    job.set_state(JobState="COMPLETING", PreemptTime="2026-01-01T00:00:00")
    job.signal_all(signal.SIGTERM)
    job.wait()
    assert job.outcomes() == ["preempted"]
    assert job.restarted()


def test_new_job_follows_where_requeueing_is_forbidden(
    simulate: Simulate, undisturbed: dict[str, object]
) -> None:
    job = simulate(continue_by="submit", array_task=2, exclude=("n9",))
    job.start(hold_at=5)
    job.signal_batch(signal.SIGUSR2)
    assert job.wait() == 0
    (call,) = job.calls("sbatch")
    script = str(job.job_dir / "job.sh")
    options = ["--parsable", "--dependency=afterany:90_2", "--array=2", "--exclude=n9"]
    assert call == ["sbatch", *options, script]
    assert '"job": "4711", "tasks": "2"' in (job.job_dir / "jobs").read_text()
    job.start(job_id=4711)
    assert job.wait() == 0
    assert not job.calls("scontrol", "requeue")
    assert_whole(job, undisturbed)


def test_nothing_follows_where_that_is_wanted(simulate: Simulate) -> None:
    job = simulate(continue_by="none")
    job.start(hold_at=5)
    job.signal_batch(signal.SIGUSR2)
    assert job.wait() == 75
    assert job.outcomes() == ["preempted"]
    assert not job.restarted()
    assert "moe slurm requeue" in job.log()


def test_restarts_are_limited(simulate: Simulate) -> None:
    job = simulate(max_restarts=1)
    job.start(hold_at=3)
    job.signal_batch(signal.SIGUSR2)
    job.wait()
    assert job.restarted(hold_at=6)
    job.signal_batch(signal.SIGUSR2)
    assert job.wait() == 75
    assert job.outcomes() == ["preempted", "preempted"]
    assert job.state()["Restarts"] == 1
    assert "slurm.max_restarts=1" in job.log()


def test_restart_beyond_the_limit_does_not_train(simulate: Simulate) -> None:
    """SLURM requeues by itself, however often: the limit holds at the start too."""
    job = simulate(max_restarts=0)
    job.start(hold_at=3)
    killed(job)
    job.wait()
    assert job.restarted()
    assert job.wait() == 75
    assert job.outcomes() == [None, "restart_cap"]
    assert len(job.calls("srun")) == 1


def test_submission_by_hand_counts_anew(simulate: Simulate) -> None:
    job = simulate(max_restarts=0)
    job.start(hold_at=3)
    job.signal_batch(signal.SIGUSR2)
    assert job.wait() == 75
    (job.job_dir / "tasks" / "0" / "since").write_text("1\n")
    job.start()
    assert job.wait() == 0, job.log()
    assert job.outcomes() == ["preempted", "finished"]


def test_busy_controller_is_asked_again(simulate: Simulate, undisturbed: dict[str, object]) -> None:
    job = simulate()
    job.set_state(requeue_failures=1, silence=1)
    job.start(hold_at=5)
    job.signal_batch(signal.SIGUSR2)
    assert job.run_to_end() == 0
    assert len(job.calls("scontrol", "requeue")) == 2
    assert_whole(job, undisturbed)


def test_killed_rank_is_restarted_once_only(
    simulate: Simulate, undisturbed: dict[str, object]
) -> None:
    job = simulate(experiment="die_at = 10")
    job.start()
    assert job.run_to_end() == 0
    assert job.outcomes() == ["error", "finished"]
    assert_whole(job, undisturbed)
    again = simulate(experiment="die_at = 10", max_error_restarts=0)
    again.start()
    assert again.run_to_end() == 137
    assert again.outcomes() == ["error"]


def test_wrong_input_is_not_tried_again(simulate: Simulate) -> None:
    job = simulate(experiment="exit_code = 2")
    job.start()
    assert job.run_to_end() == 2
    assert job.outcomes() == ["rejected"]


def test_refusal_of_what_ran_before_is_tried_again(
    simulate: Simulate, undisturbed: dict[str, object]
) -> None:
    """A run directory may still be locked by a node that was lost."""
    job = simulate()
    job.start(hold_at=5)
    killed(job)
    job.wait()
    (job.folder / "experiment.toml").write_text("exit_code = 2")
    assert job.restarted()
    job.wait()
    assert job.outcomes() == [None, "error"]
    (job.folder / "experiment.toml").write_text("")
    assert job.restarted()
    assert job.run_to_end() == 0
    assert_whole(job, undisturbed)


@pytest.mark.parametrize("seen", [False, True], ids=["unnoticed", "noticed"])
def test_failed_node_is_excluded(
    simulate: Simulate, undisturbed: dict[str, object], seen: bool
) -> None:
    """Before slurmctld notices, ranks only lose their peers; the node itself is asked."""
    job = simulate(experiment="die_at = 10", exclude=("n7",), max_error_restarts=0)
    job.fail_node("n2", seen=seen)
    job.start()
    job.wait()
    assert job.outcomes() == ["node_failure"], job.log()
    assert job.state()["excluded"] == "n2,n7"
    assert job.restarted()
    assert job.run_to_end() == 0
    assert_whole(job, undisturbed)


def test_requeue_by_slurm_after_node_failure_excludes_the_node(simulate: Simulate) -> None:
    job = simulate()
    job.start(hold_at=5)
    job.fail_node("n2", seen=True)
    taken_back(job)
    job.wait()
    assert job.outcomes() == ["node_failure"]
    assert job.state()["excluded"] == "n2"
    assert not job.calls("scontrol", "requeue")


def test_run_in_a_container_is_survived(simulate: Simulate, undisturbed: dict[str, object]) -> None:
    """The batch shell stays outside: it needs scontrol; the signal reaches the ranks inside."""
    container = ContainerConfig(runtime="apptainer", image="/images/a b.sif")
    job = simulate(profile=ClusterProfile(container=container))
    job.start(hold_at=5)
    user_signal(job)
    assert job.run_to_end() == 0, job.log()
    assert job.outcomes() == ["preempted", "finished"]
    inside = [call[call.index("apptainer") :] for call in job.calls("srun")]
    assert [call[6:8] for call in inside] == [["/images/a b.sif", "bash"]] * 2
    assert_whole(job, undisturbed)


def test_environment_is_made_before_the_ranks(
    simulate: Simulate, undisturbed: dict[str, object], tmp_path: Path
) -> None:
    venv = tmp_path / "my env"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "activate").write_text('echo "activated $UNSET_VARIABLE" >>"$SEEN"\n')
    profile = ClusterProfile(
        environment=EnvironmentConfig(kind="venv", path=str(venv)),
        modules=("cuda/12.8",),
        setup=(f"export SEEN='{tmp_path}/seen' # where", "[ -n x ]"),
    )
    job = simulate(profile=profile)
    script = job.job_dir / "job.sh"
    # What the cluster's login scripts define.
    script.write_text(script.read_text().replace("prepare()", "module() { :; }\nprepare()", 1))
    job.start()
    assert job.run_to_end() == 0, job.log()
    assert (tmp_path / "seen").read_text() == "activated \n" * 4
    assert_whole(job, undisturbed)


def test_failed_preparation_is_told_and_tried_once_more(simulate: Simulate) -> None:
    job = simulate(profile=ClusterProfile(modules=("cuda/99",)))
    job.start()
    assert job.run_to_end() == 1
    assert job.outcomes() == ["error", "error"]
    assert "failed: module load cuda/99" in job.log()
    assert not job.calls("srun")


def test_sick_node_is_found_before_training(simulate: Simulate) -> None:
    job = simulate(profile=ClusterProfile(health_check='[ "$SLURMD_NODENAME" != n2 ]'))
    job.start()
    job.wait()
    assert job.outcomes() == ["node_failure"]
    assert job.state()["excluded"] == "n2"
    assert not job.rows()
    assert job.restarted()


def test_run_goes_on_on_fewer_nodes_where_allowed(
    simulate: Simulate, undisturbed: dict[str, object]
) -> None:
    job = simulate(node_counts=(1, 2))
    job.start(hold_at=5)
    job.signal_batch(signal.SIGUSR2)
    job.wait()
    job.start(nodes=("n2",), job_id=101)
    assert job.wait() == 0
    worlds = [(job.run_dir / f"world-{number}").read_text() for number in (100, 101)]
    assert worlds == ["4", "2"]
    assert_whole(job, undisturbed)
