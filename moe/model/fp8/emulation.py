"""FP8 training emulated: matmul inputs quantized to E4M3 or E5M2, products computed in FP32.

`precision.fp8 = "emulated"` gives the losses of an FP8 recipe without an FP8 card, slowly. The
recipes are those of quantization.py. Embedding, LM head, router, norms and the core of
attention are not quantized; each expert's matmul has scales of its own. Tensor-parallel ranks scale
their own shards, with `delayed` all alike.

`delayed` updates scales once a step; Transformer Engine does after each micro-batch, and the amaxes
of an evaluation are among those of its next update.

Shapes: T tokens, K inner and N outer size of a layer.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from megatron.core.tensor_parallel.layers import ColumnParallelLinear, RowParallelLinear
from megatron.core.tensor_parallel.mappings import (
    copy_to_tensor_model_parallel_region,
    gather_from_sequence_parallel_region,
)
from torch import Tensor

from moe.errors import ConfigError
from moe.model.experts import GroupedExperts
from moe.model.fp8.quantization import quantize_dequantize
from parallel.engine.collectives import all_gather_objects
from parallel.precision.recipes import Fp8Scaling, Precision

ROLES = ("input", "weight", "gradient")


class MatmulId(NamedTuple):
    """One linear layer of the model."""

    layer: int
    """Its Transformer layer, from 0."""
    name_index: int
    """The index of its name in `Fp8Emulation.names`."""
    expert: int = 0
    """Among this rank's experts; 0 where the layer has only one weight."""


@dataclass(frozen=True)
class ExpertShare:
    """How expert-parallel ranks share a layer's experts."""

    per_rank: int = 1
    rank: int = 0
    num_ranks: int = 1


ONE_WEIGHT = ExpertShare()


class Fp8Emulation:
    """Formats and scaling of one model, and with `delayed` the amaxes of its matmuls."""

    def __init__(
        self,
        precision: Precision,
        num_layers: int,
        names: Sequence[str],
        experts: ExpertShare = ONE_WEIGHT,
    ) -> None:
        assert precision.scaling is not None
        self.scaling: Fp8Scaling = precision.scaling
        backward = "e5m2" if precision.formats == "hybrid" else "e4m3"
        self.formats = {"input": "e4m3", "weight": "e4m3", "gradient": backward}
        self.names = list(names)
        self.num_matmuls = 0
        """Linear layers of this rank that are quantized."""
        self.experts = experts
        shape = (num_layers, len(self.names), experts.per_rank, len(ROLES))
        self.previous_amax = torch.zeros(shape).repeat(1, 1, experts.num_ranks, 1)
        """Largest magnitudes in the last step that had some, of all experts; 0: then the scale is
        1."""
        self.current_amax = torch.zeros(shape)
        """This step's, of this rank's experts."""

    def observe(self, x: Tensor, role: str, matmul: MatmulId) -> None:
        """Record the operand's amax for delayed scaling in the next step."""
        if self.scaling == "delayed":
            at = (*matmul, ROLES.index(role))
            self.current_amax[at] = torch.maximum(
                self.current_amax[at], x.detach().abs().amax().cpu()
            )

    def quantize(self, x: Tensor, role: str, dim: int, matmul: MatmulId) -> Tensor:
        """Return an operand quantized and dequantized."""
        amax = None
        if self.scaling == "delayed":
            expert = self.experts.rank * self.experts.per_rank + matmul.expert
            at = (matmul.layer, matmul.name_index, expert, ROLES.index(role))
            amax = self.previous_amax[at].to(x.device)
        return quantize_dequantize(
            x, self.formats[role], self.scaling, dim=dim, is_weight=role == "weight", amax=amax
        )

    def end_step(self) -> None:
        """Use this step's amaxes, the largest of all ranks, in the next step; collective.

        As in Transformer Engine, the n-th experts of all ranks share one, and what has none in this
        step, an expert without tokens for example, or no finite one keeps its scale.
        """
        if self.scaling == "delayed":
            dist.all_reduce(self.current_amax, dist.ReduceOp.MAX)
            amax = self.current_amax.repeat(1, 1, self.experts.num_ranks, 1)
            is_known = (amax > 0) & amax.isfinite()
            self.previous_amax = torch.where(is_known, amax, self.previous_amax)
            self.current_amax = torch.zeros_like(self.current_amax)

    def discard_step(self) -> None:
        """Discard this step's amaxes, since its update is not applied."""
        self.current_amax.zero_()

    def state(self) -> list[Any]:
        """Return the amaxes that the next step uses, as JSON values."""
        values: list[Any] = self.previous_amax.tolist()
        return values

    def load(self, state: list[Any]) -> None:
        """Restore what `state` returned.

        Older states have one amax for all experts of a layer: each takes it.

        Raises:
            ConfigError: It is that of another model.
        """
        expected = tuple(self.previous_amax.shape)
        try:
            amax = torch.tensor(state, dtype=self.previous_amax.dtype)
        except (TypeError, ValueError):  # rows of unlike lengths, or no numbers
            amax = None
        if amax is not None and amax.shape == expected[:2] + expected[3:]:
            amax = amax.unsqueeze(2).repeat(1, 1, expected[2], 1)
        if amax is None or amax.shape != expected:
            raise ConfigError(
                f"the checkpoint's `fp8` state is not one number for each of {list(expected)}"
                " [layer, matmul, expert, operand]: restore the checkpoint"
            )
        self.previous_amax = amax


class _Fp8Linear(torch.autograd.Function):
    """X [T, K] times W [N, K] transposed; all three matmuls take quantized inputs."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, emulation: Fp8Emulation, matmul: MatmulId
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.emulation, ctx.matmul = emulation, matmul
        x_tk = emulation.quantize(x, "input", 1, matmul)
        weight_nk = emulation.quantize(weight, "weight", 1, matmul)
        return (x_tk @ weight_nk.T).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (x, weight), emulation, matmul = ctx.saved_tensors, ctx.emulation, ctx.matmul
        grad_output = gradients[0]
        emulation.observe(grad_output, "gradient", matmul)
        grad_tn = emulation.quantize(grad_output, "gradient", 1, matmul)
        grad_input = grad_tn @ emulation.quantize(weight, "weight", 0, matmul)
        grad_tn = emulation.quantize(grad_output, "gradient", 0, matmul)
        grad_weight = grad_tn.T @ emulation.quantize(x, "input", 0, matmul)
        return grad_input.to(x.dtype), grad_weight.to(weight.dtype), None, None


def fp8_linear(x: Tensor, weight: Tensor, emulation: Fp8Emulation, matmul: MatmulId) -> Tensor:
    """Return X [..., K] times W [N, K] transposed, as FP8 computes it, [..., N].

    The weight's amax is noted elsewhere: Transformer Engine does also where there are no tokens.
    """
    flat = x.reshape(-1, x.shape[-1])
    if not flat.shape[0]:
        return x @ weight.T
    if torch.is_grad_enabled():
        emulation.observe(flat, "input", matmul)
    result: Tensor = _Fp8Linear.apply(  # type: ignore[no-untyped-call]
        flat, weight, emulation, matmul
    )
    return result.view(*x.shape[:-1], weight.shape[0])


def emulate_fp8(chunks: Sequence[Any], precision: Precision) -> Fp8Emulation:
    """Replace the matmuls of the chunks' layers; collective.

    The first `fp8_keep_first` and last `fp8_keep_last` layers of the model are left as they are.
    """
    config = chunks[0].config
    emulation = Fp8Emulation(precision, config.num_layers, _all_names(chunks), _share(chunks[0]))
    replaced = range(precision.fp8_keep_first, config.num_layers - precision.fp8_keep_last)
    for layer in (layer for chunk in chunks for layer in chunk.decoder.layers):
        number = layer.layer_number - 1
        if number in replaced:
            for name, module in linear_modules(layer).items():
                emulation.num_matmuls += 1
                matmul = MatmulId(number, emulation.names.index(name))
                _replace_matmul(module, name, emulation, matmul)
    return emulation


def _share(chunk: Any) -> ExpertShare:
    group, num_experts = chunk.pg_collection.ep, chunk.config.num_moe_experts
    if num_experts is None:
        return ONE_WEIGHT
    return ExpertShare(num_experts // group.size(), group.rank(), group.size())


def linear_modules(layer: Any) -> dict[str, Any]:
    """Return the module of each matmul of a layer by name; grouped experts have two."""
    modules: dict[str, Any] = {}
    for name, module in layer.named_modules():
        if isinstance(module, GroupedExperts):
            modules |= {f"{name}.{weight}": module for weight in module.matmuls}
        elif isinstance(module, ColumnParallelLinear | RowParallelLinear):
            modules[name] = module
    return modules


def _all_names(chunks: Sequence[Any]) -> list[str]:
    """Return the names of the matmuls of all layers on all ranks; collective."""
    layers = [layer for chunk in chunks for layer in chunk.decoder.layers]
    own = sorted({name for layer in layers for name in linear_modules(layer)})
    return sorted({name for names in all_gather_objects(own) for name in names})


def _replace_matmul(module: Any, name: str, emulation: Fp8Emulation, matmul: MatmulId) -> None:
    if isinstance(module, GroupedExperts):
        kind = name.rpartition(".")[2]
        module.matmuls[kind] = partial(grouped_fp8_linear, emulation, matmul)
        module.register_forward_pre_hook(partial(_before_experts, emulation, matmul, kind))
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
        if torch.is_grad_enabled():
            emulation.observe(weight, "weight", matmul)
        output = fp8_linear(input, weight, emulation, matmul)
        return output if bias is None else output + bias

    module._forward_impl = forward_impl


def grouped_fp8_linear(
    emulation: Fp8Emulation,
    matmul: MatmulId,
    tokens_tk: Tensor,
    weights_enk: Tensor,
    ends_e: Tensor,
) -> Tensor:
    """Multiply each expert's tokens by its weight, one expert after the other; [T, N]."""
    counts = torch.diff(ends_e, prepend=ends_e.new_zeros(1)).tolist()
    pairs = zip(torch.split(tokens_tk, counts), weights_enk.unbind(), strict=True)
    return torch.cat(
        [
            fp8_linear(x, weight, emulation, matmul._replace(expert=expert))
            for expert, (x, weight) in enumerate(pairs)
        ]
    )


def observe_experts(emulation: Fp8Emulation, matmul: MatmulId, weights_enk: Tensor) -> None:
    """Note the amax of each expert's weight, with tokens or without, before they run."""
    if torch.is_grad_enabled():
        for expert, weight in enumerate(weights_enk):
            emulation.observe(weight, "weight", matmul._replace(expert=expert))


def _before_experts(
    emulation: Fp8Emulation, matmul: MatmulId, kind: str, module: Any, _inputs: Any
) -> None:
    observe_experts(emulation, matmul, getattr(module, kind))
