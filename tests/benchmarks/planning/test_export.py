"""Layouts in the words of Megatron-LM and Megatron-Bridge (names checked against their sources)."""

import ast

from benchmarks.planning.export import bridge_settings, megatron_arguments
from benchmarks.planning.layout_text import parse_layout
from parallel.planner.workload import Workload
from tests.benchmarks.planning.jobs import planner


def work(text: str, model: str = "mixtral-8x7b", gpus: int = 64, **options: object) -> Workload:
    return planner(model, gpus, **options).workload(parse_layout(text))


def test_arguments_of_megatron() -> None:
    """Megatron-LM's own parser (core_v0.19.0) took these and read back the same values."""
    text = megatron_arguments(
        work(
            "tp=2,pp=4,vpp=2,ep=8,mbs=2,recompute=layernorm+moe_act,dispatcher=deepep,"
            "overlap_experts=true",
            precision="fp8",
        )
    )
    assert text.replace(" \\\n", " ") == (
        "--seq-length 4096 --micro-batch-size 2 --global-batch-size 1024"
        " --tensor-model-parallel-size 2 --sequence-parallel --pipeline-model-parallel-size 4"
        " --context-parallel-size 1 --num-virtual-stages-per-pipeline-rank 2"
        " --expert-model-parallel-size 8 --expert-tensor-parallel-size 1"
        " --moe-token-dispatcher-type flex --moe-flex-dispatcher-backend deepep"
        " --recompute-granularity selective --recompute-modules layernorm moe_act"
        " --use-distributed-optimizer --overlap-grad-reduce --overlap-param-gather"
        " --overlap-moe-expert-parallel-comm --bf16 --transformer-impl transformer_engine"
        " --fp8-format hybrid --fp8-recipe tensorwise"
    )


def test_uneven_stages_and_rings_of_megatron() -> None:
    text = megatron_arguments(
        work("pp=4,cp=2,stage_layers=9+8+8+7,recompute=full,ep=8,context_exchange=a2a")
    )
    assert "--pipeline-model-parallel-layout 'Et*9|t*8|t*8|t*7L'" in text
    assert "--cp-comm-type a2a" in text
    assert "--recompute-granularity full" in text
    assert "--recompute-method uniform" in text
    assert "virtual" not in text
    ends = megatron_arguments(work("pp=2,ends_count_as_layers=true", "llama3-8b", 16))
    assert "--account-for-embedding-in-pipeline-split" in ends
    assert "--account-for-loss-in-pipeline-split" in ends
    assert "expert" not in ends


def test_settings_of_bridge_are_python_that_sets_the_layout() -> None:
    text = bridge_settings(work("tp=2,pp=4,vpp=2,ep=8,mbs=2,recompute=full", precision="mxfp8"))
    tree = ast.parse(text)
    values = {
        ast.unparse(node.targets[0]): ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and not isinstance(node.value, ast.Call)
    }
    assert values["cfg.model.tensor_model_parallel_size"] == 2
    assert values["cfg.model.sequence_parallel"] is True
    assert values["cfg.model.virtual_pipeline_model_parallel_size"] == 2
    assert values["cfg.model.expert_model_parallel_size"] == 8
    assert values["cfg.model.recompute_num_layers"] == 1
    assert values["cfg.train.micro_batch_size"] == 2
    assert values["cfg.mixed_precision"] == "bf16_with_mxfp8_mixed"
    assert "overlap_moe_expert_parallel_comm=False" in text
