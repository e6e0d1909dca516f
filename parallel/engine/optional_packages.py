"""Packages that megatron-core takes where they are: one that is installed broken is left out.

megatron-core (0.16 to 0.19) guards their imports against a package that is missing, not against one
whose compiled libraries are, or do not fit: Python modules of Transformer Engine without its core
library, an apex or triton built for another torch. It would fail, whatever kernels are asked for.
"""

import sys
from functools import cache
from importlib import import_module, util
from types import MappingProxyType

OPTIONAL = MappingProxyType(
    {
        "transformer_engine": "transformer_engine.pytorch",
        "apex": "apex.optimizers",
        "amp_C": "amp_C",
        "triton": "triton.language",
        "flash_attn": "flash_attn",
        "deep_ep": "deep_ep",
        "flashinfer": "flashinfer",
        "nvidia_resiliency_ext": "nvidia_resiliency_ext.checkpointing.async_ckpt.core",
        "emerging_optimizers": "emerging_optimizers",
        "mamba_ssm": "mamba_ssm.ops.triton.ssd_combined",
    }
)
"""What is tried of each package; megatron-core imports it sooner or later."""


@cache
def import_fault(package: str) -> str | None:
    """Return why one of `OPTIONAL` cannot be imported, in one line; None: it can.

    A package that cannot is from then on as if it were not installed.
    """
    if package not in sys.modules and util.find_spec(package) is None:
        return "not installed"
    try:
        import_module(OPTIONAL[package])
    except Exception as error:  # whatever its libraries, or their absence, raise
        for name in [name for name in sys.modules if name.split(".")[0] == package]:
            del sys.modules[name]
        sys.modules[package] = None  # type: ignore[assignment] # `import` raises, `find_spec` is None
        lines = str(error).strip().splitlines()
        return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    return None


def hide_broken_packages() -> None:
    """Leave out every optional package that cannot be imported; before megatron-core is."""
    for package in OPTIONAL:
        import_fault(package)
