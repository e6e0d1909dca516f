"""Number formats that are searched together: read, ranked as one, left out where they cannot be."""

import pytest

from benchmarks.errors import BenchmarkError
from benchmarks.planning import tables
from benchmarks.planning.answer import PlanAnswer
from benchmarks.planning.job import PRECISIONS, JobOptions, precision_name, read_job
from benchmarks.planning.precisions import OF_ANY, answer_in, parse_precisions
from parallel.errors import ParallelError


def asked(precision: str, gpu: str = "h100", layout: str | None = None) -> PlanAnswer:
    options = JobOptions(gpus=8, gpu=gpu, precision=precision, global_batch_size=64)
    planner, found = answer_in("llama3-8b", options, layout, 4)
    assert planner.job == found.job
    return found


def test_formats_are_read() -> None:
    assert parse_precisions(None) == (None,)
    assert parse_precisions("bf16, fp8") == ("bf16", "fp8")
    assert set(parse_precisions("any")) == set(PRECISIONS) - {"fp32"}
    for text, message in (("fp9", "choose fp32, bf16"), ("", "choose"), ("fp8,fp8", "twice")):
        with pytest.raises(BenchmarkError, match=message) as caught:
            parse_precisions(text)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", PRECISIONS)
def test_a_format_has_one_name(name: str) -> None:
    job = read_job("llama3-8b", JobOptions(gpus=8, gpu="b200", precision=name))
    assert precision_name(job.precision) == name


def test_all_formats_are_ranked_together() -> None:
    found = asked("any", "b200")
    assert found.formats is not None
    assert set(found.formats.best) == set(OF_ANY)
    seconds = [one.step_seconds for one in found.layouts]
    assert seconds == sorted(seconds)
    assert len(seconds) == 4
    assert found.best == min(found.formats.best.values(), key=lambda one: one.step_seconds)
    assert found.job.precision == found.best.work.precision
    document = found.as_json()
    assert document["layouts"][0]["precision"] == precision_name(found.job.precision)
    assert set(document["model"]["precisions"]["best"]) == set(OF_ANY)
    assert "precision" in tables.layout_table(found).as_json()["columns"]


def test_what_a_card_lacks_is_left_out_and_said() -> None:
    found = asked("bf16,fp8", "a100")
    assert found.formats is not None
    assert set(found.formats.best) == {"bf16"}
    assert tables.format_lines(found)[1].startswith("left out: fp8: ")
    with pytest.raises(BenchmarkError, match="A100 has no FP8"):
        asked("fp8,fp8-delayed", "a100")
    with pytest.raises(ParallelError, match="'mxfp8': H100 has no matrix products"):
        asked("mxfp8")


def test_one_format_alone_is_as_before() -> None:
    found = asked("bf16")
    assert found.formats is None
    assert found.as_json()["model"]["precisions"] is None
    assert "precision" not in tables.layout_table(found).as_json()["columns"]
    assert tables.format_lines(found) == []


def test_one_layout_is_compared_in_each_format() -> None:
    found = asked("bf16,fp8", layout="tp=2,pp=2")
    assert [precision_name(one.work.precision) for one in found.layouts] == ["fp8", "bf16"]
    assert found.found is None
    assert found.near(found.best) == []
