"""A law from a user's expression: its linear coefficients are found, the rest is searched."""

import ast
from collections import Counter
from dataclasses import dataclass
from functools import reduce
from typing import Any

from benchmarks.errors import BenchmarkError
from benchmarks.laws.conventions import SIX_N_D, Conventions, Embeddings, Size
from benchmarks.laws.expression import evaluate, names, parse
from benchmarks.laws.law import Columns, Law, Linear, Nonlinear, Space, Values
from benchmarks.laws.quantities import QUANTITIES

MAX_NONLINEAR = 8
SEED_BUDGET = 4096
SIZES = ("active_parameters", "parameters", "non_embedding_parameters")
_LEVELS = (0.15, 0.4, -0.15, 0.05, 0.8, -0.4, 1.5, -0.05, -0.8, 0.02, 0.25, 0.6, -0.25, 3.0, -1.5)


@dataclass(frozen=True)
class _Term:
    """sign * coefficient * rest; the coefficient is linear, or there is none."""

    sign: float
    coefficient: str | None
    rest: tuple[tuple[ast.expr, bool], ...]
    """Factors; `True` with one that divides."""

    def evaluate(self, values: Values) -> Any:
        return reduce(
            lambda product, factor: (
                product / evaluate(factor[0], values)
                if factor[1]
                else product * evaluate(factor[0], values)
            ),
            self.rest,
            self.sign,
        )


def own_law(text: str) -> Law:
    """Return the law of an expression of columns and coefficients.

    A name that no column can have (benchmarks/laws/quantities.py) is a coefficient. One that
    occurs once, as a factor of a term of the sum, is linear and may have either sign; the others
    are searched. `exp(...)` around everything makes the sum the logarithm of the loss.

    Raises:
        BenchmarkError: The expression is not allowed, or has no column or no coefficient.
    """
    tree = parse(text)
    occurrences = Counter(names(tree))
    columns = tuple(sorted(name for name in occurrences if name in QUANTITIES))
    coefficients = {name for name in occurrences if name not in QUANTITIES}
    if not columns or not coefficients:
        lacking = "column" if not columns else "coefficient"
        raise BenchmarkError(
            f"expression {text[:80]!r}: it has no {lacking}; columns are {', '.join(QUANTITIES)},"
            " every other name is a coefficient"
        )
    if "loss" in columns:
        raise BenchmarkError(f"expression {text[:80]!r}: loss is what it gives, and not a column")
    inner, logarithmic = tree, False
    if isinstance(tree, ast.Call) and isinstance(tree.func, ast.Name) and tree.func.id == "exp":
        inner, logarithmic = tree.args[0], True
    single = {name for name in coefficients if occurrences[name] == 1}
    terms = [_term(sign, node, single) for sign, node in _summands(inner, 1.0)]
    linear = [term for term in terms if term.coefficient is not None]
    rest = [term for term in terms if term.coefficient is None]
    searched = sorted(coefficients - {term.coefficient for term in linear})
    if len(searched) > MAX_NONLINEAR:
        raise BenchmarkError(
            f"expression {text[:80]!r}: {len(searched)} nonlinear coefficients"
            f" ({', '.join(searched)}): at most {MAX_NONLINEAR}"
        )
    return Law(
        name=text.strip(),
        title="own form",
        formula=f"L = {text.strip()}",
        source="given on the command line",
        conventions=Conventions(
            size=_size(columns), embeddings=Embeddings.NOT_STATED, flops=SIX_N_D
        ),
        columns=columns,
        linear=tuple(Linear(name=str(t.coefficient), positive=False) for t in linear),
        nonlinear=tuple(_searched(name, len(searched)) for name in searched),
        terms=lambda points, values: [t.evaluate({**points, **values}) for t in linear],
        offset=(lambda points, values: sum(t.evaluate({**points, **values}) for t in rest))
        if rest
        else None,
        logarithmic=logarithmic,
        space=_space(columns),
    )


def _summands(node: ast.expr, sign: float) -> list[tuple[float, ast.expr]]:
    match node:
        case ast.BinOp(op=ast.Add() | ast.Sub()):
            right = sign if isinstance(node.op, ast.Add) else -sign
            return [*_summands(node.left, sign), *_summands(node.right, right)]
        case ast.UnaryOp():
            return _summands(node.operand, -sign if isinstance(node.op, ast.USub) else sign)
    return [(sign, node)]


def _factors(node: ast.expr, divides: bool) -> list[tuple[ast.expr, bool]]:
    match node:
        case ast.BinOp(op=ast.Mult()):
            return [*_factors(node.left, divides), *_factors(node.right, divides)]
        case ast.BinOp(op=ast.Div()):
            return [*_factors(node.left, divides), *_factors(node.right, not divides)]
    return [(node, divides)]


def _term(sign: float, node: ast.expr, single: set[str]) -> _Term:
    factors = _factors(node, False)
    for number, (factor, divides) in enumerate(factors):
        if isinstance(factor, ast.Name) and not divides and factor.id in single:
            return _Term(sign, factor.id, tuple(factors[:number] + factors[number + 1 :]))
    return _Term(sign, None, tuple(factors))


def _searched(name: str, count: int) -> Nonlinear:
    levels = min(len(_LEVELS), max(2, int(SEED_BUDGET ** (1 / count))))
    return Nonlinear(name=name, seeds=_LEVELS[:levels], low=-1e3, high=1e3)


def _size(columns: tuple[str, ...]) -> Size:
    active, total = (any(c in columns for c in kind) for kind in (SIZES[:1], SIZES[1:]))
    if active and total:
        return Size.BOTH
    return Size.ACTIVE if active else Size.TOTAL if total else Size.NONE


def _space(columns: tuple[str, ...]) -> Space | None:
    """Return what may be chosen: one size and tokens; other columns as the points have them."""
    sizes = [name for name in SIZES if name in columns]
    if len(sizes) != 1 or "tokens" not in columns:
        return None
    size = sizes[0]

    def active(points: Columns) -> Any:
        return points[size]

    others = {name: () for name in columns if name not in (size, "tokens")}
    return Space(size=size, active=active, dials=others)
