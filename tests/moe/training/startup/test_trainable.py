"""`train.trainable` names the same parameters in all kernel sets."""

from typing import Any

import pytest

from tests.support.architecture_options import CONFIGS
from tests.support.transformer_engine.comparison import device
from tests.support.transformer_engine.ranks import run_te_ranks

pytestmark = [pytest.mark.engine, pytest.mark.needs("transformer_engine")]
OPTIONS = ("tied", "gpt_oss", "deepseek_v3")
PATTERNS = (
    "*.router.*", "*.mlp.experts.*", "*.self_attention.*", "*.linear_fc2.*", "*layer*norm*",
    "embedding.word_embeddings.weight", "decoder.layers.1.*",
)  # fmt: skip


def _trainable() -> dict[tuple[str, str], list[set[str]]]:
    """Return names in checkpoints of what learns, by option and pattern, of both kernel sets."""
    from moe.model.build import build_model
    from moe.training.startup.initial_weights import freeze
    from parallel.engine.start import start_engine, stop_engine
    from parallel.layout.layout import Layout
    from parallel.precision.recipes import Precision

    layout = Layout(device=device())
    start_engine(layout, seed=0)
    found: dict[tuple[str, str], list[set[str]]] = {}
    for name in OPTIONS:
        for kernels in ("torch", "te"):
            chunks = build_model(CONFIGS[name], layout, Precision(kernels=kernels), seed=None)
            for pattern in PATTERNS:
                freeze((pattern,), chunks)
                found.setdefault((name, pattern), []).append(_learning(chunks[0]))
    stop_engine()
    return found


def _learning(chunk: Any) -> set[str]:
    return {
        tensor.key
        for tensor in chunk.sharded_state_dict().values()
        if getattr(getattr(tensor, "data", None), "requires_grad", False)
    }


def test_patterns_name_the_same_parameters_in_both_kernel_sets() -> None:
    found = run_te_ranks(1, _trainable)[0]
    assert all(found[case][0] for case in found)
    assert {case: ours ^ theirs for case, (ours, theirs) in found.items() if ours != theirs} == {}
