"""Layouts as text: read back as they were, and one line for what is wrong."""

import pytest

from benchmarks.errors import BenchmarkError
from benchmarks.planning.layout_text import layout_text, parse_layout
from moe.errors import ConfigError
from parallel.layout.layout import Layout
from tests.benchmarks.planning.jobs import planner


@pytest.mark.parametrize(
    "text",
    [
        "tp=1,pp=1,mbs=1",
        "tp=2,cp=2,pp=4,vpp=2,ep=4,mbs=2,recompute=layernorm+moe_act,dispatcher=deepep,"
        "overlap_experts=true",
        "tp=1,pp=2,ep=8,mbs=1,recompute=full,dispatcher=alltoall,stage_layers=17+15",
        "tp=1,pp=2,vpp=4,ep=8,mbs=1,dispatcher=alltoall,stage_layers=6x4+5+3",
        "tp=1,pp=2,etp=2,mbs=4,dispatcher=allgather",
    ],
)
def test_a_layout_reads_back(text: str) -> None:
    assert layout_text(planner().workload(parse_layout(text))) == text


def test_what_is_not_named_comes_from_the_experiment_but_sizes_are_1() -> None:
    base = Layout(tp=4, pp=2, timeout_s=5.0, overlap_grad_reduce=True)
    layout = parse_layout("ep=2").layout(base)
    assert (layout.tp, layout.pp, layout.ep) == (1, 1, 2)
    assert (layout.timeout_s, layout.overlap_grad_reduce, layout.sp) == (5.0, True, False)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "say sizes"),
        ("tp", "'tp' is none of tp, cp"),
        ("xp=2", "'xp=2' is none of"),
        ("tp=2,tp=4", "tp is given twice"),
        ("tp=0", "give a whole number above 0"),
        ("tp=٣", "give a whole number above 0"),
        ("tp=9999999999999", "give a whole number above 0"),
        ("stage_layers=x4", "stage_layers=: give a whole number above 0"),
        ("stage_layers=99999999x4", "at most 10000"),
        ("overlap_experts=1", "give true or false"),
        ("dispatcher=fast", "choose allgather, alltoall, deepep, hybridep"),
    ],
)
def test_what_is_wrong_is_named(text: str, message: str) -> None:
    with pytest.raises(BenchmarkError, match=message) as caught:
        parse_layout(text)
    assert "\n" not in str(caught.value)


def test_values_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"^layout recompute=foo: recompute_modules"):
        parse_layout("recompute=foo").layout(Layout())
    with pytest.raises(ConfigError, match="vpp=2 needs pipeline stages"):
        parse_layout("vpp=2").layout(Layout())
