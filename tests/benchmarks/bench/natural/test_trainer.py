"""A trainer under measurement: weights that stay, and experts as recorded, step after step."""

from typing import Any

import pytest

from tests.support.distributed import run_ranks
from tests.support.routing_recordings import write_recording

TOKENS = 2 * 16


def _report(recording: str) -> dict[str, Any]:
    """Train the preset tiny for some steps; returns what changed, and what was routed where."""
    from benchmarks.bench.cases import BenchOptions
    from benchmarks.bench.forced_routing import RoutingProfile
    from benchmarks.bench.natural.replay import open_replay
    from benchmarks.bench.session import bench_session
    from benchmarks.bench.trainer import MeasuredTrainer, bench_experiment, bench_store
    from tests.support.trained_runs import leave_group

    leave_group()
    with bench_session(BenchOptions(repeats=1)) as session, bench_store(None) as store:
        model = {"preset": "tiny"}
        sizes = {"seq_len": 16, "micro_batch_size": 2, "global_batch_size": 4}
        subject = MeasuredTrainer(
            bench_experiment(model, store, sections={}, **sizes), session.engine
        )
        weights = [p for chunk in subject.trainer.chunks for p in chunk.parameters()]
        before = [p.detach().clone() for p in weights]

        def largest_change() -> float:
            changes = [(p - old).abs().max() for p, old in zip(weights, before, strict=True)]
            return float(max(changes))

        subject.step()
        subject.step()
        held = largest_change()
        subject.keeps_decisions = True
        subject.force_routing(RoutingProfile("natural"), open_replay(recording))
        subject.step()
        first = [[part.tolist() for part in layer] for layer in subject.last_decisions]
        gradients = [float(r.weight.main_grad.abs().max()) for r in subject.routers()]
        subject.step()
        second = [[part.tolist() for part in layer] for layer in subject.last_decisions]
        subject.force_routing(RoutingProfile("untrained"))
        subject.set_learning_rate(1e-2)
        subject.step()
        free = [[part.tolist() for part in layer] for layer in subject.last_decisions]
        subject.close()
        return {"held": held, "trained": largest_change(), "first": first, "second": second,
                "free": free, "gradients": gradients}  # fmt: skip


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("recording") / "routing.safetensors"
    recording = write_recording(path, layers=(1, 2), tokens=5 * TOKENS, num_experts=4)
    return run_ranks(1, _report, str(recording))[0]


def test_weights_stay_until_they_are_to_learn(report: Any) -> None:
    assert report["held"] < 1e-9
    assert report["trained"] > 1e-4


def test_recorded_experts_are_forced_and_routers_learn_by_them(report: Any) -> None:
    # Token t of recorded layer l goes to experts t + l and t + l + 1, of four.
    for step, name in ((2, "first"), (3, "second")):
        for layer, micro_batches in enumerate(report[name], 1):
            start = step * TOKENS + layer
            expected = [[t % 4, (t + 1) % 4] for t in range(start, start + TOKENS)]
            # All micro-batches of a step take the same tokens.
            assert micro_batches == [expected, expected]
    assert min(report["gradients"]) > 0
    assert report["free"] != report["second"]
