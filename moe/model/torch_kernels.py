"""Kernel set `torch`: our modules behind megatron-core's interfaces, for CPU and GPU."""

from typing import Any

from megatron.core.models.backends import LocalSpecProvider

from moe.model.attention import Attention
from moe.model.experts import GroupedExperts
from moe.model.norm import RMSNorm
from parallel.engine.megatron_version import SPECS_TAKE_SUBMODULES


class TorchBackend(LocalSpecProvider):  # type: ignore[misc]
    """The modules of this kernel set; linear layers are megatron-core's own."""

    def layer_norm(self, *_: Any, **__: Any) -> type[RMSNorm]:
        """Return RMSNorm, for every norm."""
        return RMSNorm

    def core_attention(self) -> type[Attention]:
        """Return attention on torch's fused kernel."""
        return Attention

    def grouped_mlp_modules(self, *_: Any, **__: Any) -> Any:
        """Return grouped experts, as `SPECS_TAKE_SUBMODULES` says."""
        return (GroupedExperts, None) if SPECS_TAKE_SUBMODULES else GroupedExperts
