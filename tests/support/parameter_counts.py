"""What a rank builds, counted. The engine is imported in ranks only: its import warns."""

from typing import Any

from moe.config.model import ModelConfig
from parallel.layout.layout import Layout
from parallel.precision.recipes import Precision


def count_parameters(layout: Layout, models: dict[str, ModelConfig]) -> dict[str, int]:
    """Build models on this rank; returns how many parameters each has here."""
    from moe.model.build import build_model
    from parallel.engine.start import start_engine, stop_engine

    start_engine(layout, seed=0)
    counts = {}
    for name, model in models.items():
        chunks = build_model(model, layout, Precision(), seed=0)
        parameters = {id(p): p.numel() for chunk in chunks for p in chunk.parameters()}
        counts[name] = sum(parameters.values())
    stop_engine()
    return counts


def engine_chunk_layers(layout: Layout, model: ModelConfig) -> list[list[range]]:
    """Ask megatron-core which layers each chunk of each stage holds."""
    from megatron.core.transformer.transformer_block import get_num_layers_to_build
    from megatron.core.transformer.transformer_layer import get_transformer_layer_offset

    from moe.model.mcore_config import transformer_config

    config = transformer_config(model, layout, Precision())

    def held(stage: int, chunk: int) -> range:
        place: dict[str, Any] = {"pp_rank": stage, "vp_stage": chunk if layout.vpp > 1 else None}
        first = get_transformer_layer_offset(config, **place)
        return range(first, first + get_num_layers_to_build(config, **place))

    return [[held(stage, chunk) for chunk in range(layout.vpp)] for stage in range(layout.pp)]
