"""The loader that an experiment describes, as one data-parallel rank opens it."""

from data.loading.loader import Loader
from data.store.manifest import SplitName
from moe.config.experiment import Experiment


def open_loader(experiment: Experiment, split: SplitName, *, rank: int = 0, ranks: int) -> Loader:
    """Open a split for data-parallel rank `rank` of `ranks`.

    Raises:
        DataError: As `Loader`.
    """
    train = experiment.train
    return Loader(
        experiment.data,
        seq_len=train.seq_len,
        global_batch_size=train.global_batch_size,
        micro_batch_size=train.micro_batch_size,
        data_parallel_rank=rank,
        data_parallel_size=ranks,
        split=split,
        vocab_size=experiment.model.vocab_size,
        examples=train.examples,
    )
