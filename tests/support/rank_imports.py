"""What the server that forks ranks imports once, so that no rank has to."""

from parallel.engine.imports import import_engine

import_engine()

import torch.utils.tensorboard  # noqa: E402, F401

import moe.training.loop  # noqa: E402, F401
