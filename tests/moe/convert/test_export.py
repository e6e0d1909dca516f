"""A run's checkpoint becomes a Hugging Face model, and comes back, its prediction layer with it."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from data.tokenization.tokenizer import byte_tokenizer
from moe.convert.hugging_face import checkpoint_model, from_hub, to_hub
from tests.support.architecture_options import CONFIGS
from tests.support.distributed import run_ranks
from tests.support.hf_rank_jobs import all_logits, train_one_step
from tests.support.layout_equivalence import make

pytestmark = pytest.mark.engine


@pytest.mark.needs("hub")
def test_a_run_of_any_layout_becomes_transformers_model(store: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    model = CONFIGS["deepseek_v3"].model_dump() | {"vocab_size": 264}
    model["moe"] |= {"shared_expert_ffn_hidden_size": 12, "group_score_experts": 2}
    experiment = make(store, {"tp": 2, "ep": 2}, model=model, train={"steps": 1, "warmup_steps": 0})
    run = tmp_path / "run"
    run.mkdir()
    (run / "experiment.toml").write_text(experiment.to_toml())
    run_ranks(2, train_one_step, run, experiment)
    done = to_hub(run, tmp_path / "run-hub")
    assert done.family == "deepseek_v3"
    assert (tmp_path / "run-hub/tokenizer.json").read_text() == byte_tokenizer().hub_text
    back = AutoModelForCausalLM.from_pretrained(
        tmp_path / "run-hub", dtype=torch.float32, attn_implementation="eager"
    )
    from_hub(tmp_path / "run-hub", tmp_path / "run-again")
    assert checkpoint_model(tmp_path / "run-again").mtp_layers == 1
    tokens = torch.randint(0, 264, (2, 24))
    paths = {"run": run / "checkpoints/step-00000001", "again": tmp_path / "run-again"}
    ours = run_ranks(1, all_logits, paths, {}, tokens)[0]
    with torch.no_grad():
        assert np.abs(ours["run"] - back(tokens).logits.numpy()).max() < 1e-5
    assert np.array_equal(ours["run"], ours["again"])
    to_hub(tmp_path / "run-again", tmp_path / "run-hub-again")
    before, after = (
        load_file(tmp_path / name / "model.safetensors") for name in ("run-hub", "run-hub-again")
    )
    assert before.keys() == after.keys()
    assert "model.layers.2.eh_proj.weight" in before
    assert all(torch.equal(before[name], after[name]) for name in before)
