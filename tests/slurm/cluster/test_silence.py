"""Where slurmctld or a node does not answer at once, nothing is taken for granted."""

import signal
from collections.abc import Callable

from tests.support.simulator import Simulator

Simulate = Callable[..., Simulator]


def test_cancelled_job_is_not_resurrected(simulate: Simulate) -> None:
    job = simulate()
    job.start(hold_at=5)
    job.set_state(JobState="COMPLETING", silence=3)
    job.signal_all(signal.SIGTERM)
    assert job.wait() != 0
    assert job.outcomes() == ["cancelled"]
    assert not job.calls("scontrol", "requeue")


def test_job_that_slurm_says_nothing_of_is_not_resurrected(simulate: Simulate) -> None:
    job = simulate(continue_by="submit")
    script = job.job_dir / "job.sh"
    script.write_text(script.read_text().replace("answer_s=15", "answer_s=1"))
    job.start(hold_at=5)
    job.set_state(silence=1000)
    job.signal_all(signal.SIGTERM)
    assert job.wait() == 75
    assert job.outcomes() == ["unknown"]
    assert "not continued: SLURM may have cancelled it, but does not answer" in job.log()
    assert not job.calls("sbatch")


def test_running_job_is_not_requeued_before_its_ranks_stopped(simulate: Simulate) -> None:
    job = simulate(experiment="save_s = 2")
    job.start(hold_at=5)
    job.set_state(silence=1)
    job.signal_batch(signal.SIGTERM)
    job.wait_until(lambda: bool(job.calls("scontrol", "requeue")))
    assert (job.run_dir / "checkpoint.json").exists()
    job.wait()
    assert job.outcomes() == ["preempted"]


def test_stalled_node_is_asked_again(simulate: Simulate) -> None:
    job = simulate()
    job.add_command("timeout", 'mkdir "$FAKE_SLURM_DIR/stalled" 2>/dev/null && exit 124')
    job.start(hold_at=5)
    job.signal_batch(signal.SIGUSR2)
    assert job.run_to_end() == 0, job.log()
    assert job.outcomes() == ["preempted", "finished"]
    assert not job.state()["excluded"]


def test_a_failed_node_is_found_once_slurm_answers(simulate: Simulate) -> None:
    job = simulate(experiment="die_at = 10", max_error_restarts=0)
    job.fail_node("n2", seen=True)
    job.set_state(silence=2)
    job.start()
    job.wait()
    assert job.outcomes() == ["node_failure"], job.log()
