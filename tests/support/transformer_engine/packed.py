"""Rows that move: documents end to end (thd) or one a row (bshd), and padding of experts' rows."""

from collections.abc import Iterator, Sequence

from torch import Tensor


def convert_thd_to_bshd(tensor: Tensor, cu_seqlens: Tensor, b: int, max_seq_len: int) -> Tensor:
    """Return [documents, longest, heads, size], zeros after each document's end."""
    rows = tensor.new_zeros(b, int(max_seq_len), *tensor.shape[1:])
    for row, (first, end) in enumerate(_borders(cu_seqlens)):
        rows[row, : end - first] = tensor[first:end]
    return rows


def convert_bshd_to_thd(tensor: Tensor, cu_seqlens: Tensor, t: int) -> Tensor:
    """Return [tokens, heads, size] without what follows each document's end."""
    flat = tensor.new_zeros(t, *tensor.shape[2:])
    for row, (first, end) in enumerate(_borders(cu_seqlens)):
        flat[first:end] = tensor[row, : end - first]
    return flat


def _borders(cu_seqlens: Tensor) -> list[tuple[int, int]]:
    ends = cu_seqlens.tolist()
    return list(zip(ends[:-1], ends[1:], strict=True))


def fused_multi_row_padding(
    input: Tensor,
    output: Tensor,
    input_row_list: Sequence[int],
    padded_input_row_list: Sequence[int],
) -> None:
    """Write each expert's rows, then zeros up to its padded number of rows."""
    output.zero_()
    for source, target in _expert_rows(input, input_row_list, output, padded_input_row_list):
        target.copy_(source)


def fused_multi_row_unpadding(
    input: Tensor,
    output: Tensor,
    input_row_list: Sequence[int],
    unpadded_input_row_list: Sequence[int],
) -> None:
    """Write each expert's rows without those that padded it."""
    for target, source in _expert_rows(output, unpadded_input_row_list, input, input_row_list):
        target.copy_(source)


def _expert_rows(
    plain: Tensor, counts: Sequence[int], padded: Tensor, padded_counts: Sequence[int]
) -> Iterator[tuple[Tensor, Tensor]]:
    """Pair each expert's rows in `plain` with the same rows in `padded`."""
    pairs = zip(plain.split(list(counts)), padded.split(list(padded_counts)), strict=True)
    return ((rows, room[: len(rows)]) for rows, room in pairs)
