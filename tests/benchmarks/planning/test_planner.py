"""Plans of presets: the best first, a front, limits, joules, and why another lost."""

import re
from pathlib import Path
from typing import Any

import pytest

from benchmarks.errors import BenchmarkError
from benchmarks.planning import tables
from benchmarks.planning.answer import PlanAnswer, answer
from benchmarks.planning.interval import error_band
from benchmarks.planning.job import JobOptions, read_job
from benchmarks.planning.layout_text import layout_text, parse_layout
from benchmarks.planning.limits import memory_terms
from benchmarks.planning.planner import Planner
from benchmarks.planning.why import why
from parallel.errors import ParallelError
from parallel.hardware.card import load_card
from parallel.planner.search.candidates import candidates
from parallel.planner.search.choices import recomputations
from parallel.planner.step.phases import PHASE_OF_TERM
from tests.benchmarks.planning.jobs import planner


@pytest.fixture(scope="module")
def mixtral() -> Planner:
    return planner("mixtral-8x7b", 64)


@pytest.fixture(scope="module")
def planned(mixtral: Planner) -> PlanAnswer:
    return answer(mixtral, None, 5)


def test_the_best_come_first_and_one_layout_is_predicted_alike(
    mixtral: Planner, planned: PlanAnswer
) -> None:
    seconds = [one.step_seconds for one in planned.layouts]
    assert len(seconds) == 5
    assert seconds == sorted(seconds)
    for one in planned.layouts:
        alone = answer(mixtral, layout_text(one.work), 1).best
        assert alone.step_seconds == one.step_seconds
        assert alone.memory == one.memory
        assert one.fits
        assert one.memory.total_bytes <= load_card("h100").memory_bytes
        assert sum(memory_terms(one.memory).values()) == one.memory.total_bytes
        assert sum(one.terms.values()) == pytest.approx(one.step_seconds)
        assert set(one.terms) <= set(PHASE_OF_TERM)


def test_speed_interval_and_joules_belong_together(planned: PlanAnswer) -> None:
    best, band = planned.best, error_band(planned.job.shape, planned.job.card)
    low, high = best.interval
    assert low < best.step_seconds < high
    assert low / best.step_seconds == pytest.approx(band.low)
    tokens = 1024 * 4096
    assert best.tokens_per_second * 64 * best.step_seconds == pytest.approx(tokens)
    assert best.energy is not None
    joules = best.energy.per_token()
    assert best.joules_per_token == joules["nodes"].value
    assert joules["boards"].value < joules["nodes"].value < joules["facility"].value
    # Not above the boards' limit for all of the time.
    assert joules["boards"].value * tokens <= 700 * 64 * best.step_seconds


def test_what_is_like_a_faster_row_is_counted_with_it(planned: PlanAnswer) -> None:
    document = planned.as_json()
    assert any(entry["near_equal"] for entry in document["layouts"])
    for entry, one in zip(document["layouts"], planned.layouts, strict=True):
        near = planned.near(one)
        assert [each["text"] for each in entry["near_equal"]] == [
            layout_text(each.work) for each in near
        ]
        assert all(each.step_seconds >= one.step_seconds for each in near)
    cells = [row[2] for row in tables.layout_table(planned).as_json()["rows"]]
    assert cells == [f"+{len(near)}" if near else "" for near in map(planned.near, planned.layouts)]


def test_no_layout_on_the_front_is_beaten(planned: PlanAnswer) -> None:
    assert planned.found is not None
    assert planned.is_on_front(planned.best)
    for one in planned.front:
        assert not any(
            other.step_seconds < one.step_seconds
            and other.memory.total_bytes < one.memory.total_bytes
            and (other.joules_per_token or 0) < (one.joules_per_token or 0)
            for other in planned.found.fitting
        )


def test_one_stage_too_many_bubbles_are_a_limit(mixtral: Planner) -> None:
    deep = answer(mixtral, "tp=1,pp=32,ep=2,mbs=8", 1).best
    assert any("pipeline bubble" in text for text in deep.limits)
    costs = [text for text in deep.limits if not text.endswith("of it)")]
    shares = [int(text.rsplit(" ", 1)[1].rstrip("%")) for text in costs]
    assert shares == sorted(shares, reverse=True)


def test_why_names_the_rule_the_memory_term_or_the_time(
    mixtral: Planner, planned: PlanAnswer
) -> None:
    best = planned.best
    illegal = why(mixtral, parse_layout("tp=3"), best)
    assert illegal.reason == "illegal"
    assert any("tp=3 does not divide num_heads = 32" in text for text in illegal.sentences)
    large = why(mixtral, parse_layout("tp=1,pp=1,ep=1,etp=1"), best)
    assert large.reason == "memory"
    assert large.prediction is not None
    assert large.prediction.work.layout.recompute == "full"
    assert "too much even as" in large.sentences[0]
    assert "its largest term is gradient" in large.sentences[1]
    slow = why(mixtral, parse_layout("tp=8,pp=2"), best)
    assert slow.reason == "time"
    assert any(text.startswith("tensor parallel: ") for text in slow.sentences)
    assert slow.prediction is not None
    assert slow.prediction.step_seconds > best.step_seconds
    own = why(mixtral, parse_layout(layout_text(best.work)), best)
    assert own.reason == "best"


def test_why_counts_the_layouts_that_it_is_asked_about(
    mixtral: Planner, planned: PlanAnswer
) -> None:
    for text, recompute in (("tp=4,pp=2", ""), ("tp=4,pp=2,recompute=full", "full")):
        verdict = why(mixtral, parse_layout(text), planned.best)
        found = re.search(r"the fastest of ([0-9,]+) such", verdict.sentences[0])
        assert found is not None
        legal = [
            one
            for one in candidates(mixtral.job.shape, mixtral.bounds())
            if (one.sizes.tp, one.stages.pp) == (4, 2)
        ]
        ways = recomputations(mixtral.job.shape, has_te=True)
        allowed = [way for way in ways if recompute in ("", way["recompute"])]
        assert int(found[1].replace(",", "")) == len(legal) * len(allowed)


def test_a_layout_that_no_search_tries_is_judged_alone(
    mixtral: Planner, planned: PlanAnswer
) -> None:
    verdict = why(mixtral, parse_layout("tp=4,pp=4,ep=8,recompute=core_attn"), planned.best)
    assert verdict.reason == "time"
    assert verdict.prediction is not None
    assert verdict.prediction.work.layout.recompute_modules == ("core_attn",)


def test_what_cannot_be_is_told_apart() -> None:
    with pytest.raises(ParallelError, match="none of .* layouts fits in memory"):
        answer(planner(gpus=4), None, 1)
    with pytest.raises(ParallelError, match="no layout of this model and batch is legal"):
        answer(planner(gpus=67), None, 1)
    with pytest.raises(BenchmarkError, match="is no experiment"):
        answer(planner(), "own", 1)
    with pytest.raises(BenchmarkError, match="A100 has no FP8"):
        read_job("mixtral-8x7b", JobOptions(gpus=8, gpu="a100", precision="fp8"))
    with pytest.raises(ParallelError, match="dp=3, but 64 cards"):
        planner().workload(parse_layout("tp=2,dp=3"))


def test_a_fixed_micro_batch_stays_and_context_needs_a_kernel() -> None:
    fixed = answer(planner("llama3-8b", 16, micro_batch_size=2), None, 3)
    assert {one.work.batch.micro_batch_size for one in fixed.layouts} == {2}
    # Attention sinks have no ring in Transformer Engine.
    assert planner("gpt-oss-20b", 64).bounds().largest_cp == 1


EXPERIMENT = """
[model]
preset = "llama3-8b"
[train]
steps = 1
seq_len = 4096
global_batch_size = 64
[precision]
kernels = "te"
dtype = "bf16"
"""


def of_file(path: Path, more: str, **options: Any) -> Planner:
    path.write_text(EXPERIMENT + more)
    return Planner(read_job(str(path), JobOptions(gpus=16, gpu="h100", **options)))


def test_a_search_keeps_to_what_the_experiment_can_run(tmp_path: Path) -> None:
    packed = of_file(tmp_path / "a.toml", '[data]\ndocument_mask = true\npacking = "best_fit"\n')
    assert packed.bounds().micro_batches == (1,)
    assert packed.bounds().largest_cp == 1
    stated = of_file(tmp_path / "a.toml", "[parallel]\noverlap_grad_reduce = false\n")
    assert not stated.template().layout.overlap_grad_reduce
    assert not stated.template().layout.overlap_param_gather
    assert of_file(tmp_path / "a.toml", "").template().layout.overlap_param_gather


def test_what_is_not_modelled_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    emulated = EXPERIMENT.replace('"te"', '"torch"') + 'fp8 = "emulated"\n'
    path.write_text(emulated)
    with pytest.raises(BenchmarkError, match='"emulated" studies losses'):
        read_job(str(path), JobOptions(gpus=16, gpu="h100"))
    assert read_job(str(path), JobOptions(gpus=16, gpu="h100", precision="bf16"))
    path.write_text(
        EXPERIMENT.replace("steps = 1", 'steps = 1\nmode = "dpo"\ninit = "x"\nmicro_batch_size = 2')
    )
    with pytest.raises(BenchmarkError, match='"dpo" is not modelled'):
        read_job(str(path), JobOptions(gpus=16, gpu="h100"))


def test_a_dense_model_has_no_dispatcher_to_ask_about() -> None:
    dense = planner("llama3-8b", 16)
    best = answer(dense, "tp=2,pp=2", 1).best
    verdict = why(dense, parse_layout("dispatcher=deepep"), best)
    assert (verdict.reason, verdict.prediction) == ("illegal", None)
    assert "is dense: no token is sent to experts" in verdict.sentences[0]
