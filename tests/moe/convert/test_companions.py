"""What stands beside exported tensors: the next program ends, begins and chats as we do."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from data.build.build import build_store
from data.errors import DataError
from data.tokenization.tokenizer import local_tokenizer
from moe.config.locating import hub_folder
from moe.convert.hugging_face import checkpoint_model, from_hub, to_hub
from moe.convert.upcycle import Upcycling, upcycle
from moe.evaluation.text_interface import text_interface_of
from moescale import app
from tests.support.distributed import run_ranks
from tests.support.exported_models import (
    CHATML,
    SPECIAL,
    as_run,
    converted,
    write_base,
    write_conversations,
)
from tests.support.hf_reference_models import make_model

pytestmark = pytest.mark.needs("hub")

DIALOGUE = [{"role": "user", "content": "what"}]
END, TURN_START, TURN_END, BEGIN = SPECIAL


def values_of(folder: Path, name: str) -> Any:
    return json.loads((folder / name).read_text())


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`chat`: tuned on a conversation store. `begin`: a model whose texts begin with a token.

    The first one's texts also end with a special token that its template does not write.
    """
    root = tmp_path_factory.mktemp("bases")
    write_base(root / "chat-hub", pad_token=END, model_max_length=32)
    generation = {"temperature": 0.6, "eos_token_id": [0, 5, 259], "_from_model_config": True}
    (root / "chat-hub/generation_config.json").write_text(json.dumps(generation))
    write_base(root / "begin-hub", "mistral", with_bos=True, bos_token=BEGIN)
    for name in ("chat", "begin"):
        converted(root / f"{name}-hub", root / name)
    return root


@pytest.fixture(scope="module")
def tuned(bases: Path) -> Path:
    """The run of a base on conversations, exported."""
    store = write_conversations(bases / "chat-hub", bases / "talk")
    run = as_run(bases / "chat", store, bases / "run")
    assert to_hub(run, bases / "out").notes == ()
    return bases / "out"


def test_a_tuned_model_has_ends_settings_and_template(tuned: Path) -> None:
    ids = {"bos_token_id": None, "eos_token_id": [0, 258, 259], "pad_token_id": 0}
    config = values_of(tuned, "config.json")
    assert {key: config[key] for key in ids} == ids
    assert values_of(tuned, "generation_config.json") == {"temperature": 0.6, **ids}
    settings = values_of(tuned, "tokenizer_config.json")
    assert settings["chat_template"] == (tuned / "chat_template.jinja").read_text() == CHATML
    named = {key: settings[key] for key in ("bos_token", "eos_token", "pad_token")}
    assert named == {"bos_token": None, "eos_token": END, "pad_token": END}
    # The model's, as the original tokenizer's need not be that of the model as trained.
    assert settings["model_max_length"] == config["max_position_embeddings"] == 64
    assert settings["tokenizer_class"] == "PreTrainedTokenizerFast"


def test_transformers_takes_them_from_the_folder(tuned: Path, bases: Path) -> None:
    from transformers import AutoTokenizer, GenerationConfig

    theirs, ours = AutoTokenizer.from_pretrained(tuned), text_interface_of(bases / "run")
    assert theirs(TURN_START + "what").input_ids == [257, *ours.encode(["what"])[0]]
    asked = theirs.apply_chat_template(DIALOGUE, add_generation_prompt=True, return_dict=False)
    assert [asked] == ours.encode_questions(["what"])
    generation = GenerationConfig.from_pretrained(tuned)
    assert set(generation.eos_token_id) == ours.stop_ids == {0, 258, 259}
    assert (theirs.eos_token_id, theirs.pad_token_id, theirs.model_max_length) == (0, 0, 64)


def _answers(run: Path, prompts: list[list[int]]) -> list[list[int]]:
    from moe.evaluation.generation import Sampling, generate
    from moe.evaluation.loading import loaded_model

    stops = text_interface_of(run).stop_ids
    with loaded_model(run, device="cpu", batch_invariant=True) as model:
        sampling = Sampling(max_new_tokens=24)
        found = generate(model.chunk, prompts, sampling, stop_ids=stops, max_seq_len=64)
        return [one.tokens for one in found]


def test_generation_stops_where_ours_stops(bases: Path, tmp_path: Path) -> None:
    """The tokenizer is written last: its turn ends with a token that the model does write."""
    import torch
    from transformers import AutoModelForCausalLM

    prompts = [[7, 3, 9, 80], [20, 17, 3, 3]]

    def texts(folder: Path) -> list[list[int]]:
        model = AutoModelForCausalLM.from_pretrained(folder).eval()
        settings = {"do_sample": False, "max_new_tokens": 24}
        given = [torch.tensor([prompt]) for prompt in prompts]
        return [model.generate(ids, **settings)[0, 4:].tolist() for ids in given]

    base = tmp_path / "base"
    write_base(base)
    endless = texts(base)[0]
    index = next(i for i in range(2, 24) if endless[i] not in {*endless[:i], 0, 258})
    last = endless[index]
    tokenizer = values_of(base, "tokenizer.json")
    other = next(t for t, i in tokenizer["model"]["vocab"].items() if i == last)
    tokenizer["model"]["vocab"] |= {other: 258, TURN_END: last}
    tokenizer["added_tokens"][2]["id"] = last
    (base / "tokenizer.json").write_text(json.dumps(tokenizer))
    checkpoint = converted(base, tmp_path / "checkpoint")
    store = write_conversations(base, tmp_path / "talk")
    run = as_run(checkpoint, store, tmp_path / "run")
    to_hub(run, tmp_path / "out")
    theirs, ours = texts(tmp_path / "out"), run_ranks(1, _answers, run, prompts)[0]
    assert theirs[0] == [*ours[0], last] == endless[: index + 1]
    stops = {0, last}
    assert [[t for t in text if t not in stops] for text in theirs] == ours


def test_from_scratch_there_are_no_defaults_of_a_class(bases: Path, tmp_path: Path) -> None:
    """Of Mistral's, 1 and 2 would begin and end a text: bytes of a text, here."""
    from transformers import AutoConfig, AutoTokenizer

    (tmp_path / "in.txt").write_text("a model learns which expert reads the next token")
    build_store([tmp_path / "in.txt"], tmp_path / "store", tokenizer="bytes", held_out_fraction=0)
    run = as_run(bases / "begin", tmp_path / "store", tmp_path / "run")
    for file in (run / "hub").iterdir():  # as of a run that began with nothing
        file.unlink()
    (run / "hub").rmdir()
    to_hub(run, tmp_path / "out")
    config = AutoConfig.from_pretrained(tmp_path / "out")
    assert config.model_type == "mistral"
    assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == (None, 256, None)
    theirs = AutoTokenizer.from_pretrained(tmp_path / "out")
    text = "h\u00e9llo  w\u00f6rld\n\n \u4f60 \U0001f600 \x00\x7f"
    assert theirs(text).input_ids == list(text.encode())
    assert theirs.decode(theirs(text).input_ids) == text
    assert (theirs.eos_token, theirs.eos_token_id, theirs.bos_token) == (END, 256, None)
    assert local_tokenizer(tmp_path / "out").info.kind == "bytes"
    from_hub(tmp_path / "out", tmp_path / "back")
    assert text_interface_of(tmp_path / "back").stop_ids == {256}


def test_the_store_s_end_is_the_run_s_whatever_the_base_s_was(bases: Path, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("a model learns which expert reads the next token")
    build_store([tmp_path / "in.txt"], tmp_path / "store", tokenizer=str(bases / "begin-hub"),
                eos_token=TURN_START, held_out_fraction=0)  # fmt: skip
    run = as_run(bases / "begin", tmp_path / "store", tmp_path / "run")
    to_hub(run, tmp_path / "out")
    config, settings = (
        values_of(tmp_path / "out", f"{name}config.json") for name in ("", "tokenizer_")
    )
    assert (config["bos_token_id"], config["eos_token_id"]) == (259, 257)
    assert (settings["bos_token"], settings["eos_token"]) == (BEGIN, TURN_START)
    assert text_interface_of(run).stop_ids == {257}
    assert text_interface_of(run).encode(["a"])[0][0] == 259
    from_hub(tmp_path / "out", tmp_path / "back")
    assert text_interface_of(tmp_path / "back").stop_ids == {257}


TEMPLATES = {"default": CHATML, "tool_use": "{{ tools }}" + CHATML}


@pytest.mark.parametrize("form", ["files", "list"])
def test_further_templates_stay_with_their_own_and_go_with_another(
    bases: Path, tmp_path: Path, form: str
) -> None:
    from transformers import AutoTokenizer

    base = tmp_path / "base"
    base.mkdir()
    for file in (bases / "begin-hub").iterdir():
        (base / file.name).write_bytes(file.read_bytes())
    if form == "files":
        (base / "additional_chat_templates").mkdir()
        (base / "chat_template.jinja").write_text(CHATML)
        (base / "additional_chat_templates/tool_use.jinja").write_text(TEMPLATES["tool_use"])
    else:
        settings = values_of(base, "tokenizer_config.json")
        settings["chat_template"] = [{"name": k, "template": v} for k, v in TEMPLATES.items()]
        (base / "tokenizer_config.json").write_text(json.dumps(settings))
    checkpoint = converted(base, tmp_path / "checkpoint")
    to_hub(checkpoint, tmp_path / "same")
    assert AutoTokenizer.from_pretrained(tmp_path / "same").chat_template == TEMPLATES
    for template, kept in (("chatml", TEMPLATES), ("plain", None)):
        store = write_conversations(base, tmp_path / template, template)
        run = as_run(checkpoint, store, tmp_path / f"run-{template}")
        notes = to_hub(run, tmp_path / f"out-{template}").notes
        theirs = AutoTokenizer.from_pretrained(tmp_path / f"out-{template}").chat_template
        own = text_interface_of(run).chat
        assert own is not None and theirs == (kept or own.template)
        assert bool(notes) == (kept is None)


def test_an_upcycled_model_keeps_what_its_text_needs(
    bases: Path, tuned: Path, tmp_path: Path
) -> None:
    how = Upcycling(num_experts=2, top_k=2)
    for source in ("run", "chat"):
        sparse = tmp_path / source
        upcycle(bases / source, sparse, how)
        assert text_interface_of(sparse).stop_ids == text_interface_of(bases / source).stop_ids
        to_hub(sparse, tmp_path / f"{source}-out")
        ends = values_of(tmp_path / f"{source}-out", "config.json")["eos_token_id"]
        assert ends == {"run": [0, 258, 259], "chat": [0, 5, 259]}[source]
    assert (tmp_path / "run-out/chat_template.jinja").read_text() == CHATML


def test_ids_are_kept_where_the_tokenizer_is_of_another_kind(bases: Path, tmp_path: Path) -> None:
    """As of SentencePiece, whose file is not read here."""
    base = tmp_path / "base"
    make_model("qwen3", base, eos_token_id=[5, 7], pad_token_id=9)
    (base / "generation_config.json").unlink()
    (base / "tokenizer.model").write_bytes(b"")
    checkpoint = converted(base, tmp_path / "checkpoint")
    upcycle(checkpoint, tmp_path / "sparse", Upcycling(num_experts=2, top_k=2))
    for name in ("checkpoint", "sparse"):
        assert to_hub(tmp_path / name, tmp_path / f"{name}-out").notes == ()
        config = values_of(tmp_path / f"{name}-out", "config.json")
        ids = [config[f"{key}_token_id"] for key in ("bos", "eos", "pad")]
        assert ids == [None, [5, 7], 9]


def test_there_and_back_the_settings_are_those_of_the_original(bases: Path, tmp_path: Path) -> None:
    to_hub(bases / "chat", tmp_path / "out")
    before, after = (
        values_of(f, "tokenizer_config.json") for f in (bases / "chat-hub", tmp_path / "out")
    )
    assert after == before | {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": None}
    assert (tmp_path / "out/tokenizer.json").read_bytes() == (
        bases / "chat-hub/tokenizer.json"
    ).read_bytes()
    assert checkpoint_model(bases / "chat").max_seq_len == 64 != after["model_max_length"]


def test_an_export_without_a_tokenizer_says_so(bases: Path, tmp_path: Path) -> None:
    run = as_run(bases / "begin", tmp_path / "gone", tmp_path / "run")
    result = CliRunner().invoke(app, ["convert", "to-hf", str(run), "-o", str(tmp_path / "out")])
    assert result.exit_code == 0
    assert f"moe: {tmp_path / 'out'}: no tokenizer is known of it" in result.stderr
    assert values_of(tmp_path / "out", "config.json")["eos_token_id"] is None


def test_a_tokenizer_that_cannot_be_used_here_is_copied(bases: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    write_base(base)
    (base / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<none>"}))
    (base / "generation_config.json").write_text(json.dumps({"eos_token_id": 7}))
    notes = to_hub(converted(base, tmp_path / "checkpoint"), tmp_path / "out").notes
    assert len(notes) == 1 and "copied as they are" in notes[0] and "<none>" in notes[0]
    assert values_of(tmp_path / "out", "config.json")["eos_token_id"] == 7
    assert values_of(tmp_path / "out", "tokenizer_config.json") == {"eos_token": "<none>"}


@pytest.mark.parametrize("fault", ["link", "code"])
def test_a_hostile_folder_is_refused_before_tensors_are_converted(
    bases: Path, tmp_path: Path, fault: str
) -> None:
    base = tmp_path / "base"
    base.mkdir()
    for file in (bases / "begin-hub").iterdir():
        (base / file.name).symlink_to(file)
        if file.name != "tokenizer.json" or fault == "code":
            (base / file.name).unlink()
            (base / file.name).write_bytes(file.read_bytes())
    if fault == "code":
        values = {"auto_map": {"AutoTokenizer": ["tok.T", None]}}
        (base / "tokenizer_config.json").write_text(json.dumps(values))
    progress: list[int] = []
    message = {"link": "leads out of its folder", "code": "auto_map names code"}[fault]
    with pytest.raises(DataError, match=message):
        from_hub(base, tmp_path / "out", lambda done, _: progress.append(done))
    assert not progress and not (tmp_path / "out").exists()


def test_no_folder_beside_the_runs_is_taken_for_theirs(bases: Path, tmp_path: Path) -> None:
    run = as_run(bases / "begin", tmp_path / "gone", tmp_path / "run")
    (tmp_path / "hub").mkdir()
    assert hub_folder(run) == run / "hub"
    (run / "hub").rename(tmp_path / "away")
    assert hub_folder(run) is None
    assert hub_folder(run / "checkpoints/step-00000001") is None
