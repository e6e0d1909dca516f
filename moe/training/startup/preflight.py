"""Checks before a run starts, in one process that can report a fault in one line."""

from importlib import import_module, util
from pathlib import Path

from moe.config.experiment import Experiment
from moe.config.locating import tokenizer_file
from moe.cost.model_shape import batch_of, shape_of
from moe.errors import ConfigError
from moe.training.startup.memory import Starter, check_memory
from parallel.layout.model_shape import BatchSize, ModelShape
from parallel.layout.placement import Placement
from parallel.layout.validation import checked_placement
from parallel.precision.fp8_support import check_fp8


def check_before_start(
    experiment: Experiment, num_ranks: int, starter: Starter | None = None
) -> Placement:
    """Check layout, device, precision, memory and data of a run on `num_ranks` ranks.

    Args:
        experiment: What is to run.
        num_ranks: On all machines.
        starter: Who starts it on this machine, whose memory is checked then. None: it may run
            elsewhere.

    Raises:
        ParallelError: The layout does not fit the model, the batch or the ranks; sizes or GPU do
            not support the FP8 recipe; there is no GPU.
        ConfigError: Kernels or precision that are not to be had here; too little memory.
        DataError: The store is missing or damaged, does not fit the model, or would be read more
            often than the experiment allows.
    """
    shape, batch = shape_of(experiment.model), batch_of(experiment.train)
    placement = checked_placement(experiment.parallel, shape, batch, num_ranks)
    _check_fp8(experiment, shape, batch)
    check_kernels(experiment)
    _check_dispatcher(experiment)
    if starter is not None:
        check_memory(experiment, placement, starter)
    _check_data(experiment, placement.dp)
    if experiment.train.init is not None:
        _check_init(experiment, experiment.train.init)
    return placement


def _check_fp8(experiment: Experiment, shape: ModelShape, batch: BatchSize) -> None:
    """Refuse sizes, and the GPU where there is one, that do not support the native FP8 recipe."""
    if not experiment.precision.is_native_fp8:
        return
    from parallel.engine.start import choose_device
    from parallel.hardware.probe import compute_capability

    on_gpu = choose_device(experiment.parallel.device) == "cuda"
    capability = compute_capability() if on_gpu else None
    check_fp8(experiment.precision, experiment.parallel, shape, batch, capability)


def check_kernels(experiment: Experiment) -> None:
    """Refuse a kernel set that is not to be had here.

    Raises:
        ConfigError: Transformer Engine is asked for, and missing or broken, or there is no GPU.
        ParallelError: A GPU is asked for, and there is none.
    """
    from parallel.engine.optional_packages import import_fault
    from parallel.engine.start import choose_device

    precision = experiment.precision
    device = choose_device(experiment.parallel.device)
    if precision.kernels == "te":
        if util.find_spec("transformer_engine") is None:
            raise ConfigError(
                'precision.kernels = "te", but Transformer Engine is not installed: install'
                ' moescale[te] on a GPU machine, or set precision.kernels = "torch"'
            )
        if device == "cpu":
            raise ConfigError(
                'precision.kernels = "te" needs a GPU, and this run would use the CPU: set'
                ' precision.kernels = "torch"'
            )
        if fault := import_fault("transformer_engine"):
            raise ConfigError(
                f'precision.kernels = "te", but Transformer Engine cannot be imported ({fault}):'
                ' install moescale[te] again for this torch, or set precision.kernels = "torch"'
            )


def _check_init(experiment: Experiment, init: Path) -> None:
    """Refuse an `init` without a checkpoint, or with another tokenizer than the store's."""
    from data.store.reader import Store
    from data.tokenization.info import TOKENIZER_FILE
    from data.tokenization.tokenizer import same_tokenizer
    from moe.checkpoint.index import INDEX
    from moe.runs.files import CHECKPOINTS

    if not ((init / INDEX).is_file() or (init / CHECKPOINTS).is_dir()):
        raise ConfigError(
            f"train.init = {init}: neither a checkpoint nor a run that has one: give the directory"
            " that `moe train` or `moe convert` printed"
        )
    assert experiment.data.store is not None
    tokenizer = Store.open(experiment.data.store).manifest.tokenizer
    file = tokenizer_file(init)
    if file is not None and not same_tokenizer(file, tokenizer):
        raise ConfigError(
            f"{experiment.data.store}: made with another tokenizer than train.init's: build it"
            f" again with --tokenizer {file.parent if file.name == TOKENIZER_FILE else file}"
        )


def _check_dispatcher(experiment: Experiment) -> None:
    """Refuse what needs a GPU, Transformer Engine or a library that is not available."""
    from parallel.engine.start import choose_device

    layout = experiment.parallel
    if layout.dispatcher != "flex" or experiment.model.moe is None:
        return
    if choose_device(layout.device) == "cpu":
        raise ConfigError(
            'parallel.dispatcher = "flex" needs GPUs, and this run would use the CPU: set'
            ' parallel.dispatcher = "alltoall"'
        )
    if not _has_flex_backend(layout.flex_backend):
        raise ConfigError(
            f'parallel.flex_backend = "{layout.flex_backend}" needs the Python module deep_ep'
            " (https://github.com/deepseek-ai/DeepEP; HybridEP is its branch hybrid-ep), which is"
            ' not here: build it, or set parallel.dispatcher = "alltoall"'
        )


def _has_flex_backend(backend: str) -> bool:
    """Detect the library by the class that megatron-core takes from it."""
    if util.find_spec("deep_ep") is None:
        return False
    names = {"deepep": "Buffer", "hybridep": "HybridEPBuffer"}
    return hasattr(import_module("deep_ep"), names[backend])


def _check_data(experiment: Experiment, dp: int) -> None:
    from moe.training.loader import open_loader

    loader = open_loader(experiment, "train", ranks=dp)
    loader.check_steps(experiment.train.steps)
    loader.close()
    open_loader(experiment, "held_out", ranks=dp).close()
