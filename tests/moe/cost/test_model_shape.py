"""The shape of a model: the same parameters as the ledger, and memory as in published runs."""

from typing import Any

import pytest

from moe.config.experiment import load_model, make_experiment
from moe.config.model import ModelConfig
from moe.config.presets.catalog import preset_names
from moe.cost.ledger import ledger
from moe.cost.model_shape import batch_of, shape_of
from parallel.layout.layout import Layout
from parallel.layout.model_shape import BatchSize
from parallel.layout.placement import place
from parallel.layout.validation import layout_faults
from parallel.planner.memory import RankMemory, peak_memory
from parallel.planner.rank_parameters import rank_parameters
from parallel.planner.software import MEGATRON
from parallel.planner.workload import Workload
from parallel.precision.recipes import Precision

TE_BF16 = Precision(kernels="te", dtype="bf16")


@pytest.mark.parametrize("preset", preset_names())
def test_weights_add_up_to_the_ledger(preset: str) -> None:
    model = load_model(preset)
    unsharded = rank_parameters(shape_of(model), Layout(), TE_BF16, 0)
    assert unsharded.total == ledger(model, 1).total_parameters


def test_biases_of_row_parallel_layers_are_replicated() -> None:
    model = load_model("gpt-oss-20b")
    plain = model.model_copy(update={"linear_bias": False, "attention_sinks": False})
    one, two = (
        rank_parameters(shape_of(model), Layout(tp=n, ep=1), TE_BF16, 0).dense
        - rank_parameters(shape_of(plain), Layout(tp=n, ep=1), TE_BF16, 0).dense
        for n in (1, 2)
    )
    sharded_per_layer = (64 + 2 * 8) * 64 + 64
    assert one - two == 24 * sharded_per_layer // 2


def published(
    model: ModelConfig,
    num_ranks: int,
    batch: BatchSize,
    layout: dict[str, Any],
) -> RankMemory:
    placement = place(Layout(**layout), num_ranks)
    shape = shape_of(model)
    assert layout_faults(placement.layout, shape, batch, num_ranks) == []
    work = Workload(shape=shape, placement=placement, batch=batch, precision=TE_BF16)
    return peak_memory(work, software=MEGATRON)


def test_deepseek_v3_on_256_gpus() -> None:
    """Weights and gradients 36.4, optimizer 32.1, activations 131.0, together 199.5 GB.

    arXiv:2603.07685, table 3. Its uneven stages are approximated: the prediction layer is
    counted as a 62nd layer, and both ends as one layer each.
    """
    model = load_model("deepseek-v3").model_copy(update={"num_layers": 62, "mtp_layers": 0})
    batch = BatchSize(seq_len=4096, micro_batch_size=1, global_batch_size=8192)
    layout = {"pp": 4, "vpp": 4, "ep": 64, "ends_count_as_layers": True}
    found = published(model, 256, batch, layout)
    assert found.total_bytes / 1e9 == pytest.approx(199.5, rel=0.03)
    assert found.activation_bytes / 1e9 == pytest.approx(131.0, rel=0.03)
    static = found.parameter_bytes + found.gradient_bytes
    assert static / 1e9 == pytest.approx(36.4, rel=0.1)
    assert found.optimizer_bytes / 1e9 == pytest.approx(32.1, rel=0.1)


def test_published_layouts_are_possible() -> None:
    """Layouts of shared/reference/published_speed_h100.csv that megatron-core ran."""
    cases: list[tuple[str, int, dict[str, int | bool]]] = [
        ("LLAMA3.1_405B", 1024, {"tp": 8, "pp": 8, "vpp": 8, "cp": 2}),
        ("LLAMA3_70B", 64, {"tp": 4, "pp": 8, "vpp": 5}),
        ("Qwen3_235B_a22B", 256, {"tp": 2, "pp": 8, "vpp": 4, "ep": 32}),
        ("Mixtral-8x22B", 1024, {"tp": 8, "pp": 8, "cp": 8, "ep": 8}),
    ]
    for name, num_ranks, layout in cases:
        model = load_model(name)
        ends = model.num_layers % (layout["pp"] * layout.get("vpp", 1)) != 0
        batch = BatchSize(seq_len=8192, micro_batch_size=1, global_batch_size=1536)
        laid = Layout(**layout, ends_count_as_layers=ends)
        assert layout_faults(laid, shape_of(model), batch, num_ranks) == [], name


def test_batch_is_the_train_sections() -> None:
    train = {"steps": 1, "seq_len": 64, "global_batch_size": 6, "micro_batch_size": 2}
    experiment = make_experiment({"model": {"preset": "tiny"}, "train": train})
    assert batch_of(experiment.train) == BatchSize(
        seq_len=64, micro_batch_size=2, global_batch_size=6
    )
