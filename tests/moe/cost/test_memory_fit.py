"""The lines that refuse a run for its memory, or warn of it."""

from moe.cost.memory_fit import refusal, warning
from moe.cost.memory_need import MemoryNeed

GB = 10**9
NEED = MemoryNeed(
    sure={"parameters": 20 * GB, "gradients": 40 * GB, "optimizer": 30 * GB},
    modelled_bytes=100 * GB,
)


def test_what_is_sure_is_refused_with_terms_and_remedy() -> None:
    assert refusal(NEED, "NVIDIA H100 80GB HBM3", 85 * GB) == (
        "NVIDIA H100 80GB HBM3 has 85.0 GB of memory, and this run takes 90.0 GB for its state"
        " alone (gradients 40.0 GB, optimizer 30.0 GB, parameters 20.0 GB): raise parallel.tp, pp"
        " or ep with ranks on more GPUs or machines (`moe plan EXPERIMENT --gpus N --gpu H100`"
        " finds layouts), or take a smaller model"
    )


def test_the_last_byte_decides() -> None:
    assert refusal(NEED, "this machine", 90 * GB) is None
    assert refusal(NEED, "this machine", 90 * GB - 1) is not None
    assert warning(NEED, "this machine", 100 * GB, 100 * GB) is None
    assert warning(NEED, "this machine", 100 * GB, 100 * GB - 1) is not None


def test_a_warning_says_what_is_modelled_and_what_others_hold() -> None:
    alone = warning(NEED, "this machine", 95 * GB, 95 * GB)
    assert alone is not None
    assert alone.startswith(
        "this machine has 95.0 GB of memory, and this run needs about 100.0 GB at its peak"
        " (modelled): it may run out of memory; to need less, lower train.micro_batch_size"
    )
    beside = warning(NEED, "this machine", 120 * GB, 50 * GB)
    assert beside is not None
    assert beside.startswith(
        "this machine has 120.0 GB of memory, 50.0 GB of it free for this run,"
    )


def test_what_is_not_modelled_warns_of_nothing() -> None:
    need = MemoryNeed(sure={"parameters": 20 * GB}, modelled_bytes=None)
    assert warning(need, "this machine", 0, 0) is None
