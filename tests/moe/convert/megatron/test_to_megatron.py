"""What we write, megatron-core's own loader reads, into its own model and into ours."""

from pathlib import Path

import numpy as np
import pytest
import torch

from moe.convert.megatron.from_megatron import from_megatron
from moe.convert.megatron.to_megatron import to_megatron
from tests.support.architecture_options import CONFIGS
from tests.support.distributed import run_ranks
from tests.support.hf_rank_jobs import all_logits
from tests.support.megatron_models import logits_of_loaded, resave
from tests.support.random_checkpoints import random_checkpoint, whole_tensors

pytestmark = pytest.mark.engine

OF_MEGATRON_CORE = ("dense", "qkv_bias", "sigmoid_bias_groups", "first_dense", "predicting_tied")
"""Models that megatron-core's local spec builds."""
OF_OURS = ("latent_dense", "deepseek_v3", "shared_gate")
"""Models that it builds with Transformer Engine alone: our modules under the same names."""


def test_megatron_core_loads_what_we_write(tmp_path: Path) -> None:
    tokens = torch.randint(0, 264, (2, 24), generator=torch.Generator().manual_seed(4))
    ours = {
        kind: random_checkpoint(tmp_path / f"{kind}-ours", CONFIGS[kind])
        for kind in OF_MEGATRON_CORE + OF_OURS
    }
    theirs = {
        kind: to_megatron(path, tmp_path / kind).path / "release" for kind, path in ours.items()
    }
    wanted = run_ranks(1, all_logits, ours, {}, tokens)[0]
    directories = {kind: theirs[kind] for kind in OF_MEGATRON_CORE}
    found = run_ranks(1, logits_of_loaded, directories, {}, tokens)[0]
    sharded = {"sigmoid_bias_groups": theirs["sigmoid_bias_groups"]}
    over_ranks = run_ranks(2, logits_of_loaded, sharded, {"ep": 2}, tokens)
    models = {kind: CONFIGS[kind] for kind in OF_OURS}
    directories = {kind: theirs[kind] for kind in OF_OURS}
    again = run_ranks(1, resave, models, directories, tmp_path / "again", tokens)[0]
    for logits_by_kind in (found, *over_ranks, again):
        for kind, logits in logits_by_kind.items():
            limit = 2e-5 * max(1.0, np.abs(wanted[kind]).max())
            assert np.abs(logits - wanted[kind]).max() < limit, kind
    for kind in OF_OURS:
        back = from_megatron(tmp_path / "again" / kind, tmp_path / f"{kind}-back")
        before, after = whole_tensors(ours[kind]), whole_tensors(back.path)
        assert before.keys() == after.keys()
        assert all(torch.equal(before[key], after[key]) for key in before), kind
