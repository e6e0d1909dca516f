"""megatron-core's orders of passes. The engine is imported in ranks only: its import warns."""

from typing import Any


class _Group:
    """As much of a process group as the count of warm-up passes asks."""

    def __init__(self, size: int, rank: int) -> None:
        self._size, self._rank = size, rank

    def size(self) -> int:
        """Pipeline stages."""
        return self._size

    def rank(self) -> int:
        """Which of them this is."""
        return self._rank


class _Communicator:
    def __init__(self, pp: int, vpp: int, stage: int) -> None:
        self.pp_group = _Group(pp, stage)
        self.virtual_pipeline_model_parallel_size = vpp if vpp > 1 else None


def engine_orders(
    cases: list[tuple[int, int, int, bool]],
) -> list[tuple[list[tuple[int, int]], list[list[int]]]]:
    """Return megatron-core's table of passes, and each stage's order, of each case.

    A case is pp, vpp, micro-batches, and whether forward and backward passes are paired.
    """
    from megatron.core.pipeline_parallel import schedules
    from megatron.core.transformer.cuda_graphs import convert_schedule_table_to_order

    found: list[tuple[list[tuple[int, int]], list[list[int]]]] = []
    for pp, vpp, count, paired in cases:
        table: Any = schedules.get_schedule_table(count, vpp, pp)
        orders = []
        for stage in range(pp):
            _, _, ahead, _ = schedules.get_pp_rank_microbatches(
                count, vpp, pp, overlap_moe_expert_parallel_comm=paired,
                p2p_communicator=_Communicator(pp, vpp, stage),
            )  # fmt: skip
            orders.append(convert_schedule_table_to_order(ahead, vpp, table))
        found.append((table, orders))
    return found
