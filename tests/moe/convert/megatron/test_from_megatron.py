"""What megatron-core saves of its own GPTModel, in any layout, computes the same here."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from moe.convert.megatron.from_megatron import from_megatron
from tests.support.distributed import run_ranks
from tests.support.hf_rank_jobs import all_logits
from tests.support.megatron_models import CASES, gpt_logits, save_all

pytestmark = pytest.mark.engine

LAYOUTS: dict[str, tuple[dict[str, int], dict[str, Any], tuple[str, ...]]] = {
    "tp": ({"tp": 2}, {}, ("first_dense", "biased")),
    "ep": ({"ep": 2}, {"singleton_local_shards": True}, ("biased",)),
    "pp": ({"pp": 2}, {}, ("tied", "dense")),
}
"""A layout, metadata of the sharding, and the models saved in it."""


ALONE = ("before_softmax", "llama3", "gpt_oss")
"""Models that one process saves."""


def test_logits_are_those_of_megatron_cores_model(tmp_path: Path) -> None:
    tokens = torch.randint(0, 250, (2, 24), generator=torch.Generator().manual_seed(4))
    theirs = run_ranks(1, gpt_logits, CASES, tokens, tmp_path / "alone", ALONE)[0]
    for layout, (sizes, metadata, names) in LAYOUTS.items():
        cases = {name: CASES[name] for name in names}
        ranks = math.prod(sizes.values())
        run_ranks(ranks, save_all, tmp_path / layout, cases, sizes, metadata)
    checkpoints = {}
    for layout, names in {"alone": ALONE, **{key: of[2] for key, of in LAYOUTS.items()}}.items():
        for name in names:
            done = from_megatron(tmp_path / layout / name, tmp_path / f"{layout}-{name}")
            checkpoints[f"{layout}-{name}"] = done.path
            assert "256 rows cut to vocab_size = 250" in "".join(done.notes)
            assert "of extra state left behind" in "".join(done.notes)
    ours = run_ranks(1, all_logits, checkpoints, {}, tokens)[0]
    assert {place.partition("-")[2] for place in ours} == CASES.keys()
    for place, logits in ours.items():
        wanted = theirs[place.partition("-")[2]][..., :250]
        assert np.abs(logits - wanted).max() < 2e-5 * max(1.0, np.abs(wanted).max()), place
