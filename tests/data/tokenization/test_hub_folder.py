"""A stranger's tokenizer folder: no code is run, no link leads out, no fault is a traceback."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from tokenizers import models, processors

from data.errors import DataError
from data.tokenization.hub_folder import copy_hub_files, hub_file, hub_json
from data.tokenization.tokenizer import Tokenizer, local_tokenizer, train_bpe

TEXT = train_bpe(["a model learns"], 270).text


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "folder"
    made.mkdir()
    (made / "tokenizer.json").write_text(TEXT)
    return made


def refusal(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        local_tokenizer(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


CODE = {"AutoTokenizer": ["tok.T", "tok.T"]}


@pytest.mark.parametrize("with_json", [True, False])
@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("tokenizer_config.json", {"auto_map": CODE, "tokenizer_class": "T"}),
        ("tokenizer_config.json", {"auto_map": ["tok.T", None]}),
        ("config.json", {"model_type": "evil", "auto_map": {"AutoTokenizer": ["tok.T", None]}}),
    ],
)
def test_code_is_neither_asked_for_nor_run(
    folder: Path, monkeypatch: pytest.MonkeyPatch, with_json: bool, name: str, values: Any
) -> None:
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked"))
    (folder / name).write_text(json.dumps(values))
    (folder / "tok.py").write_text(f"open({str(folder / 'ran')!r}, 'w')")
    if not with_json:
        (folder / "tokenizer.json").unlink()
    assert f"{name}: auto_map names code" in refusal(folder)
    assert not (folder / "ran").exists()


@pytest.mark.needs("hub")
def test_code_of_the_model_alone_is_never_asked_for(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DeepSeek's folders name code for the model; their tokenizers need none."""
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked"))
    values = {"model_type": "evil", "auto_map": {"AutoConfig": "conf.C"}}
    (folder / "config.json").write_text(json.dumps(values))
    assert local_tokenizer(folder).text == TEXT
    (folder / "tokenizer.json").unlink()
    assert "not a tokenizer that transformers can read" in refusal(folder)


def test_a_link_out_of_the_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        file = folder / name
        file.unlink(missing_ok=True)
        (tmp_path / name).write_text("{}")
        file.symlink_to(tmp_path / name)
        assert f"{file}: a link that leads out of its folder" in refusal(folder)
        with pytest.raises(DataError, match="leads out of its folder"):
            copy_hub_files(folder, tmp_path, ("tokenizer*",))
        file.unlink()
        file.write_text(TEXT)


@pytest.mark.needs("hub")
@pytest.mark.parametrize("name", ["vocab.json", "chat_template.jinja"])
def test_no_library_follows_a_link_out(folder: Path, tmp_path: Path, name: str) -> None:
    (folder / "tokenizer.json").unlink()
    (tmp_path / name).write_text("{}")
    (folder / name).symlink_to(tmp_path / name)
    assert f"{folder / name}: a link that leads out of its folder" in refusal(folder)


def test_links_of_hugging_face_s_cache_are_followed(tmp_path: Path) -> None:
    repository = tmp_path / "models--a--b"
    folder = repository / "snapshots/0123"
    for made in (folder, repository / "blobs"):
        made.mkdir(parents=True)
    (repository / "blobs/ab12").write_text(TEXT)
    (folder / "tokenizer.json").symlink_to("../../blobs/ab12")
    (folder / "same.json").symlink_to("tokenizer.json")
    assert local_tokenizer(folder).text == TEXT
    assert hub_file(folder, "same.json") == folder / "same.json"
    (tmp_path / "link").symlink_to(folder)
    assert local_tokenizer(tmp_path / "link").text == TEXT
    assert hub_file(folder, "none.json") is None


def test_what_is_no_file_is_refused(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    os.mkfifo(folder / "tokenizer.json")
    assert "not a regular file" in refusal(folder)
    for target in ("tokenizer.json", "none"):  # a circle, and nothing
        (folder / "tokenizer.json").unlink()
        (folder / "tokenizer.json").symlink_to(target)
        assert "tokenizer.json: " in refusal(folder)


@pytest.mark.parametrize("content", ["[]", "[" * 100_000, '"a"', "\ud800"])
def test_settings_that_are_no_object_are_refused(folder: Path, content: str) -> None:
    (folder / "tokenizer_config.json").write_bytes(content.encode(errors="surrogatepass"))
    assert "not a JSON object: mend it or pass --eos" in refusal(folder)
    with pytest.raises(DataError, match="not a JSON object: mend it"):
        hub_json(folder, "tokenizer_config.json")


def test_an_end_that_older_folders_name_apart_is_taken(folder: Path) -> None:
    (folder / "special_tokens_map.json").write_text(json.dumps({"eos_token": {"content": "a"}}))
    assert local_tokenizer(folder).info.eos_token == "a"
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "e"}))
    assert local_tokenizer(folder).info.eos_token == "e"


def test_a_panic_of_the_library_is_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    values = json.loads(TEXT)
    values["normalizer"] = {"type": "Precompiled", "precompiled_charsmap": "AAAA"}
    with pytest.raises(DataError, match=r"^t: not a tokenizer.json: Precompiled.*$"):
        Tokenizer(json.dumps(values), "t")
    assert capfd.readouterr() == ("", "")


def test_large_gaps_between_ids_are_refused() -> None:
    values = json.loads(TEXT)
    values["model"]["vocab"]["rare"] = 2**31
    with pytest.raises(DataError, match="t: token id 2147483648: the largest taken here"):
        Tokenizer(json.dumps(values), "t")


def test_a_text_that_no_token_expresses_is_refused() -> None:
    model = tokenizers.Tokenizer(models.WordLevel({"a": 0, "b": 1}, unk_token="?"))
    words = Tokenizer(model.to_str(), "words", "b")
    assert words.prefix_ids == () and words.encode("a").tolist() == [0]
    with pytest.raises(DataError, match="cannot encode a text .*Missing.*: take one that covers"):
        words.encode("c")


@pytest.mark.parametrize(
    ("single", "prefix"),
    [("<|endoftext|> $A", (0,)), ("$A <|endoftext|>", ()), ("x <|endoftext|> $A x", (1, 0))],
)
def test_the_prefix_is_what_the_template_writes_before_a_text(
    single: str, prefix: tuple[int, ...]
) -> None:
    model = tokenizers.Tokenizer.from_str(TEXT)
    tokens = [("<|endoftext|>", 0), ("x", 1)]
    model.post_processor = processors.TemplateProcessing(single=single, special_tokens=tokens)
    assert Tokenizer(model.to_str(), "t").prefix_ids == prefix
