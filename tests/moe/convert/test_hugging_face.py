"""Conversion against transformers' own models: logits, loss, gradients, every tensor."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from moe.convert.hugging_face import checkpoint_model, from_hub, to_hub
from moe.convert.registry import FAMILIES
from moe.convert.tensor_map import tensor_map
from tests.support.distributed import run_ranks
from tests.support.hf_rank_jobs import all_logits, run_model
from tests.support.hf_reference_models import (
    LENGTH,
    MODELS,
    PADDING,
    Reference,
    make_model,
    reference,
)
from tests.support.layout_equivalence import assemble

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hub")


@pytest.fixture(scope="module", params=MODELS)
def converted(request: pytest.FixtureRequest, folder: Path) -> tuple[str, Reference, Path]:
    kind = request.param
    model = make_model(kind, folder / kind)
    expected = reference(model)
    from_hub(folder / kind, folder / f"{kind}-checkpoint")
    return kind, expected, folder / f"{kind}-checkpoint"


def test_model_computes_the_same(
    converted: tuple[str, Reference, Path], record_property: Any
) -> None:
    kind, expected, checkpoint = converted
    cu_seqlens = torch.tensor([0, LENGTH, LENGTH + PADDING, 2 * LENGTH], dtype=torch.int32)
    found = run_ranks(1, run_model, checkpoint, expected.tokens, cu_seqlens)[0]
    logits = _worst(found["logits"], expected.logits)
    padded = found["documents"] - expected.padded_logits.numpy()
    loss = abs(found["loss"] - expected.loss)
    gradients = _gradient_difference(kind, checkpoint, found["gradients"], expected)
    record_property(kind, f"logits {logits:.1e} gradients {gradients:.1e}")
    print(f"{kind}: logits {logits:.1e}, loss {loss:.1e}, gradients {gradients:.1e}")
    assert expected.logits.std() > 0.3
    assert logits < 1e-4
    assert np.abs(padded[0]).max() < 1e-4
    assert np.abs(padded[1, PADDING:]).max() < 1e-4
    assert loss < 1e-4
    assert gradients < 1e-4


def _worst(one: Any, other: Any) -> float:
    return float(np.abs(np.asarray(one) - np.asarray(other)).max())


def _gradient_difference(kind: str, checkpoint: Path, blocks: Any, expected: Reference) -> float:
    """Return the largest difference of any gradient, relative to its tensor's largest value."""
    ours = assemble([blocks])
    mapping = tensor_map(checkpoint_model(checkpoint), FAMILIES[kind].names)
    assert mapping.theirs.keys() == expected.gradients.keys()
    worst = 0.0
    for pair in mapping.pairs:
        if pair.theirs.endswith("e_score_correction_bias"):
            continue
        place = tuple(slice(a, a + n) for a, n in zip(pair.start, pair.shape, strict=True))
        theirs = expected.gradients[pair.theirs][pair.where]
        theirs = theirs.transpose(-2, -1) if pair.transposed else theirs
        mine = ours[pair.ours][place].reshape(theirs.shape)
        largest = float(expected.gradients[pair.theirs].abs().max())
        worst = max(worst, _worst(mine, theirs) / max(largest, 1e-6))
    return worst


def test_round_trip_is_bit_equal(converted: tuple[str, Reference, Path], folder: Path) -> None:
    kind, _, checkpoint = converted
    done = to_hub(checkpoint, folder / f"{kind}-back")
    before, after = (load_file(folder / f / "model.safetensors") for f in (kind, f"{kind}-back"))
    assert done.family == kind
    assert before.keys() == after.keys()
    assert [name for name in before if not torch.equal(before[name], after[name])] == []


@pytest.fixture(scope="module")
def four_layers(folder: Path) -> tuple[dict[str, Path], dict[str, Any]]:
    """Checkpoints of models that two stages can share, and transformers' logits."""
    paths, expected = {}, {}
    for kind in MODELS:
        model = make_model(kind, folder / f"{kind}-4", num_hidden_layers=4)
        paths[kind] = folder / f"{kind}-4-checkpoint"
        from_hub(folder / f"{kind}-4", paths[kind])
        expected[kind] = model(_tokens()).logits.detach()
    return paths, expected


@pytest.mark.parametrize("layout", [{"tp": 2}, {"ep": 2}, {"pp": 2}], ids=["tp2", "ep2", "pp2"])
def test_every_layout_computes_the_same(
    layout: dict[str, int], four_layers: tuple[dict[str, Path], dict[str, Any]]
) -> None:
    paths, expected = four_layers
    if "ep" in layout:
        paths = {kind: path for kind, path in paths.items() if checkpoint_model(path).moe}
    ranks = run_ranks(2, all_logits, paths, layout, _tokens())
    assert len(paths) >= 8
    differences = {}
    for kind in paths:
        parts = [rank[kind] for rank in ranks]
        found = np.concatenate(parts, axis=-1) if "tp" in layout else parts[-1]
        differences[kind] = _worst(found, expected[kind])
    assert max(differences.values()) < 1e-4, differences


def _tokens() -> torch.Tensor:
    return torch.randint(0, 96, (2, 64), generator=torch.Generator().manual_seed(4))
