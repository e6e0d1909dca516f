"""A short expression, parsed without being executed: names, numbers, + - * / ** log exp.

Python's parser makes the tree; only the kinds of nodes below are accepted, and this file's own
evaluator computes them.
"""

import ast
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from benchmarks.errors import BenchmarkError

MAX_LENGTH = 500
MAX_DEPTH = 60
FUNCTIONS: Mapping[str, Callable[[Any], Any]] = {"log": np.log, "exp": np.exp}
OPERATORS: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: lambda left, right: left + right,
    ast.Sub: lambda left, right: left - right,
    ast.Mult: lambda left, right: left * right,
    ast.Div: lambda left, right: left / right,
    ast.Pow: lambda left, right: left**right,
}


def is_expression(text: str) -> bool:
    """Whether a text is meant as an expression rather than as a name."""
    return any(sign in text for sign in "+*/()")


def parse(text: str) -> ast.expr:
    """Return an expression's tree.

    Raises:
        BenchmarkError: It is too long, no expression, or has what is not allowed in one.
    """
    if len(text) > MAX_LENGTH:
        raise BenchmarkError(f"an expression of {len(text)} characters: at most {MAX_LENGTH}")
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        raise _refused(text, "it is no expression") from None
    _check(tree, text, 0)
    return tree


def _check(node: ast.expr, text: str, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise _refused(text, f"it is nested deeper than {MAX_DEPTH}")
    match node:
        case ast.Name():
            if node.id in FUNCTIONS:
                raise _refused(text, f"{node.id} takes one argument in brackets")
        case ast.Constant(value=float() | int()) if not isinstance(node.value, bool):
            pass
        case ast.UnaryOp(op=ast.USub() | ast.UAdd()):
            _check(node.operand, text, depth + 1)
        case ast.BinOp() if type(node.op) in OPERATORS:
            _check(node.left, text, depth + 1)
            _check(node.right, text, depth + 1)
        case ast.Call(func=ast.Name(id=name), args=[argument], keywords=[]) if name in FUNCTIONS:
            _check(argument, text, depth + 1)
        case _:
            part = ast.get_source_segment(text.strip(), node) or ""
            raise _refused(text, f"{part[:40]!r} is not allowed")


def _refused(text: str, reason: str) -> BenchmarkError:
    return BenchmarkError(
        f"expression {text[:80]!r}: {reason}; it may have names, numbers, + - * / **, log(x) and"
        " exp(x)"
    )


def names(node: ast.expr) -> Iterator[str]:
    """Yield the names of columns and coefficients, as often as they occur."""
    calls = {id(call.func) for call in ast.walk(node) if isinstance(call, ast.Call)}
    for one in ast.walk(node):
        if isinstance(one, ast.Name) and id(one) not in calls:
            yield one.id


def evaluate(node: ast.expr, values: Mapping[str, Any]) -> Any:
    """Return the value of a parsed expression, of numbers and arrays by name."""
    match node:
        case ast.Name():
            return values[node.id]
        case ast.Constant():
            return np.float64(node.value)  # type: ignore[arg-type]  # `_check` lets numbers alone by
        case ast.UnaryOp():
            operand = evaluate(node.operand, values)
            return -operand if isinstance(node.op, ast.USub) else operand
        case ast.BinOp():
            left, right = evaluate(node.left, values), evaluate(node.right, values)
            return OPERATORS[type(node.op)](left, right)
        case ast.Call(func=ast.Name(id=name), args=[argument]):
            return FUNCTIONS[name](evaluate(argument, values))
    raise TypeError(f"{type(node).__name__} passed the check")
