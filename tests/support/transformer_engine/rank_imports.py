"""What the server that forks ranks with Transformer Engine imports once."""

import warnings

from tests.support.transformer_engine.install import gather_bytes, install_reference
from tests.support.transformer_engine.locate import has_extension

warnings.simplefilter("ignore")
install_reference()

from parallel.engine.cpu_host import install_cpu_host  # noqa: E402
from parallel.engine.imports import import_engine  # noqa: E402

import_engine()

from megatron.core.optimizer import clip_grads  # noqa: E402
from transformer_engine.pytorch import optimizers  # noqa: E402

if not has_extension():
    install_cpu_host()
    # The CPU host scales gradients its own way, for want of the kernels that are here.
    clip_grads.multi_tensor_scale_impl = optimizers.multi_tensor_scale
    gather_bytes()

import torch.utils.tensorboard  # noqa: E402, F401

import moe.training.startup.build  # noqa: E402, F401
