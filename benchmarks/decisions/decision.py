"""The answer to a question: the best model, what comes next, and the best dense one."""

from dataclasses import dataclass

from benchmarks.decisions.best_first import Outcome, Priced, best_first
from benchmarks.decisions.candidates import Candidate
from benchmarks.decisions.pricing import Pricer
from benchmarks.decisions.question import Question
from benchmarks.decisions.shortlist import Shortlist
from benchmarks.errors import BenchmarkError


@dataclass(frozen=True)
class Decision:
    """Models that were priced, and what was chosen of them."""

    question: Question
    pricer: Pricer
    shortlist: tuple[Candidate, ...]
    sparse: Outcome
    dense: Outcome

    @property
    def priced(self) -> list[Priced]:
        """All that were priced, the best first."""
        return sorted(self.sparse.priced + self.dense.priced, key=lambda one: one.loss)

    @property
    def best(self) -> Priced:
        """The model of least loss."""
        return self.priced[0]

    @property
    def runner_up(self) -> Priced | None:
        """The next one; None where only one was priced."""
        return self.priced[1] if len(self.priced) > 1 else None


def decide(question: Question) -> Decision:
    """Choose the model.

    Raises:
        BenchmarkError: The law does not tell, or no model can be trained within the limits.
        InputError: As `Question.pricer`.
    """
    pricer = question.pricer()
    near = Shortlist(
        question.fitted, pricer, question.fits, question.seq_len, question.bits, question.loss
    )
    if not near.models:
        raise BenchmarkError(_nothing(question, "no model of the ladder fits in the memory"))
    dense, sparse = (
        best_first(
            [one for one in near.models if one.proportions.is_dense is kind],
            pricer,
            question.loss,
            beside=near.beside,
        )
        for kind in (True, False)
    )
    if not dense.priced and not sparse.priced:
        raise BenchmarkError(_nothing(question, _reason(question, near.models, pricer)))
    return Decision(question, pricer, tuple(near.models), sparse, dense)


def _reason(question: Question, found: list[Candidate], pricer: Pricer) -> str:
    """Return why none of the models that may fit can be trained."""
    smallest = min(found, key=lambda one: one.costs.total_parameters)
    tokens = pricer.optimistic_tokens(smallest, 1.0)
    size = f"the smallest model, of {smallest.costs.total_parameters:,} parameters,"
    if tokens < question.seq_len:
        return f"{size} would see {max(0.0, tokens):.3g} tokens, serving paid for"
    if question.options is None:
        return f"the law has no loss for any (for {size} after {tokens:.3g} tokens)"
    return (
        f"no layout fits in the cards' memory, or no step in the budget ({size} would see at most"
        f" {tokens:.3g} tokens)"
    )


def _nothing(question: Question, reason: str) -> str:
    cards = (
        "" if question.options is None else f" on {question.options.gpus:,} {question.options.gpu}"
    )
    return f"nothing can be trained within these limits{cards}: {reason}: raise the limits"
