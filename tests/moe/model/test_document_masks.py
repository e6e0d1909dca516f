"""Document masks from the loader to attention: both kernel sets attend only within documents."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from data.build.build import build_store
from data.loading.packing import pack_store
from data.store.reader import Store
from moe.config.experiment import Experiment
from moe.errors import ConfigError
from tests.support.architecture_options import CONFIGS, Computed, compute
from tests.support.distributed import run_ranks
from tests.support.layout_equivalence import assemble, make, worst_difference
from tests.support.reference_model import SlowModel

pytestmark = pytest.mark.engine
TRAIN = {"seq_len": 24, "micro_batch_size": 2, "global_batch_size": 4}
NAMES = ("dense", "gpt_oss", "latent", "predicting_twice")
"""Plain, with windows and sinks, with latent attention, and predicting beyond the next token."""
PACKINGS = ("concatenate", "best_fit")


@pytest.fixture(scope="module")
def short_documents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("documents")
    for index in range(120):
        (folder / f"{index:03d}.txt").write_text(f"{index} " + "reads " * (index % 4))
    build_store([folder], folder / "store", tokenizer="bytes", held_out_fraction=0.1)
    pack_store(Store.open(folder / "store"), TRAIN["seq_len"])
    return folder / "store"


def experiments(
    store: Path, packing: str, layout: dict[str, Any], **train: Any
) -> dict[str, Experiment]:
    data = {"store": str(store), "prefetch_steps": 0, "document_mask": True, "packing": packing}
    layout = layout | {"distributed_optimizer": False}
    return {
        name: make(store, layout, model=CONFIGS[name].model_dump(), train=TRAIN | train, data=data)
        for name in NAMES
    }


@pytest.fixture(scope="module")
def alone(short_documents: Path) -> dict[str, dict[str, Computed]]:
    return {
        packing: run_ranks(1, compute, experiments(short_documents, packing, {}))[0]
        for packing in PACKINGS
    }


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("name", NAMES)
def test_torch_kernels_see_only_each_document(
    name: str, packing: str, alone: dict[str, dict[str, Computed]]
) -> None:
    """Loss, logits and gradients of a model that masks every pair of tokens by itself."""
    found = alone[packing][name]
    weights = {k: torch.tensor(v).requires_grad_() for k, v in assemble([found.weights]).items()}
    model = SlowModel(CONFIGS[name], weights)
    batches = [{k: torch.from_numpy(v) for k, v in batch.items()} for batch in found.batches]
    assert all(batch["cu_seqlens"].numel() > 4 for batch in batches)
    all_tokens = sum(batch["tokens"].numel() for batch in batches)
    assert found.tokens < all_tokens or packing == "best_fit"
    with torch.no_grad():
        logits = model.logits(batches[0]["tokens"], batches[0]["cu_seqlens"])
        unmasked = model.logits(batches[0]["tokens"])
    assert found.logits is not None
    assert np.abs(found.logits - logits.numpy()).max() < 1e-4
    assert np.abs(found.logits - unmasked.numpy()).max() > 1e-2
    step = model.step(batches)
    assert found.loss_sum == pytest.approx(step.losses.item(), rel=1e-5)
    (step.objective / found.tokens).backward()
    gradients = assemble([found.gradients])
    for key, weight in weights.items():
        assert weight.grad is not None, key
        largest = max(float(weight.grad.abs().max()), 1e-6)
        assert np.abs(gradients[key] - weight.grad.numpy()).max() / largest < 1e-4, key


@pytest.mark.parametrize("layout", [{"cp": 2}, {"tp": 2}, {"pp": 2}], ids=["cp2", "tp2", "pp2"])
def test_layouts_see_the_same_documents(
    layout: dict[str, Any], short_documents: Path, alone: dict[str, dict[str, Computed]]
) -> None:
    names = [n for n in NAMES if n != "predicting_twice" or "pp" not in layout]
    wanted = {
        n: e for n, e in experiments(short_documents, "best_fit", layout).items() if n in names
    }
    ranks = run_ranks(2, compute, wanted)
    for name in names:
        parts = [rank[name] for rank in ranks]
        expected = assemble([alone["best_fit"][name].gradients])
        difference, key = worst_difference(expected, assemble([part.gradients for part in parts]))
        assert difference < 1e-4, (name, key)


def _given_to_te_model(experiment: Experiment, te: Experiment) -> list[dict[str, Any]]:
    """Return what the training loop calls a model of kernel set `te` with."""
    from moe.training.loader import open_loader
    from moe.training.objective.micro_batches import MicroBatchRunner
    from parallel.engine.start import start_engine, stop_engine

    start_engine(experiment.parallel, seed=0)
    loader = open_loader(te, "train", ranks=1)
    given: list[dict[str, Any]] = []

    def model(tokens: Any, positions: Any, **inputs: Any) -> Any:
        packed = inputs["packed_seq_params"]
        cu_seqlens = packed.cu_seqlens_q
        assert cu_seqlens.dtype == torch.int32
        assert torch.equal(cu_seqlens, packed.cu_seqlens_kv)
        given.append(
            {
                "tokens": tokens.numpy(),
                "positions": positions.numpy(),
                "cu_seqlens": cu_seqlens.tolist(),
                "attention_mask": inputs["attention_mask"],
                **{name: getattr(packed, name) for name in (
                    "qkv_format", "max_seqlen_q", "max_seqlen_kv", "cu_seqlens_q_padded",
                    "cu_seqlens_kv_padded")},
            }
        )  # fmt: skip
        return tokens.float()

    batches = loader.step(0)
    forward = MicroBatchRunner(te, torch.device("cpu"))._forward_step
    for batch in batches:
        forward(None, iter([(batch, None)]), model)  # type: ignore[arg-type]
    for call, batch in zip(given, batches, strict=True):
        assert call["cu_seqlens"] == batch.cu_seqlens.tolist()
    stop_engine()
    return given


@pytest.mark.parametrize("packing", PACKINGS)
def test_te_kernels_receive_cu_seqlens(packing: str, short_documents: Path) -> None:
    """Transformer Engine's packed format: one row, cu_seqlens on the device, positions restart."""
    plain = experiments(short_documents, packing, {}, micro_batch_size=1)["dense"]
    te = plain.model_copy(
        update={"precision": plain.precision.model_copy(update={"kernels": "te"})}
    )
    calls = run_ranks(1, _given_to_te_model, plain, te)[0]
    assert len(calls) == TRAIN["global_batch_size"]
    for call in calls:
        assert call["tokens"].shape == (1, TRAIN["seq_len"])
        assert call["attention_mask"] is None and call["qkv_format"] == "thd"
        assert call["cu_seqlens_q_padded"] is None and call["cu_seqlens_kv_padded"] is None
        lengths = np.diff(call["cu_seqlens"]).tolist()
        assert call["max_seqlen_q"] == call["max_seqlen_kv"] == max(lengths) < TRAIN["seq_len"] + 1
        assert call["positions"][0].tolist() == [p for n in lengths for p in range(n)]
    assert sum(len(call["cu_seqlens"]) for call in calls) > 2 * len(calls)


@pytest.mark.parametrize("change", [{"train": {"micro_batch_size": 2}}, {"parallel": {"cp": 2}}])
def test_what_te_cannot_pack_is_refused(change: dict[str, Any], short_documents: Path) -> None:
    train = TRAIN | {"micro_batch_size": 1} | change.get("train", {})
    with pytest.raises(ConfigError, match="document_mask with precision"):
        make(
            short_documents,
            change.get("parallel", {}),
            model=CONFIGS["dense"].model_dump(),
            train=train,
            data={"store": str(short_documents), "document_mask": True},
            precision={"kernels": "te", "dtype": "bf16"},
        )
