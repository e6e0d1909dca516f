"""Points brought to a law's conventions, or refused by the name of the wrong one."""

from dataclasses import dataclass

import numpy as np

from benchmarks.errors import BenchmarkError
from benchmarks.laws.conventions import Embeddings, Granularity
from benchmarks.laws.law import Columns, FloatArray, Law
from benchmarks.laws.points import Points
from benchmarks.laws.quantities import derived, ways

NON_EMBEDDING = {
    "parameters": "non_embedding_parameters",
    "active_parameters": "active_non_embedding_parameters",
}
_GRANULARITIES = {Granularity.FFN: "ffn", Granularity.HIDDEN: "hidden"}


@dataclass(frozen=True)
class LawPoints:
    """What a law reads of points."""

    columns: Columns
    """The law's columns, [points] each."""
    target: FloatArray
    warnings: tuple[str, ...]


def law_columns(law: Law, points: Points, warnings: list[str]) -> Columns:
    """Return the columns that a law reads, in its conventions; warnings are added.

    Raises:
        BenchmarkError: A column is missing or has an empty cell, or counts by another convention.
    """
    _check_granularity(law, points)
    return {name: _column(law, name, points, warnings) for name in law.columns}


def law_points(law: Law, points: Points) -> LawPoints:
    """Return the columns that a law reads, and its target.

    Raises:
        BenchmarkError: As `law_columns`; the target is missing.
    """
    warnings: list[str] = []
    if points.left_out:
        warnings.append(f"{points.left_out} runs did not finish and are left out")
    columns = law_columns(law, points, warnings)
    target = _complete(points, law.target, _required(law, law.target, points))
    _check_sizes(law, points)
    if "experts" in points.columns and not _knows_sparsity(law):
        experts = points.columns["experts"]
        if np.nanmax(experts) > 1:
            warnings.append(f"{law.name} has no term for experts: sparse points count as dense")
    return LawPoints(columns, target, tuple(dict.fromkeys(warnings)))


def _required(law: Law, name: str, points: Points) -> FloatArray:
    column = derived(name, points.columns)
    if column is None:
        raise BenchmarkError(
            f"{points.source}: no {ways(name)}, which law {law.name!r} needs; it has"
            f" {', '.join(points.columns) or 'none that a law knows'}"
        )
    return column


def _complete(points: Points, name: str, column: FloatArray) -> FloatArray:
    """Return a column without an empty cell."""
    empty = np.flatnonzero(~np.isfinite(column))
    if empty.size:
        raise BenchmarkError(
            f"{points.source}: row {points.rows[empty[0]]}, column {name!r}: empty, or from an"
            " empty cell; fill it or leave the row out"
        )
    return column


def _column(law: Law, name: str, points: Points, warnings: list[str]) -> FloatArray:
    if name in NON_EMBEDDING:
        return _complete(points, name, _sizes(law, name, points, warnings))
    return _complete(points, name, _required(law, name, points))


def _sizes(law: Law, name: str, points: Points, warnings: list[str]) -> FloatArray:
    """Return a column of sizes that counts embeddings as the law does."""
    wanted, columns = law.conventions.embeddings, points.columns
    without, stated = NON_EMBEDDING[name], points.stated.get("embeddings")
    if wanted is Embeddings.OUT and without in columns:
        return columns[without]
    if name not in columns and without in columns and "embedding_parameters" in columns:
        return columns[without] + columns["embedding_parameters"]
    if name not in columns and without in columns and wanted is Embeddings.NOT_STATED:
        return columns[without]
    if name not in columns:
        other = "active_parameters" if name == "parameters" else "parameters"
        hint = f"; its N is {law.conventions.size}, not {other!r}" if other in columns else ""
        raise BenchmarkError(
            f"{points.source}: no column {name!r}, which law {law.name!r} needs{hint}"
        )
    sizes = columns[name]
    if wanted is Embeddings.NOT_STATED or stated == wanted.value:
        return sizes
    if "embedding_parameters" in columns:
        sign = 1 if wanted is Embeddings.IN else -1
        counted = stated or Embeddings.IN.value
        return sizes if counted == wanted.value else sizes + sign * columns["embedding_parameters"]
    if stated is None:
        if wanted is Embeddings.OUT:
            warnings.append(
                f"law {law.name!r} counts {name} without embeddings, and {points.source} does not"
                " say: give a column 'embeddings' (in or out), or 'embedding_parameters'"
            )
        return sizes
    raise BenchmarkError(
        f"{points.source}: {name} with embeddings {stated}, law {law.name!r} has them {wanted}:"
        " give a column 'embedding_parameters'"
    )


def _check_granularity(law: Law, points: Points) -> None:
    """Refuse a granularity that the file states to be of another definition."""
    stated, wanted = points.stated.get("granularity_definition"), law.conventions.granularity
    if stated is None or wanted is None or stated == _GRANULARITIES[wanted]:
        return
    name = "granularity" if wanted is Granularity.FFN else "hidden_granularity"
    if name != "granularity" and name in points.columns:
        return
    raise BenchmarkError(
        f"{points.source}: granularity_definition is {stated}, law {law.name!r} has {wanted}:"
        " give columns hidden_size, ffn_hidden_size and expert_ffn_hidden_size instead"
    )


def _check_sizes(law: Law, points: Points) -> None:
    """Refuse total parameters that are but the active ones, or less."""
    columns = points.columns
    if not {"parameters", "active_parameters"} <= columns.keys():
        return
    total, active = columns["parameters"], columns["active_parameters"]
    wrong = np.flatnonzero(active > total * (1 + 1e-9))
    if wrong.size:
        raise BenchmarkError(
            f"{points.source}: row {points.rows[wrong[0]]}, column 'active_parameters': more than"
            " column 'parameters', which is the total"
        )
    if "parameters" in law.columns and {"experts", "top_k"} <= columns.keys():
        sparse = columns["experts"] > columns["top_k"]
        label = np.flatnonzero(sparse & (total <= active * (1 + 1e-9)))
        if label.size:
            raise BenchmarkError(
                f"{points.source}: row {points.rows[label[0]]}, column 'parameters': equal to"
                f" active_parameters though not all experts are active; the N of {law.name!r} is"
                f" {law.conventions.size}"
            )


def _knows_sparsity(law: Law) -> bool:
    dense = {"parameters", "non_embedding_parameters", "active_parameters", "tokens", "flops"}
    return bool(set(law.columns) - dense)
