"""What is gathered on a card, in parts of eight minutes at most, and its rehearsal on a CPU.

One process each, so that one that fails takes nothing else with it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from benchmarks.errors import BenchmarkError
from benchmarks.gpu_evidence.proofs import Proof, energy_is_counted, ran_in_te

Device = Literal["cpu", "cuda"]
Need = Literal["FP8", "Transformer Engine", "two cards"]

PART_S, ALL_S = 480, 1500
"""Longest time of a part and of all, s."""
BF16 = "--set precision.dtype=bf16"
# A warm-up to natural routing of 120 steps: two windows of its criterion, and 2 million tokens.
STEP = f"bench step {{model}} --seq-len 4096 --micro-batch 2 --settle-steps 120 {BF16}"
SMALL_STEP = "bench step tiny --seq-len 32 --micro-batch 1 --repeats 2 --warmup 0 --settle-steps 3"
OLMOE = STEP.format(model="olmoe-1b-7b --layers 4")
QWEN3 = STEP.format(model="qwen3-30b-a3b --layers 2")
TE = "--set precision.kernels=te"


@dataclass(frozen=True, kw_only=True)
class Task:
    """One process: a `moe bench` command, or the tests marked `gpu`."""

    name: str
    part: int
    on_card: str
    """Words after `moe` or `pytest`; `{cards}` is their number."""
    rehearsal: str | None
    """The same, small, for a CPU; None: it cannot run there."""
    timeout_s: int
    program: Literal["moe", "pytest"] = "moe"
    needs: tuple[Need, ...] = ()
    proof: Proof | None = None
    """What its records must show on a card."""

    def command(self, device: Device, cards: int) -> str | None:
        """Return the words for a device; None where there are none for it."""
        if device == "cpu":
            return self.rehearsal
        return self.on_card.format(cards=cards)


# Tests of `tests/moe` alone: others have no kernels, and are long to collect. Those of kernel
# set `te` are marked `gpu` too, and run here where Transformer Engine is.
TESTS = "-q -p no:cacheprovider -m gpu tests/moe"
TASKS: tuple[Task, ...] = (
    Task(
        name="tests",
        part=1,
        program="pytest",
        on_card=TESTS,
        rehearsal=TESTS,
        timeout_s=320,
    ),
    Task(
        name="gemm",
        part=2,
        on_card="bench gemm olmoe-1b-7b qwen3-30b-a3b --tokens 8192 --dtype bf16",
        rehearsal="bench gemm tiny --tokens 64 --dtype bf16 --sustained 0.01 --repeats 2",
        timeout_s=120,
    ),
    Task(
        name="gemm in FP8",
        part=2,
        on_card="bench gemm olmoe-1b-7b qwen3-30b-a3b --tokens 8192 --dtype fp8",
        rehearsal=None,
        timeout_s=90,
        needs=("FP8",),
    ),
    Task(
        name="attention",
        part=2,
        on_card="bench attention olmoe-1b-7b qwen3-30b-a3b deepseek-v2-lite"
        " --seq-len 4096 --seq-len 8192 --dtype bf16",
        rehearsal="bench attention tiny --seq-len 32 --dtype bf16 --repeats 2",
        timeout_s=90,
    ),
    Task(
        name="layer of Mixtral",
        part=2,
        on_card=f"bench layer --shape mixtral {BF16}",
        rehearsal="bench layer --hidden 64 --ffn 64 --tokens 64 --repeats 2 --warmup 0",
        timeout_s=60,
    ),
    Task(
        name="layer of DeepSeek-V3",
        part=2,
        on_card=f"bench layer --shape deepseek {BF16}",
        rehearsal=None,
        timeout_s=60,
    ),
    Task(
        name="step beside transformers: OLMoE",
        part=3,
        on_card=f"{OLMOE} --peer transformers",
        rehearsal=f"{SMALL_STEP} --peer transformers",
        timeout_s=170,
    ),
    Task(
        name="step beside transformers: Qwen3",
        part=3,
        on_card=f"{QWEN3} --peer transformers",
        rehearsal=None,
        timeout_s=170,
    ),
    # Alone: the counter runs on from step to step, and its resolution matters less.
    Task(
        name="energy of a step",
        part=3,
        on_card=f"{OLMOE} --repeats 31 --set energy.source=nvml",
        rehearsal=f"{SMALL_STEP} --routing natural",
        timeout_s=100,
        proof=energy_is_counted,
    ),
    Task(
        name="step in kernel set te",
        part=4,
        on_card=f"{QWEN3} {TE}",
        rehearsal=None,
        timeout_s=80,
        needs=("Transformer Engine",),
        proof=ran_in_te(None),
    ),
    *(
        Task(
            name=f"step in FP8, {scaling} scaling",
            part=4,
            on_card=f"{QWEN3} {TE} --set precision.fp8={scaling}",
            rehearsal=None,
            timeout_s=80,
            needs=("FP8", "Transformer Engine"),
            proof=ran_in_te(scaling),
        )
        for scaling in ("current", "blockwise")
    ),
    Task(
        name="collectives",
        part=4,
        on_card="bench collectives --nproc {cards} --size 1048576 --size 268435456",
        rehearsal="bench collectives --nproc 2 --size 4096 --repeats 2 --warmup 0",
        timeout_s=80,
        needs=("two cards",),
    ),
)
PARTS = tuple(sorted({task.part for task in TASKS}))


def tasks_of(parts: Sequence[int]) -> list[Task]:
    """Return the tasks of some parts, in order; all where none is named.

    Raises:
        BenchmarkError: There is no such part.
    """
    for part in parts:
        if part not in PARTS:
            raise BenchmarkError(f"--part {part}: there is {', '.join(map(str, PARTS))}")
    return [task for task in TASKS if not parts or task.part in parts]
