"""Faults that all runs of a sweep share: found once, before the first of them starts."""

from collections.abc import Iterable

from data.errors import DataError
from data.loading.samples import open_samples
from data.store.manifest import TRAIN
from moe.config.experiment import Experiment


def check_stores(experiments: Iterable[Experiment]) -> None:
    """Check that some run can read its tokens; what several read alike is opened once.

    Where some can, the others fail each with its reason, as runs do.

    Raises:
        DataError: None can: a store is missing or damaged, has a larger vocabulary than the model,
            or is too small for one sequence; the fault of the first run.
    """
    faults: dict[object, DataError] = {}
    for one in experiments:
        data = one.data.model_copy(update={"seed": 0})
        key = (
            data.model_dump_json(), one.train.seq_len, one.model.vocab_size, one.train.examples
        )  # fmt: skip
        if key in faults:
            continue
        try:
            open_samples(
                data,
                seq_len=one.train.seq_len,
                global_batch_size=one.train.global_batch_size,
                split=TRAIN,
                vocab_size=one.model.vocab_size,
                examples=one.train.examples,
            )
        except DataError as error:
            faults[key] = error
        else:
            return
    for first in faults.values():
        raise first
