"""What blocks of one tensor have in common."""

from collections.abc import Sequence

Region = tuple[slice, ...]


def common_regions(
    offset: Sequence[int],
    shape: Sequence[int],
    other_offset: Sequence[int],
    other_shape: Sequence[int],
) -> tuple[Region, Region] | None:
    """Return what two blocks of a tensor share, as slices of each; None where they share nothing.

    Offsets and shapes are in elements.
    """
    mine, theirs = [], []
    for a, n, b, m in zip(offset, shape, other_offset, other_shape, strict=True):
        low, high = max(a, b), min(a + n, b + m)
        if low >= high:
            return None
        mine.append(slice(low - a, high - a))
        theirs.append(slice(low - b, high - b))
    return tuple(mine), tuple(theirs)


def regions_meet(a: Region, b: Region) -> bool:
    """Return whether two regions of one block have elements in common."""
    return all(x.start < y.stop and y.start < x.stop for x, y in zip(a, b, strict=True))
