"""Models and runs in Transformer Engine's FP8 recipes, beside ours that emulate them."""

from typing import Any, NamedTuple

from moe.config.experiment import Experiment
from moe.config.model import ModelConfig
from parallel.precision.fp8_support import MIN_CAPABILITY
from parallel.precision.recipes import Fp8Scaling
from tests.support.architecture_options import SHARED, sparse
from tests.support.needs import lack
from tests.support.transformer_engine.comparison import device
from tests.support.transformer_engine.locate import has_extension
from tests.support.transformer_engine.training import Run, train

WIDTHS = {"hidden_size": 64, "head_dim": 16, "ffn_hidden_size": 128}
EXPERTS = {"num_experts": 4, "expert_ffn_hidden_size": 64, "shared_expert_ffn_hidden_size": 64}
SPARSE = ModelConfig.model_validate(sparse(first_dense_layers=1, **(SHARED | EXPERTS)) | WIDTHS)
DENSE = SPARSE.model_copy(update={"moe": None})
"""All their sizes are multiples of 32 on either of two ranks, as FP8 wants them."""
STEPS = 2


class Recipe(NamedTuple):
    """One step of a model in an FP8 recipe: how far it is from others, with equal weights."""

    losses_to_emulated: float
    """The largest difference of a token's loss, in nats."""
    losses_to_fp32: float
    gradients_to_emulated: float
    """The largest of all weights: norm of the difference over the gradient's norm."""
    gradients_to_fp32: float


def need_card(scaling: Fp8Scaling) -> None:
    """Skip a test that runs on a GPU that does not have the recipe."""
    if has_extension():
        import torch

        if torch.cuda.get_device_capability() < MIN_CAPABILITY[scaling]:
            lack("gpus", f"one of compute capability {MIN_CAPABILITY[scaling]}")


def compare_recipe(model: ModelConfig, scaling: Fp8Scaling) -> Recipe:
    """Compare the second step in FP32: delayed scaling takes its scales from the first."""
    from parallel.engine.start import stop_engine

    plain, ours, theirs, emulation = _build_three(model, scaling)
    for _ in range(STEPS):
        theirs.set_is_first_microbatch()
        found = [_step(one, model) for one in (plain, ours, theirs)]
        emulation.end_step()
    stop_engine()
    return _distances(*found)


def compare_scales(
    model: ModelConfig, ep: int
) -> dict[str, tuple[list[list[float]], list[list[float]]]]:
    """Return the forward and backward scales of every product, ours and the recipe's, by name.

    Of the last layer, [expert, operand], after steps in which some experts have no tokens.
    """
    import torch

    from moe.model.fp8.emulation import ROLES, linear_modules
    from moe.model.fp8.quantization import LARGEST, scale_of
    from parallel.engine.start import stop_engine

    _, ours, theirs, emulation = _build_three(model, "delayed", ep)
    for only_token in (None, None, 5):  # equal tokens take equal experts: the others have none
        theirs.set_is_first_microbatch()
        for one in (ours, theirs):
            _step(one, model, only_token)
        emulation.end_step()
    largest = torch.tensor([LARGEST[emulation.formats[role]] for role in ROLES])
    layer, first = model.num_layers - 1, emulation.experts.rank * emulation.experts.per_rank
    found = {}
    for own_name in linear_modules(ours.decoder.layers[layer]):
        name = own_name.replace(".gate_up", ".linear_fc1").replace(".down", ".linear_fc2")
        module = theirs.decoder.layers[layer].get_submodule(name)
        experts = getattr(module, "num_gemms", 1)
        forward, backward = (
            module.fp8_meta[key].scale.cpu().view(experts, -1)
            for key in ("scaling_fwd", "scaling_bwd")
        )
        at = emulation.names.index(own_name)
        amaxes = emulation.previous_amax[layer, at, first : first + experts]
        wanted = torch.cat([forward[:, :2], backward[:, :1]], dim=1)
        found[name] = (scale_of(amaxes, largest).tolist(), wanted.tolist())
    stop_engine()
    return found


def compare_experts(tokens_per_expert: list[list[int]]) -> list[list[float]]:
    """Multiply steps of tokens by experts' weights, ours and Transformer Engine's, both delayed.

    Returns, for each step, the largest differences of output, input's and weights' gradients.
    """
    import torch
    import transformer_engine.pytorch as te
    from megatron.core.fp8_utils import get_fp8_recipe

    from moe.model.fp8.emulation import (
        ExpertShare,
        Fp8Emulation,
        MatmulId,
        grouped_fp8_linear,
        observe_experts,
    )
    from moe.model.mcore_config import transformer_config
    from parallel.engine.start import start_engine, stop_engine
    from parallel.layout.layout import Layout
    from parallel.precision.recipes import Precision

    pretend_card_of("delayed")
    layout = Layout(device=device())
    start_engine(layout, seed=0)
    native = Precision.model_construct(kernels="te", dtype="fp32", fp8="delayed")
    recipe = get_fp8_recipe(transformer_config(SPARSE, layout, native))
    experts, outer, inner = len(tokens_per_expert[0]), 32, 64
    theirs = te.GroupedLinear(experts, inner, outer, bias=False, params_dtype=torch.float32)
    weights = [getattr(theirs, f"weight{i}") for i in range(experts)]
    emulated = Precision(fp8="emulated", fp8_scaling="delayed")
    emulation = Fp8Emulation(emulated, 1, ["only"], ExpertShare(experts))
    chance, found = torch.Generator().manual_seed(7), []
    for counts in tokens_per_expert:
        x = torch.randn(sum(counts), inner, generator=chance).exp().to(device())
        grad = torch.randn(sum(counts), outer, generator=chance).to(device())
        results = []
        for is_ours in (True, False):
            own = x.clone().requires_grad_()
            theirs.zero_grad()
            if is_ours:
                stacked = torch.stack(weights)
                observe_experts(emulation, MatmulId(0, 0), stacked)
                ends = torch.tensor(counts).cumsum(0)
                output = grouped_fp8_linear(emulation, MatmulId(0, 0), own, stacked, ends)
            else:
                with te.autocast(enabled=True, recipe=recipe):
                    output = theirs(own, counts)
            output.backward(grad)
            gradients = [w.grad for w in weights]
            results.append([output.detach(), own.grad, torch.stack(gradients).clone()])
        emulation.end_step()
        found.append([float((a - b).abs().max()) for a, b in zip(*results, strict=True)])
    stop_engine()
    return found


def _build_three(model: ModelConfig, scaling: Fp8Scaling, ep: int = 1) -> tuple[Any, ...]:
    """Return models without FP8, with ours and with the recipe, of equal weights; our emulation."""
    from moe.model.build import build_model
    from moe.model.fp8.emulation import emulate_fp8
    from parallel.engine.start import start_engine
    from parallel.layout.layout import Layout
    from parallel.precision.recipes import Precision

    pretend_card_of(scaling)
    layout = Layout(device=device(), ep=ep)
    start_engine(layout, seed=0)
    emulated = Precision(fp8="emulated", fp8_scaling=scaling)
    # Our rule wants BF16 beside FP8; in FP32 nothing is rounded but what the recipe rounds.
    native = Precision.model_construct(kernels="te", dtype="fp32", fp8=scaling)
    plain, ours, theirs = (
        build_model(model, layout, precision, seed=0)[0]
        for precision in (Precision(), emulated, native)
    )
    return plain, ours, theirs, emulate_fp8([ours], emulated)


def train_recipe(experiment: Experiment) -> Run:
    """Train in a recipe, on a card that has it."""
    if experiment.precision.scaling is not None:
        pretend_card_of(experiment.precision.scaling)
    return train(experiment)


def round_masters(scaling: Fp8Scaling) -> float:
    """Round an FP8 parameter from its master; the largest difference from rounding it at once."""
    import torch
    import transformer_engine.pytorch as te
    from megatron.core.fp8_utils import get_fp8_recipe
    from transformer_engine.pytorch.tensor.utils import quantize_master_weights

    from moe.model.mcore_config import transformer_config
    from parallel.engine.start import start_engine, stop_engine
    from parallel.layout.layout import Layout
    from parallel.precision.recipes import Precision

    pretend_card_of(scaling)
    layout = Layout(device=device())
    start_engine(layout, seed=0)
    precision = Precision(kernels="te", dtype="bf16", fp8=scaling)
    recipe = get_fp8_recipe(transformer_config(DENSE, layout, precision))
    with te.quantized_model_init(enabled=True, recipe=recipe):
        weight = te.Linear(160, 288, bias=False, params_dtype=torch.bfloat16).weight
    master = torch.randn(weight.numel(), device=weight.device)
    # As where parameters are kept in BF16, the master is rounded to BF16 first.
    once = weight._get_quantizer()(master.view(weight.shape).bfloat16())
    expected = once.dequantize().float()
    quantize_master_weights([weight], [master], [0], torch.distributed.group.WORLD)
    stop_engine()
    return float((weight.dequantize().float() - expected).abs().max())


def pretend_card_of(scaling: Fp8Scaling) -> None:
    """Be a card that has the recipe from now on, where the reference computes."""
    from tests.support.transformer_engine.install import HOPPER, pretend_card

    if not has_extension():
        pretend_card(max(HOPPER, MIN_CAPABILITY[scaling]))


def _step(
    model: Any, config: ModelConfig, only_token: int | None = None
) -> tuple[Any, dict[str, Any]]:
    """Return each token's loss, and the gradients."""
    import torch

    from tests.support.transformer_engine.weights import gradients

    chance = torch.Generator().manual_seed(3)
    tokens, labels = torch.randint(0, config.vocab_size, (2, 2, 32), generator=chance).to(device())
    if only_token is not None:
        tokens.fill_(only_token)
    positions = torch.arange(32, device=device()).expand(2, -1)
    model.zero_grad()
    losses = model(tokens, positions, None, labels=labels)
    losses.sum().backward()
    return losses.detach(), gradients(model)


def _distances(plain: Any, ours: Any, theirs: Any) -> Recipe:
    from tests.support.transformer_engine.weights import torch_weight

    def losses(other: Any) -> float:
        return float((theirs[0] - other[0]).abs().max())

    def largest(other: Any) -> float:
        pairs = ((torch_weight(key, other[1], g.shape), g) for key, g in theirs[1].items())
        return max(float((a - b).norm() / a.norm().clamp(min=1e-3)) for a, b in pairs)

    return Recipe(losses(ours), losses(plain), largest(ours), largest(plain))
