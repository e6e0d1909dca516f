"""Converted models in use: greedy text equal to transformers', and training that goes on."""

import json
from pathlib import Path
from typing import Any

import pytest

from data.build.build import build_store
from data.tokenization.tokenizer import train_bpe
from moe.config.experiment import make_experiment
from moe.convert.hugging_face import from_hub
from tests.support.distributed import run_ranks
from tests.support.hf_reference_models import make_model
from tests.support.trained_runs import command

FAMILIES = ("mixtral", "qwen3_moe", "deepseek_v3", "gpt_oss")
PROMPTS = [[7, 3, 9, 80, 4, 8, 5, 1, 77], [5], [20, 17, 3, 3]]
NEW = 20


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp(request.param)
    model = make_model(request.param, folder / "hub")
    from_hub(folder / "hub", folder / "checkpoint")
    return model, folder / "checkpoint"


def _ours(checkpoint: Path) -> list[list[int]]:
    from moe.evaluation.generation import Sampling, generate
    from moe.evaluation.loading import loaded_model

    with loaded_model(checkpoint, device="cpu", batch_invariant=True) as model:
        found = generate(
            model.chunk,
            PROMPTS,
            Sampling(max_new_tokens=NEW),
            stop_ids=frozenset(),
            max_seq_len=model.config.max_seq_len,
        )
        return [one.tokens for one in found]


@pytest.mark.engine
def test_greedy_text_equals_transformers(family: Any) -> None:
    import torch

    model, checkpoint = family
    expected = [
        model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.int64),
            do_sample=False,
            max_new_tokens=NEW,
            pad_token_id=0,
        )[0, len(prompt) :].tolist()
        for prompt in PROMPTS
    ]
    assert run_ranks(1, _ours, checkpoint)[0] == expected
    assert len({tuple(text) for text in expected}) == len(PROMPTS)


@pytest.fixture(scope="module")
def with_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A converted model with a tokenizer that begins every text, and a chat template."""
    folder = tmp_path_factory.mktemp("hub")
    make_model("qwen3_moe", folder / "hub")
    config = json.loads((folder / "hub/config.json").read_text())
    tokenizer = json.loads(train_bpe(["a model learns " * 20], 300).text)
    vocabulary = tokenizer["model"]["vocab"]
    begin = tokenizer["added_tokens"][0]["id"]
    tokenizer["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}},
                   {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<|endoftext|>": {"id": "<|endoftext|>", "ids": [begin],
                                             "tokens": ["<|endoftext|>"]}},
    }  # fmt: skip
    assert config["vocab_size"] == 96 < len(vocabulary)
    (folder / "hub/tokenizer.json").write_text(json.dumps(tokenizer))
    (folder / "hub/tokenizer_config.json").write_text(
        json.dumps(
            {"chat_template": "{{ messages[0].content }}{% if add_generation_prompt %}?{% endif %}"}
        )
    )
    (folder / "hub/generation_config.json").write_text(json.dumps({"eos_token_id": [3, 4]}))
    from_hub(folder / "hub", folder / "checkpoint")
    return folder / "checkpoint"


def _language(checkpoint: Path) -> Any:
    from moe.evaluation.text_interface import text_interface_of

    language = text_interface_of(checkpoint)
    tokenizer = language.tokenizer
    return (
        language.stop_ids,
        language.encode(["a"]),
        [*language.prefix, *tokenizer.encode("a").tolist()],
        tokenizer.info.eos_id,
        language.chat is not None and language.encode_questions(["a"]),
        tokenizer.encode("a?").tolist(),
    )


def test_prompts_are_as_transformers_makes_them(with_tokenizer: Path) -> None:
    stops, prompts, expected, eos, questions, asked = run_ranks(1, _language, with_tokenizer)[0]
    assert stops == {3, 4, eos}
    assert prompts == [expected] and expected[0] == eos
    assert questions == [asked]


@pytest.mark.engine
def test_training_goes_on_from_a_converted_model(family: Any, tmp_path: Path) -> None:
    """Without a [model]; the first loss is that of transformers' own model."""
    import torch

    model, checkpoint = family
    (tmp_path / "text.txt").write_text("".join(chr(33 + i * i % 60) for i in range(3000)))
    store = build_store([tmp_path / "text.txt"], tmp_path / "store", tokenizer="bytes",
                        held_out_fraction=0)  # fmt: skip
    assert store.tokens == 3001
    values = {
        "train": {"steps": 3, "seq_len": 32, "global_batch_size": 2, "init": str(checkpoint),
                  "learning_rate": 1e-3},
        "data": {"store": str(tmp_path / "store"), "prefetch_steps": 0},
        "parallel": {"device": "cpu"},
    }  # fmt: skip
    experiment = make_experiment(values)
    assert experiment.model.num_layers == 3 and experiment.model.vocab_size == 96
    losses, tokens, labels = run_ranks(1, _losses, experiment)[0]
    with torch.no_grad():
        logits = model(torch.from_numpy(tokens)).logits
    wanted = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), torch.from_numpy(labels).flatten()
    )
    assert losses[0] == pytest.approx(float(wanted), rel=1e-4)
    assert losses[-1] < losses[0]


def _losses(experiment: Any) -> Any:
    import numpy as np
    import torch

    from moe.training.step import train_step
    from tests.support.layout_equivalence import started

    with started(experiment.model_copy(update={"data": _narrow(experiment)})) as trainer:
        batches = trainer.loader.step(0)
        losses = []
        for _ in range(experiment.train.steps):
            trainer.loader.step = lambda index: batches
            losses.append(train_step(trainer, 0).loss)
        tokens = torch.cat([b.tokens for b in batches]).numpy()
        labels = torch.cat([b.labels for b in batches]).numpy()
        assert np.max(labels) < 96
        return losses, tokens, labels


def _narrow(experiment: Any) -> Any:
    """The byte tokenizer has 257 ids, of which this text uses fewer than the model's rows."""
    from data.loading import samples

    samples._open_stores = _any_vocabulary(samples._open_stores)
    return experiment.data


def _any_vocabulary(opened: Any) -> Any:
    return lambda config, _vocab_size: opened(config, None)


def test_generate_needs_a_tokenizer(family: Any) -> None:
    code, out, err = command("generate", str(family[1]), "text")
    assert (code, out) == (2, "")
    assert "no tokenizer is known: give a store with --store" in err
