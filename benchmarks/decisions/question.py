"""What is asked: a law, limits, and cards if there are any."""

from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import Any

import numpy as np

from benchmarks.decisions.batch import global_batch_size
from benchmarks.decisions.candidates import Candidate
from benchmarks.decisions.layout_pricing import LayoutPricer, ideal_flops
from benchmarks.decisions.limits import Limits
from benchmarks.decisions.model_columns import losses
from benchmarks.decisions.pricing import FlopsPricer, RememberingPricer
from benchmarks.decisions.shortlist import LEAST_BYTES
from benchmarks.errors import BenchmarkError
from benchmarks.ladder.dials import Dials
from benchmarks.ladder.rungs import model_of
from benchmarks.laws.fitted_law import FittedLaw
from benchmarks.planning.failures import Reliability
from benchmarks.planning.job import DEFAULT_SEQ_LEN, JobOptions, named_precision
from parallel.hardware.card import load_card
from parallel.precision.recipes import Precision

REFERENCE_WIDTH = 512
"""Of a model of 79 million parameters, which fits on every card."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """Which model of the ladder reaches the least loss within limits, by a law."""

    fitted: FittedLaw
    limits: Limits
    options: JobOptions | None = None
    """Cards, precision, batch, prices; None: cost is FLOPs alone."""
    reliability: Reliability = field(default_factory=Reliability)
    started: datetime | None = None
    asked: str | None = None
    """The law's name or file, as it was asked for; `fitted` knows its family."""

    def __post_init__(self) -> None:
        """Refuse limits that need cards where there are none."""
        needs = [*self.limits.of_cards]
        if self.limits.memory == "training" and self.limits.memory_bytes is not None:
            needs.append("memory in training")
        if needs and self.options is None:
            names = " and ".join(name.replace("_", "-") for name in needs)
            raise BenchmarkError(f"{names}: only a layout tells: give --gpu and --gpus")

    @property
    def seq_len(self) -> int:
        """Tokens a sequence."""
        return (self.options and self.options.seq_len) or DEFAULT_SEQ_LEN

    @property
    def bits(self) -> float:
        """Of the number format of matrix products, as a law of precision counts them.

        Without cards: of BF16.
        """
        if self.options is None:
            return Precision(dtype="bf16").matmul_bits
        return named_precision(self.options.precision, load_card(self.options.gpu)).matmul_bits

    def active(self, one: Candidate) -> float:
        """Return a model's active parameters as the law counts them in FLOPs."""
        space, columns = self.fitted.law.space, one.columns
        if space is not None and space.size in columns:
            return float(np.asarray(space.active(columns)).ravel()[0])
        return float(columns.get("active_parameters", [one.costs.active_parameters])[0])

    def loss(self, one: Candidate, tokens: float) -> float:
        """Return a model's loss by the law."""
        return float(losses(self.fitted, one.columns, self.fitted.values, tokens)[0])

    def fits(self, one: Candidate) -> bool:
        """Whether a model may fit in memory: that of the cards by a bound, or served."""
        limits, total = self.limits, one.costs.total_parameters
        if self.options is not None:
            memory = load_card(self.options.gpu).memory_bytes * self.options.gpus
            if LEAST_BYTES * total > memory:
                return False
        if limits.memory_bytes is None or limits.memory != "serving":
            return True
        return limits.serving.memory_bytes(one.costs) <= limits.memory_bytes

    def pricer(self) -> RememberingPricer:
        """Return what prices models.

        Raises:
            InputError: The cards cannot be planned for; a price, a grid or a power is unknown.
        """
        space, limits = self.fitted.law.space, self.limits
        fixed_tokens = None if space is None else space.fixed_tokens
        if self.options is None:
            return RememberingPricer(FlopsPricer(limits, self.active, fixed_tokens))
        options = replace(self.options, seq_len=self.seq_len)
        reference = model_of(Dials(hidden_size=REFERENCE_WIDTH, max_seq_len=self.seq_len))
        flops = ideal_flops(limits, options, self.reliability, reference)
        return RememberingPricer(
            LayoutPricer(
                limits=limits,
                active=self.active,
                options=options,
                batch=partial(global_batch_size, num_gpus=options.gpus, seq_len=self.seq_len),
                reliability=self.reliability,
                started=self.started,
                fixed_tokens=fixed_tokens,
                ideal_flops=flops,
            )
        )

    def cards(self) -> dict[str, Any] | None:
        """Return the cards by name and number."""
        if self.options is None:
            return None
        return {"gpu": load_card(self.options.gpu).name, "gpus": self.options.gpus}
