"""What the server that forks ranks with Transformer Engine imports once."""

import warnings

from tests.support.transformer_engine.install import install_reference

warnings.simplefilter("ignore")
install_reference()

from parallel.engine.imports import import_engine  # noqa: E402

import_engine()

import torch.utils.tensorboard  # noqa: E402, F401

import moe.training.startup.build  # noqa: E402, F401
