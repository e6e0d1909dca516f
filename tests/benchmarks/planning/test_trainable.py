"""What `moe plan` shows, `moe train` takes: the rules of kernel sets and number formats hold."""

from pathlib import Path

import pytest

from benchmarks.planning.answer import answer
from benchmarks.planning.job import JobOptions, read_job
from benchmarks.planning.layout_text import parse_layout
from benchmarks.planning.planner import Planner
from benchmarks.planning.why import why
from benchmarks.planning.write_layout import write_layout
from moe.config.experiment import load_experiment
from parallel.errors import ParallelError

TEXT = """
[model]
preset = "{preset}"
[train]
steps = 1
seq_len = 4096
global_batch_size = 256
[precision]
dtype = "bf16"
{more}
"""
TORCH, TE = 'kernels = "torch"', 'kernels = "te"'
PACKED = '[data]\ndocument_mask = true\npacking = "best_fit"'


def of_file(path: Path, preset: str, more: str) -> Planner:
    path.write_text(TEXT.format(preset=preset, more=more))
    return Planner(read_job(str(path), JobOptions(gpus=16, gpu="h200")))


@pytest.mark.parametrize("more", [TORCH, TE, f'{TE}\nfp8 = "current"', f"{TE}\n{PACKED}"])
@pytest.mark.parametrize(
    "preset", ["qwen3-30b-a3b", "deepseek-v2-lite", "gpt-oss-20b", "llama3-8b"]
)
def test_the_loader_takes_what_is_found(tmp_path: Path, preset: str, more: str) -> None:
    path = tmp_path / "a.toml"
    planner = of_file(path, preset, more)
    found = answer(planner, None, 4)
    for one in (*found.layouts, *found.front):
        write_layout(path, one.work)
        assert load_experiment(path).parallel == one.work.layout
        size = one.work.batch.micro_batch_size
        assert planner.train_faults(one.work.layout, size) == []


def test_what_overlap_the_loader_refuses_is_not_turned_on(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text(
        TEXT.format(preset="qwen3-30b-a3b", more=f'{TE}\nfp8 = "mxfp8"\nfp8_parameters = true')
    )
    planner = Planner(read_job(str(path), JobOptions(gpus=8, gpu="b200")))
    assert planner.template().layout.overlap_grad_reduce
    assert not planner.template().layout.overlap_param_gather
    write_layout(path, answer(planner, None, 1).best.work)


@pytest.mark.parametrize(
    ("more", "layout", "message"),
    [
        (TORCH, "ep=8,recompute=moe_act", '"moe_act" needs precision.kernels = "te"'),
        (f"{TE}\n{PACKED}", "ep=8,cp=2", r"needs train.micro_batch_size = 1 and parallel.cp = 1"),
        (f"{TE}\n{PACKED}", "ep=8,mbs=2", r"needs train.micro_batch_size = 1"),
        (f'{TE}\nfp8 = "mxfp8"', "ep=8,etp=32", "expert_ffn_hidden_size / etp = 24 is not a mul"),
    ],
)
def test_a_layout_that_is_refused_is_not_evaluated(
    tmp_path: Path, more: str, layout: str, message: str
) -> None:
    path = tmp_path / "a.toml"
    path.write_text(TEXT.format(preset="qwen3-30b-a3b", more=more))
    gpu = "b200" if "mxfp8" in more else "h100"
    planner = Planner(read_job(str(path), JobOptions(gpus=1024, gpu=gpu, global_batch_size=4096)))
    with pytest.raises(ParallelError, match=message):
        answer(planner, layout, 1)
    best = planner.predict(planner.workload(parse_layout("ep=8")))
    verdict = why(planner, parse_layout(layout), best)
    assert verdict.reason == "illegal"
