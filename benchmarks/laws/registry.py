"""The laws by name."""

from benchmarks.errors import BenchmarkError
from benchmarks.laws.expression import is_expression
from benchmarks.laws.families.abnar import ABNAR
from benchmarks.laws.families.chinchilla import CHINCHILLA
from benchmarks.laws.families.clark import CLARK
from benchmarks.laws.families.krajewski import KRAJEWSKI
from benchmarks.laws.families.ling import LING
from benchmarks.laws.families.ludziejewski import LUDZIEJEWSKI
from benchmarks.laws.families.precision import PRECISION
from benchmarks.laws.families.tencent import TENCENT
from benchmarks.laws.law import Law, Published
from benchmarks.laws.own_form import own_law

LAWS = {
    law.name: law
    for law in (CHINCHILLA, CLARK, KRAJEWSKI, LUDZIEJEWSKI, ABNAR, LING, TENCENT, PRECISION)
}


def find_law(text: str) -> Law:
    """Return the law of that name, or that an expression such as `E + A / tokens**b` spells.

    Raises:
        BenchmarkError: No law has that name, or the expression is wrong.
    """
    law = LAWS.get(text.strip().lower())
    if law is not None:
        return law
    if is_expression(text):
        return own_law(text)
    raise BenchmarkError(
        f"--law {text}: no law has that name; there are {', '.join(LAWS)}, or an expression of"
        " your own, such as 'E + A / parameters**alpha'"
    )


def find_published(name: str) -> tuple[Law, Published] | None:
    """Return a set of published coefficients with its law; of a law's name, its first set."""
    for law in LAWS.values():
        for published in law.published:
            if name.strip().lower() in (published.name, law.name):
                return law, published
    return None
