"""`moe bench inference`: prefill and decode, of a model and of dense ones as large."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch

from benchmarks.bench.cases import BenchOptions, Case
from benchmarks.bench.instruments import synchronize
from benchmarks.bench.layer_fit import load_fitting_model
from benchmarks.bench.metering import energy_per_token, open_meter
from benchmarks.bench.session import BenchSession, bench_session
from moe.config.model import ModelConfig
from moe.cost.ledger import ledger
from moe.model.build import build_model
from moe.model.incremental_decoding import incremental_decoder
from parallel.measurement.intervals import median_interval


@dataclass(frozen=True, kw_only=True)
class InferencePlan:
    """Which prompts and continuations are measured."""

    prompt_len: int
    new_tokens: int
    batch_size: int


def run(
    models: Sequence[str], layers: int | None, plan: InferencePlan, options: BenchOptions
) -> list[dict[str, Any]]:
    """Measure each model beside a dense one of equal active and one of equal total size."""
    with bench_session(options) as session:
        cases = []
        for name in models:
            model, key = load_fitting_model(
                name, layers, session, partial(_estimated_bytes, plan, session)
            )
            key |= {**asdict(plan), "repeats": options.repeats, "warmup": options.warmup,
                    **session.sections}  # fmt: skip
            cases.append(Case(key, partial(measure, model, plan, session)))
        return session.run("inference", cases)


def _estimated_bytes(plan: InferencePlan, session: BenchSession, model: ModelConfig) -> float:
    """Return the size of all variants' weights and caches, bytes."""
    number_bytes = 2 if session.probe.precision.dtype == "bf16" else 4
    tokens = plan.batch_size * (plan.prompt_len + plan.new_tokens)
    costs = [ledger(variant, plan.prompt_len) for variant in variants(model).values()]
    numbers = sum(c.total_parameters + tokens * c.kv_cache_elements_per_token for c in costs)
    return float(number_bytes * numbers)


def measure(model: ModelConfig, plan: InferencePlan, session: BenchSession) -> dict[str, Any]:
    """Measure all variants; they take turns, so that drift is shared."""
    options = session.options
    subjects = {
        name: _MeasuredModel(variant, plan, session) for name, variant in variants(model).items()
    }
    for number in range(options.warmup + options.repeats):
        for subject in subjects.values():
            subject.generate(timed=number >= options.warmup)
    rows = {name: subject.result() for name, subject in subjects.items()}
    for row in rows.values():
        for phase in ("prefill", "decode"):
            model_s = rows["model"][f"{phase}_s"]["median"]
            row[f"{phase}_time_over_model"] = row[f"{phase}_s"]["median"] / model_s
    return {"variants": rows}


def variants(model: ModelConfig) -> dict[str, ModelConfig]:
    """Return the model and, if it is sparse, dense ones of equal active and of equal total size."""
    models = {"model": model}
    moe = model.moe
    if moe is None:
        return models
    dense = {k: v for k, v in model.model_dump(exclude_none=True).items() if k != "moe"}
    shared = moe.shared_expert_ffn_hidden_size
    for name, experts in (
        ("dense, equal active", moe.top_k),
        ("dense, equal total", moe.num_experts),
    ):
        width = experts * moe.expert_ffn_hidden_size + shared
        models[name] = ModelConfig.model_validate({**dense, "ffn_hidden_size": width})
    return models


class _MeasuredModel:
    """A model with random weights that reads a prompt and continues it greedily, timed."""

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
        self.meter = open_meter(session.probe, session.engine)
        self.prefill_s: list[float] = []
        self.decode_s: list[float] = []

    @torch.no_grad()
    def generate(self, *, timed: bool) -> None:
        """Read the prompt, then generate; warm-up runs are not `timed`."""
        plan, device = self.plan, self.engine.device
        paddings = [0] * plan.batch_size
        with incremental_decoder(self.chunk, paddings, plan.prompt_len + plan.new_tokens) as model:
            synchronize(device)
            begin = time.perf_counter()
            tokens = model.next_logits(self.prompt).argmax(-1, keepdim=True)
            synchronize(device)
            middle = time.perf_counter()
            if timed and self.meter is not None:
                self.meter.enter("evaluate")
            for _ in range(plan.new_tokens - 1):
                tokens = model.next_logits(tokens).argmax(-1, keepdim=True)
            synchronize(device)
            end = time.perf_counter()
            if timed and self.meter is not None:
                self.meter.enter("idle")
        if timed:
            self.prefill_s.append(middle - begin)
            self.decode_s.append(end - middle)

    def result(self) -> dict[str, Any]:
        """Return both phases' speed, energy per generated token, and the model's size."""
        plan = self.plan
        prefill, decode = median_interval(self.prefill_s), median_interval(self.decode_s)
        # The prefill gives each prompt's first new token.
        decoded = plan.batch_size * (plan.new_tokens - 1)
        energy = energy_per_token(self.meter, "evaluate", decoded * decode.repeats)
        return {
            "total_parameters": self.costs.total_parameters,
            "active_parameters": self.costs.active_parameters,
            "prefill_s": prefill.to_json(),
            "decode_s": decode.to_json(),
            "prefill_tokens_per_s": plan.batch_size * plan.prompt_len / prefill.median,
            "decode_tokens_per_s": decoded / decode.median,
            "decode_step_s": decode.median / (plan.new_tokens - 1),
            "energy_per_generated_token": energy.to_json(),
        }
