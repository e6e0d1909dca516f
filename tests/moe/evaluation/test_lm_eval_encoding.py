"""Texts of lm-eval's requests become the tokens that its own model of transformers makes."""

from pathlib import Path
from typing import Any

import pytest

from tests.support.distributed import run_ranks
from tests.support.exported_models import (
    SPECIAL,
    as_run,
    converted,
    write_base,
    write_conversations,
)

pytestmark = pytest.mark.needs("eval", "hub")

BEGIN = SPECIAL[3]
KINDS: dict[str, dict[str, Any]] = {
    "begins": {"with_bos": True, "bos_token": BEGIN},
    "named": {"bos_token": BEGIN},
    "none": {},
}
"""The tokenizer's template writes a token before a text; it only names one; it does neither."""
PAIRS = [
    ("what is", " it"),
    ("ends in spaces  ", "it"),
    ("", " it"),
    (f"{BEGIN}what is", " it"),
    ("\n", "\u4f60"),
    ("h\u00e9llo\t", "\n\nw\u00f6rld 12"),
]
SPELLED = 3


def _encoded(model: Any) -> list[Any]:
    """Return context and continuation of each pair, as the harness hands them to be scored."""
    asked = [type("Request", (), {"args": pair}) for pair in PAIRS]
    return [pair for _, *pair in model.loglikelihood(asked, disable_tqdm=True)]


def _both(places: dict[str, tuple[Path, Path]]) -> dict[str, tuple[Any, Any]]:
    """Return what our model of the harness encodes, and what HFLM does, by its own rules.

    HFLM itself needs accelerate and a model; `Theirs` has its `tok_encode`.
    """
    from lm_eval.api.model import TemplateLM
    from lm_eval.models.utils import has_bos_prefix
    from transformers import AutoTokenizer

    from moe.evaluation.lm_eval_adapter import HarnessModel
    from moe.evaluation.text_interface import text_interface_of

    class Theirs(TemplateLM):  # type: ignore[misc]
        loglikelihood_rolling = generate_until = None

        def __init__(self, folder: Path) -> None:
            super().__init__()
            self.tokenizer = AutoTokenizer.from_pretrained(folder)

        @property
        def eot_token_id(self) -> Any:
            begin = self.tokenizer.bos_token_id
            return self.tokenizer.eos_token_id if begin is None else begin

        def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> Any:
            first = self.tokenizer.decode(self.prefix_token_id)
            if add_special_tokens is None and not has_bos_prefix(string, first):
                return self.tokenizer.encode(string)
            return self.tokenizer.encode(string, add_special_tokens=False)

        def _loglikelihood_tokens(self, requests: Any, **_: Any) -> Any:
            return requests

    class Ours(HarnessModel):
        _loglikelihood_tokens = Theirs._loglikelihood_tokens

    return {
        name: (
            _encoded(Ours(None, text_interface_of(path))),  # type: ignore[arg-type]
            _encoded(Theirs(folder)),
        )
        for name, (path, folder) in places.items()
    }


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path]]:
    """Models of ours, and the folders of Hugging Face with their tokenizers."""
    root = tmp_path_factory.mktemp("models")
    for name, values in KINDS.items():
        write_base(root / f"{name}-hub", **values)
        converted(root / f"{name}-hub", root / name)
    as_run(root / "begins", write_conversations(root / "begins-hub", root / "talk"), root / "run")
    kinds = {name: (root / name, root / f"{name}-hub") for name in KINDS}
    return kinds | {"run": (root / "run", root / "begins-hub")}


def test_pairs_are_encoded_as_lm_eval_does(places: dict[str, tuple[Path, Path]]) -> None:
    found = run_ranks(1, _both, places)[0]
    for name, (ours, theirs) in found.items():
        if name == "none":  # a special token that begins nothing stays plain text here
            del ours[SPELLED], theirs[SPELLED]
        assert ours == theirs, name
        begins = [[*context, *rest].count(259) for context, rest in ours]
        some = {"named": [0, 0, 1, 1, 0, 0], "none": [0] * 5}
        assert begins == some.get(name, [1] * 6), name
    assert found["none"][0][2][0] == [0]  # nothing to begin with but the end


def test_chats_begin_as_their_template_writes(places: dict[str, tuple[Path, Path]]) -> None:
    """The tokenizer's template does not stand before the chat's."""
    from moe.evaluation.text_interface import text_interface_of

    language = text_interface_of(places["run"][0])
    assert language.encode(["what"])[0][0] == 259
    assert language.encode_questions(["what"])[0][0] == 257
