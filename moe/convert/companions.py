"""What stands beside an exported model's tensors, so that the next program uses it as we do.

Tokenizer, token ids and chat template come from one owner, the text interface that `moe generate`
uses; all else is what came with the original model, if there was one.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.chat.template_loading import own_template_text
from data.errors import InputError
from data.storage.atomic import write_json, write_text
from data.tokenization.hub_folder import (
    EXTRA_TEMPLATES,
    GENERATION_FILE,
    SPECIAL_TOKENS_FILE,
    TEMPLATE_FILE,
    TOKENIZER_CONFIG_FILE,
    hub_json,
    named_token,
)
from data.tokenization.info import TOKENIZER_FILE
from moe.config.locating import EXPERIMENT_FILE, hub_folder, model_file, tokenizer_file
from moe.config.model import ModelConfig
from moe.convert.hub_files import CONFIG
from moe.convert.small_files import copy_small_files
from moe.convert.token_ids import TokenIds, special_tokens, stated_ids, token_ids
from moe.evaluation.text_interface import TextInterface, text_interface_of

PLAIN_CLASS = "PreTrainedTokenizerFast"
"""The class that, in every transformers, does as `tokenizer.json` says."""
NO_LIMIT = 10**15
"""transformers writes a larger `model_max_length` where there is no limit."""


@dataclass(frozen=True, kw_only=True)
class Companions:
    """The files beside a model's tensors, and the token ids that its configuration states."""

    model: ModelConfig
    folder: Path | None
    """Small files of the original model."""
    language: TextInterface | None
    """None where no tokenizer is known, or that of the original model cannot be used here."""
    fault: str | None = None
    """Why not."""
    is_trained_here: bool
    """Whether the model is a run's, not the original one."""

    @property
    def token_ids(self) -> TokenIds:
        """Ids for `config.json` and `generation_config.json`."""
        if self.language is None:
            return stated_ids(self.folder)
        return token_ids(self.language, self.folder)

    def write(self, target: Path) -> list[str]:
        """Write all files but `config.json` into `target`; returns what they lack, a line each."""
        if self.folder is not None:
            copy_small_files(self.folder, target)
            (target / CONFIG).unlink(missing_ok=True)
        if self.language is None:
            return self._why_no_tokenizer(target)
        generation = self._original(GENERATION_FILE) | self.token_ids
        generation.pop("_from_model_config", None)  # its ids would be derived anew
        write_json(target / GENERATION_FILE, generation)
        if not (target / TOKENIZER_FILE).exists() or self.language.tokenizer.info.kind == "bytes":
            write_text(target / TOKENIZER_FILE, self.language.tokenizer.hub_text)
        return self._write_settings(target, self.language)

    def _write_settings(self, target: Path, language: TextInterface) -> list[str]:
        """Write the tokenizer's settings, its special tokens and its chat template."""
        tokens = special_tokens(language, self.folder)
        original = self._original(TOKENIZER_CONFIG_FILE) or {"clean_up_tokenization_spaces": False}
        settings = {"tokenizer_class": PLAIN_CLASS} | _with_tokens(original, tokens)
        length = settings.get("model_max_length")
        if self.is_trained_here or type(length) is not int or length >= NO_LIMIT:
            settings["model_max_length"] = self.model.max_seq_len
        notes = self._write_chat(target, settings, language)
        write_json(target / TOKENIZER_CONFIG_FILE, settings)
        if (target / SPECIAL_TOKENS_FILE).is_file():  # readers of old take it before the settings
            named = _with_tokens(self._original(SPECIAL_TOKENS_FILE), tokens)
            write_json(
                target / SPECIAL_TOKENS_FILE, {k: v for k, v in named.items() if v is not None}
            )
        return notes

    def _why_no_tokenizer(self, target: Path) -> list[str]:
        if self.fault is not None:
            return [f"its tokenizer and settings are copied as they are: {self.fault}"]
        if "auto_map" in self._original(TOKENIZER_CONFIG_FILE):
            return [
                "its tokenizer needs code of the original folder, which is neither run nor copied"
            ]
        if any(target.glob("*.model")):  # the original's, of another kind than tokenizer.json
            return []
        return ["no tokenizer is known of it, and none is written"]

    def _write_chat(
        self, target: Path, settings: dict[str, Any], language: TextInterface
    ) -> list[str]:
        """Write the chat template as a file and among the settings: few programs read both."""
        if language.chat is None:
            return []
        template, stated = language.chat.template, settings.get("chat_template")
        is_original = self.folder is not None and template == own_template_text(self.folder)
        if is_original and isinstance(stated, list):  # it and others, by name
            return []
        settings["chat_template"] = template
        write_text(target / TEMPLATE_FILE, template)
        extra = target / EXTRA_TEMPLATES
        if is_original or not (isinstance(stated, list) or extra.is_dir()):
            return []
        # They would be used for calls of tools, say, and the model was tuned with another form.
        shutil.rmtree(extra, ignore_errors=True)
        return [
            "further chat templates of the original model are left out: it was tuned with another"
        ]

    def _original(self, name: str) -> dict[str, Any]:
        return {} if self.folder is None else hub_json(self.folder, name)


def companions_of(checkpoint: Path, model: ModelConfig) -> Companions:
    """Return what belongs beside the tensors of a checkpoint."""
    file, folder = model_file(checkpoint), hub_folder(checkpoint)
    language, fault = None, None
    try:
        if tokenizer_file(checkpoint) is not None:
            language = text_interface_of(checkpoint)
    except InputError as error:
        if folder is None or not (folder / TOKENIZER_FILE).is_file():
            raise
        fault = str(error)
    return Companions(
        model=model,
        folder=folder,
        language=language,
        fault=fault,
        is_trained_here=file is not None and file.name == EXPERIMENT_FILE,
    )


def _with_tokens(settings: dict[str, Any], tokens: dict[str, str | None]) -> dict[str, Any]:
    """Return settings with these tokens, null included; one named already keeps its details."""
    return settings | {
        name: settings[name] if text is not None and named_token(settings, name) == text else text
        for name, text in tokens.items()
    }
