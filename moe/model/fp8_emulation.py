"""FP8 emulated: inputs of matrix products rounded to E4M3 or E5M2, products in FP32.

`precision.fp8 = "emulated"` gives the losses of an FP8 recipe without an FP8 card, slowly. Formats:
arXiv:2209.05433. Scaling, as Transformer Engine does it:

- `current`: one scale a tensor, largest / amax.
- `delayed`: the same with the amax of the step before (megatron-core's history of one).
- `blockwise` (DeepSeek-V3, arXiv:2412.19437, section 3.3): one scale for 128 numbers along the
  product's inner dimension, for 128 x 128 of a weight; powers of two.
- `mxfp8` (OCP Microscaling 1.0; arXiv:2310.10537): one scale for 32 numbers, a power of two whose
  exponent is rounded up.

Embedding, LM head, router, norms and attention's core are not touched; an expert's product has
scales of its own. Tensor-parallel ranks scale their own parts.

Shapes: T tokens, K inner and N outer size of a layer.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from megatron.core.tensor_parallel.layers import ColumnParallelLinear, RowParallelLinear
from megatron.core.tensor_parallel.mappings import (
    copy_to_tensor_model_parallel_region,
    gather_from_sequence_parallel_region,
)
from torch import Tensor

from moe.model.experts import GroupedExperts
from parallel.precision.recipes import Fp8Scaling, Precision

FORMATS = {"e4m3": torch.float8_e4m3fn, "e5m2": torch.float8_e5m2}
LARGEST = {"e4m3": 448.0, "e5m2": 57344.0}
BLOCK = {"blockwise": 128, "mxfp8": 32}
ROLES = ("input", "weight", "gradient")
Place = tuple[int, int]
"""A product: its layer, and its name in the recipe's list."""


def rounded(x: Tensor, number_format: str) -> Tensor:
    """Return FP32 numbers rounded to the nearest of an FP8 format, ties to even, saturating."""
    largest = LARGEST[number_format]
    return x.clamp(-largest, largest).to(FORMATS[number_format]).float()


def quantised(
    x: Tensor,
    number_format: str,
    scaling: Fp8Scaling,
    *,
    dim: int,
    is_weight: bool = False,
    amax: Tensor | None = None,
) -> Tensor:
    """Return a matrix as an FP8 product sees it, in FP32.

    Args:
        x: The matrix [rows, columns].
        number_format: `e4m3` or `e5m2`.
        scaling: How scales are found.
        dim: The product's inner dimension; blocks lie along it.
        is_weight: Blocks of `blockwise` are square.
        amax: `delayed`: the largest magnitude of the step before.
    """
    x = x.float()
    if scaling in ("current", "delayed"):
        scale = _scale(x.abs().amax() if amax is None else amax, LARGEST[number_format])
        return rounded(x * scale, number_format) / scale
    size = BLOCK[scaling]
    rows = size if dim == 0 or (is_weight and scaling == "blockwise") else 1
    columns = size if dim == 1 or (is_weight and scaling == "blockwise") else 1
    amaxes = _block_amaxes(x, rows, columns)
    largest = LARGEST[number_format]
    if scaling == "mxfp8":
        scales = torch.exp2(-torch.ceil(torch.log2(amaxes / largest)))
    else:
        scales = torch.exp2(torch.floor(torch.log2(largest / amaxes)))
    scales = torch.where(amaxes > 0, scales, 1.0)
    scales = scales.repeat_interleave(rows, 0).repeat_interleave(columns, 1)
    scales = scales[: x.shape[0], : x.shape[1]]
    return rounded(x * scales, number_format) / scales


def _scale(amax: Tensor, largest: float) -> Tensor:
    return torch.where(amax > 0, largest / amax, 1.0)


def _block_amaxes(x: Tensor, rows: int, columns: int) -> Tensor:
    """Return the largest magnitude of every block; blocks at the end may be smaller."""
    padding = (0, -x.shape[1] % columns, 0, -x.shape[0] % rows)
    whole = torch.nn.functional.pad(x.abs(), padding)
    blocks = whole.view(whole.shape[0] // rows, rows, whole.shape[1] // columns, columns)
    return blocks.amax(dim=(1, 3))


class Recipe:
    """Formats and scaling of one model, and with `delayed` the amaxes of its products."""

    def __init__(self, precision: Precision, num_layers: int, names: Sequence[str]) -> None:
        assert precision.scaling is not None
        self.scaling: Fp8Scaling = precision.scaling
        backward = "e5m2" if precision.formats == "hybrid" else "e4m3"
        self.formats = {"input": "e4m3", "weight": "e4m3", "gradient": backward}
        self.names = list(names)
        self.num_products = 0
        """Products of this rank that are quantised."""
        shape = (num_layers, len(self.names), len(ROLES))
        self.last = torch.zeros(shape)
        """Largest magnitudes in the step before; 0: not known, then the scale is 1."""
        self.now = torch.zeros(shape)

    def observe(self, x: Tensor, role: str, place: Place) -> None:
        """Let an operand of the product at (layer, name) count in the next step's scale."""
        if self.scaling == "delayed":
            where = (*place, ROLES.index(role))
            self.now[where] = torch.maximum(self.now[where], x.detach().abs().amax().cpu())

    def quantise(self, x: Tensor, role: str, dim: int, place: Place) -> Tensor:
        """Return an operand as FP8 sees it."""
        amax = None
        if self.scaling == "delayed":
            amax = self.last[(*place, ROLES.index(role))].to(x.device)
        return quantised(
            x, self.formats[role], self.scaling, dim=dim, is_weight=role == "weight", amax=amax
        )

    def end_step(self) -> None:
        """Make this step's amaxes, of all ranks, the next one's; a collective call."""
        if self.scaling == "delayed":
            dist.all_reduce(self.now, dist.ReduceOp.MAX)
            self.last, self.now = self.now, torch.zeros_like(self.now)

    def forget_step(self) -> None:
        """Drop what this step has seen: its update is not made."""
        self.now.zero_()

    def state(self) -> list[Any]:
        """Return what the next step depends on, as JSON values."""
        values: list[Any] = self.last.tolist()
        return values

    def load(self, state: list[Any]) -> None:
        """Go on from a state."""
        self.last = torch.tensor(state)


class _Product(torch.autograd.Function):
    """X [T, K] times W [N, K] transposed: all three products on quantised inputs."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, recipe: Recipe, place: Place) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.recipe, ctx.place = recipe, place
        x_tk = recipe.quantise(x, "input", 1, place)
        weight_nk = recipe.quantise(weight, "weight", 1, place)
        return (x_tk @ weight_nk.T).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (x, weight), recipe, place = ctx.saved_tensors, ctx.recipe, ctx.place
        slope = gradients[0]
        recipe.observe(slope, "gradient", place)
        slope_tn = recipe.quantise(slope, "gradient", 1, place)
        by_x = slope_tn @ recipe.quantise(weight, "weight", 0, place)
        slope_tn = recipe.quantise(slope, "gradient", 0, place)
        by_weight = slope_tn.T @ recipe.quantise(x, "input", 0, place)
        return by_x.to(x.dtype), by_weight.to(weight.dtype), None, None


def product(x: Tensor, weight: Tensor, recipe: Recipe, place: Place) -> Tensor:
    """Return X [..., K] times W [N, K] transposed, as FP8 computes it."""
    flat = x.reshape(-1, x.shape[-1])
    if not flat.shape[0]:
        return x @ weight.T
    if torch.is_grad_enabled():
        recipe.observe(flat, "input", place)
        recipe.observe(weight, "weight", place)
    result: Tensor = _Product.apply(flat, weight, recipe, place)  # type: ignore[no-untyped-call]
    return result.view(*x.shape[:-1], weight.shape[0])


def emulate_fp8(chunks: Sequence[Any], precision: Precision) -> Recipe:
    """Let the chunks' layers multiply as FP8 does, but for the first and last ones named."""
    config = chunks[0].config
    recipe = Recipe(precision, config.num_layers, _names(chunks))
    kept = range(precision.fp8_keep_first, config.num_layers - precision.fp8_keep_last)
    for layer in (layer for chunk in chunks for layer in chunk.decoder.layers):
        if layer.layer_number - 1 in kept:
            for name, module in _products(layer).items():
                recipe.num_products += 1
                _replace(module, name, recipe, (layer.layer_number - 1, recipe.names.index(name)))
    return recipe


def _products(layer: Any) -> dict[str, Any]:
    """Return a layer's products by name, with the module of each; grouped experts have two."""
    found: dict[str, Any] = {}
    for name, module in layer.named_modules():
        if isinstance(module, GroupedExperts):
            found |= {f"{name}.{part}": module for part in module.products}
        elif isinstance(module, ColumnParallelLinear | RowParallelLinear):
            found[name] = module
    return found


def _names(chunks: Sequence[Any]) -> list[str]:
    """Return the names of all layers' products, the same on every rank."""
    layers = [layer for chunk in chunks for layer in chunk.decoder.layers]
    mine = sorted({name for layer in layers for name in _products(layer)})
    ranks: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(ranks, mine)
    return sorted({name for names in ranks for name in names})


def _replace(module: Any, name: str, recipe: Recipe, place: Place) -> None:
    if isinstance(module, GroupedExperts):
        module.products[name.rpartition(".")[2]] = partial(_grouped_product, recipe, place)
        return

    def forward_impl(
        input: Tensor,  # noqa: A002 - the engine's name
        weight: Tensor,
        bias: Tensor | None,
        allreduce_dgrad: bool,
        sequence_parallel: bool,
        tp_group: Any,
        **_: Any,
    ) -> Tensor:
        if sequence_parallel:
            input = gather_from_sequence_parallel_region(input, group=tp_group)  # noqa: A001
        elif allreduce_dgrad:
            input = copy_to_tensor_model_parallel_region(input, group=tp_group)  # noqa: A001
        output = product(input, weight, recipe, place)
        return output if bias is None else output + bias

    module._forward_impl = forward_impl


def _grouped_product(
    recipe: Recipe, place: Place, tokens_tk: Tensor, weights_enk: Tensor, ends_e: Tensor
) -> Tensor:
    """Each expert's tokens times its weight, one after the other."""
    sizes = torch.diff(ends_e, prepend=ends_e.new_zeros(1)).tolist()
    parts = torch.split(tokens_tk, sizes)
    pairs = zip(parts, weights_enk.unbind(), strict=True)
    return torch.cat([product(x, weight, recipe, place) for x, weight in pairs])
