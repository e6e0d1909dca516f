"""What the server that forks ranks imports once, so that no rank has to."""

import warnings

from parallel.engine.imports import import_engine

warnings.simplefilter("ignore")
import_engine()

import torch._dynamo  # noqa: E402, F401 - every optimizer loads it
import torch.utils.tensorboard  # noqa: E402, F401

import benchmarks.launch.training  # noqa: E402, F401
import moe.evaluation.loss  # noqa: E402, F401
import moe.routing.replay  # noqa: E402, F401
import moe.training.train  # noqa: E402, F401
import moescale  # noqa: E402, F401
