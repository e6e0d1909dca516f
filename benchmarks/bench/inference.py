"""`moe bench inference`: prefill and decode, of a model and of its dense equals."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.bench.cases import Case
from benchmarks.bench.instruments import synchronize
from benchmarks.bench.layer_fit import fitted, free_bytes
from benchmarks.bench.session import BenchSession, bench_session, print_line
from benchmarks.bench.trainer import rank_meter
from moe.config.experiment import load_model
from moe.config.model import ModelConfig
from moe.cost.ledger import ledger
from moe.model.build import build_model
from moe.model.incremental_decoding import incremental_decoder
from parallel.measurement.intervals import median_interval
from parallel.measurement.measurement import Measurement


@dataclass(frozen=True, kw_only=True)
class InferencePlan:
    """How inference is measured."""

    prompt_len: int
    new_tokens: int
    batch_size: int
    repeats: int
    warmup: int


def run(
    models: Sequence[str],
    *,
    layers: int | None,
    plan: InferencePlan,
    overrides: Sequence[str],
    out: Path | None,
) -> list[dict[str, Any]]:
    """Measure each model beside a dense one of equal active and one of equal total size."""
    with bench_session(overrides) as session:
        cases = []
        for name in models:
            full = load_model(name)
            needed = partial(_bytes, plan, session)
            model, word = fitted(name, full, layers, free_bytes(session.engine), needed)
            if word is not None:
                print_line(word)
            key = {"model": name, "layers": model.num_layers, "of_layers": full.num_layers,
                   **vars(plan), **session.sections}  # fmt: skip
            cases.append(Case(key, partial(measure, model, plan, session)))
        return session.run("inference", cases, out)


def _bytes(plan: InferencePlan, session: BenchSession, model: ModelConfig) -> float:
    """Return what the weights and caches of all variants take, bytes."""
    wide = 2 if session.probe.precision.dtype == "bf16" else 4
    tokens = plan.batch_size * (plan.prompt_len + plan.new_tokens)
    costs = [ledger(variant, plan.prompt_len) for variant in variants(model).values()]
    numbers = sum(c.total_parameters + tokens * c.kv_cache_elements_per_token for c in costs)
    return float(wide * numbers)


def measure(model: ModelConfig, plan: InferencePlan, session: BenchSession) -> dict[str, Any]:
    """Measure all variants; they take turns, so that drift is shared."""
    subjects = {name: _Subject(variant, plan, session) for name, variant in variants(model).items()}
    for number in range(plan.warmup + plan.repeats):
        for subject in subjects.values():
            subject.turn(warm=number >= plan.warmup)
    rows = {name: subject.result() for name, subject in subjects.items()}
    for row in rows.values():
        for phase in ("prefill", "decode"):
            own = rows["model"][f"{phase}_s"]["median"]
            row[f"{phase}_time_over_model"] = row[f"{phase}_s"]["median"] / own
    return {"variants": rows}


def variants(model: ModelConfig) -> dict[str, ModelConfig]:
    """Return the model and, where it is sparse, dense ones of equal active and total size."""
    found = {"model": model}
    moe = model.moe
    if moe is None:
        return found
    dense = {k: v for k, v in model.model_dump(exclude_none=True).items() if k != "moe"}
    shared = moe.shared_expert_ffn_hidden_size
    for name, experts in (
        ("dense, equal active", moe.top_k),
        ("dense, equal total", moe.num_experts),
    ):
        width = experts * moe.expert_ffn_hidden_size + shared
        found[name] = ModelConfig.model_validate({**dense, "ffn_hidden_size": width})
    return found


class _Subject:
    """One model that reads a prompt and continues it greedily, timed."""

    def __init__(self, model: ModelConfig, plan: InferencePlan, session: BenchSession) -> None:
        self.plan, self.engine = plan, session.engine
        self.costs = ledger(model, plan.prompt_len)
        precision = session.probe.precision
        [self.chunk] = build_model(model, session.engine.layout, precision, seed=1)
        self.chunk.eval()
        generator = torch.Generator().manual_seed(4)
        size = (plan.batch_size, plan.prompt_len)
        prompt = torch.randint(model.vocab_size, size, generator=generator)
        self.prompt = prompt.to(session.engine.device)
        self.meter = rank_meter(session.probe, session.engine)
        self.prefill_s: list[float] = []
        self.decode_s: list[float] = []

    @torch.no_grad()
    def turn(self, *, warm: bool) -> None:
        """Read the prompt, then generate; times count once warm."""
        plan, device = self.plan, self.engine.device
        paddings = [0] * plan.batch_size
        with incremental_decoder(self.chunk, paddings, plan.prompt_len + plan.new_tokens) as model:
            synchronize(device)
            begin = time.perf_counter()
            tokens = model.next_logits(self.prompt).argmax(-1, keepdim=True)
            synchronize(device)
            middle = time.perf_counter()
            if warm and self.meter is not None:
                self.meter.enter("evaluate")
            for _ in range(plan.new_tokens - 1):
                tokens = model.next_logits(tokens).argmax(-1, keepdim=True)
            synchronize(device)
            end = time.perf_counter()
            if warm and self.meter is not None:
                self.meter.enter("idle")
        if warm:
            self.prefill_s.append(middle - begin)
            self.decode_s.append(end - middle)

    def result(self) -> dict[str, Any]:
        """Return both phases' speed, joules a generated token, and what the model weighs."""
        plan = self.plan
        prefill, decode = median_interval(self.prefill_s), median_interval(self.decode_s)
        generated = plan.batch_size * (plan.new_tokens - 1)
        return {
            "total_parameters": self.costs.total_parameters,
            "active_parameters": self.costs.active_parameters,
            "prefill_s": prefill.to_json(),
            "decode_s": decode.to_json(),
            "prefill_tokens_per_s": plan.batch_size * plan.prompt_len / prefill.median,
            "decode_tokens_per_s": generated / decode.median,
            "decode_step_s": decode.median / (plan.new_tokens - 1),
            "energy_per_generated_token": self._energy(generated).to_json(),
        }

    def _energy(self, generated: int) -> Measurement:
        if self.meter is None or self.meter.lost:
            return Measurement.missing("J/token", "none", "no meter works here")
        return self.meter.energy("evaluate").over(generated * self.plan.repeats, "J/token")
