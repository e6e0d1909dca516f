"""One model in both kernel sets, with equal weights, on equal tokens."""

import os
from collections.abc import Iterable
from typing import Any, NamedTuple
from unittest.mock import patch

from tests.support.architecture_options import CONFIGS
from tests.support.layout_equivalence import assemble, shards
from tests.support.transformer_engine.locate import has_extension

SEQ_LEN, ROWS = 32, 2
DOCUMENT_ENDS = (0, 5, 6, 22, 28, 32)
"""The last of these documents is padding."""


class Compared(NamedTuple):
    """How far kernel set `te` is from `torch`."""

    losses: list[float]
    """Of each token, in nats."""
    logits: float
    """The largest difference."""
    gradients: dict[str, float]
    """Per weight: norm of the difference over the gradient's norm, or over 1e-3 where less."""


def compare(
    names: Iterable[str], dtype: str, *, documents: bool = False, fused: bool = True
) -> dict[str, Compared]:
    """Compare these architecture options.

    Args:
        names: Of the options.
        dtype: Of weights and activations.
        documents: Several lie in one row, with padding behind them.
        fused: Let 16 bits take fused attention, else Transformer Engine's own unfused one.
    """
    from parallel.engine.start import start_engine, stop_engine
    from parallel.layout.layout import Layout

    layout = Layout(device=device())
    start_engine(layout, seed=0)
    # Read while a model runs, but building one insists on its own value.
    attention = patch.dict(os.environ, {} if fused else {"NVTE_FUSED_ATTN": "0"})
    found = {name: _compare(name, layout, dtype, documents, attention) for name in names}
    stop_engine()
    return found


def device() -> Any:
    """Return where these tests compute."""
    return "cuda" if has_extension() else "cpu"


def _compare(name: str, layout: Any, dtype: str, documents: bool, attention: Any) -> Compared:
    import torch

    from moe.model.build import build_model
    from parallel.precision.recipes import Precision
    from tests.support.transformer_engine.weights import copy_weights, gradients, torch_weight

    config = CONFIGS[name]
    if config.moe is not None and dtype == "bf16":
        # A rounding would send tokens to other experts, and hide every other difference.
        config = _with_moe(config, forced_balance=True)
    precisions = [Precision(kernels=kernels, dtype=dtype) for kernels in ("torch", "te")]
    ours, theirs = (build_model(config, layout, one, seed=0)[0] for one in precisions)
    _randomize(ours)
    copy_weights(ours, theirs)
    cu_seqlens = torch.tensor(DOCUMENT_ENDS, dtype=torch.int32) if documents else None
    losses, logits = _run(ours, config, cu_seqlens, precisions[0])
    with attention:
        te_losses, te_logits = _run(theirs, config, cu_seqlens, precisions[1])
    expected = gradients(ours)
    return Compared(
        losses=(te_losses - losses).flatten().tolist(),
        logits=float((te_logits - logits).abs().max()),
        gradients={
            key: _difference(torch_weight(key, expected, gradient.shape), gradient)
            for key, gradient in gradients(theirs).items()
        },
    )


def _with_moe(config: Any, **options: Any) -> Any:
    return config.model_copy(update={"moe": config.moe.model_copy(update=options)})


def _run(model: Any, config: Any, cu_seqlens: Any, precision: Any) -> tuple[Any, Any]:
    """Return losses and logits, each [B, S, ...], in FP32; leaves the losses' gradients."""
    import torch

    from moe.model.document_masks import document_inputs

    shape = (ROWS if cu_seqlens is None else 1, SEQ_LEN)
    chance = torch.Generator().manual_seed(1)
    tokens, labels = torch.randint(0, config.vocab_size, (2, *shape), generator=chance).to(device())
    positions = torch.arange(shape[1], device=device()).expand(shape)
    inputs = document_inputs(cu_seqlens, precision)
    with torch.no_grad():
        logits = model.eval()(tokens, positions, **inputs).float()
    mask = torch.ones(shape, device=device())
    if cu_seqlens is not None:
        # As of conversations: a document's last label is its own, and counts.
        mask[0, DOCUMENT_ENDS[-2] :] = 0.0
        inputs["padding_mask"] = mask == 0
    losses = model.train()(tokens, positions, **inputs, labels=labels, loss_mask=mask) * mask
    losses.sum().backward()
    return losses.detach().float(), logits


def _randomize(model: Any) -> None:
    """Fill all weights and balancing biases, so that none has its first value."""
    import torch

    from tests.support.transformer_engine.weights import weights_of

    chance = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, weight in weights_of(model).items():
            noise = torch.randn(weight.shape, generator=chance).to(weight.device)
            weight.copy_(1 + 0.15 * noise if "norm" in name else 0.2 * noise)


def _difference(one: Any, other: Any) -> float:
    return float((other - one).float().norm() / one.float().norm().clamp(min=1e-3))


def initial_differences(names: Iterable[str]) -> dict[str, list[str]]:
    """Return the tensors of checkpoints that do not start alike in both kernel sets, by option."""
    from types import SimpleNamespace

    from moe.model.build import build_model
    from parallel.engine.start import start_engine, stop_engine
    from parallel.layout.layout import Layout
    from parallel.precision.recipes import Precision

    layout = Layout(device=device())
    start_engine(layout, seed=0)
    found = {}
    for name in names:
        ours, theirs = (
            assemble(
                [
                    shards(
                        [
                            SimpleNamespace(module=chunk)
                            for chunk in build_model(
                                CONFIGS[name], layout, Precision(kernels=kernels), seed=3
                            )
                        ]
                    )
                ]
            )
            for kernels in ("torch", "te")
        )
        equal = {key for key in ours.keys() & theirs.keys() if (ours[key] == theirs[key]).all()}
        found[name] = sorted((ours.keys() | theirs.keys()) - equal)
    stop_engine()
    return found
