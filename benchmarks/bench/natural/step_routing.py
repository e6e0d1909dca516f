"""The routings of a benchmarked training step, in order, and where each comes from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.bench.cases import BenchOptions
from benchmarks.bench.forced_routing import RoutingProfile
from benchmarks.bench.natural.cost import FORCED, NATURAL, routing_cost
from benchmarks.bench.natural.replay import Replay, check_replay_used
from benchmarks.bench.natural.warm_up import WarmUp, warm_up
from benchmarks.bench.trainer import MeasuredTrainer
from moe.routing.decision_hooks import sparse_layers


@dataclass(frozen=True, kw_only=True)
class NaturalPlan:
    """Where natural routing comes from: a recording, or else a warm-up."""

    replay: Replay | None
    most_steps: int
    """Of a warm-up."""
    text: str
    """What a warm-up reads."""

    def key(self) -> Mapping[str, Any]:
        """Return what tells a case from others."""
        return {
            "replay": None if self.replay is None else self.replay.label,
            "most_warm_up_steps": self.most_steps if self.replay is None else None,
        }


def natural_plan(
    replay: Replay | None, profiles: Sequence[RoutingProfile], most_steps: int, store: Path | None
) -> NaturalPlan:
    """Return where natural routing comes from; `store` is what is trained on, if not the default.

    Raises:
        BenchmarkError: A recording that no profile takes.
    """
    check_replay_used(replay, profiles)
    text = "Python's standard library as bytes" if store is None else str(store)
    return NaturalPlan(replay=replay, most_steps=most_steps, text=text)


class StepRouting:
    """Routes a trainer's steps as one profile after the other says.

    A model that is warmed up is untrained no longer: natural routing comes last.
    """

    def __init__(self, subject: MeasuredTrainer, plan: NaturalPlan) -> None:
        self._subject, self._plan = subject, plan
        self._warm_up: WarmUp | None = None

    def force(self, profile: RoutingProfile) -> None:
        """Route the steps to come as a profile says; every rank must call it."""
        if profile.kind == "natural" and self._plan.replay is None and self._warm_up is None:
            self._subject.force_routing(profile)
            self._warm_up = warm_up(self._subject, self._plan.most_steps)
        self._subject.force_routing(profile, self._plan.replay)

    def source(self, profile: RoutingProfile) -> dict[str, Any]:
        """Say where a profile that was forced comes from."""
        if profile.kind != "natural":
            return {"kind": "forced" if profile.is_drawn else profile.kind}
        experiment = self._subject.experiment
        if self._plan.replay is not None:
            layers = sparse_layers(experiment.model)
            return self._plan.replay.source(layers, self._subject.replayed_tokens_per_step)
        assert self._warm_up is not None
        return self._warm_up.source(self._plan.text)

    def cost_over_forced(
        self, profiles: Sequence[RoutingProfile], options: BenchOptions
    ) -> dict[str, Any] | None:
        """Return what natural routing costs over forced; None where not both are measured.

        Every rank must call it.
        """
        if not {NATURAL, FORCED} <= set(profiles):
            return None
        self.force(NATURAL)
        return routing_cost(
            self._subject, self._plan.replay, warmup=options.warmup, repeats=options.repeats
        )


def natural_last(profiles: Sequence[RoutingProfile]) -> list[RoutingProfile]:
    """Return profiles in the order in which they are measured."""
    return sorted(profiles, key=lambda profile: profile.kind == "natural")
