"""The chat template that `--template` names: built in, the tokenizer's own, or a file."""

from pathlib import Path
from typing import Any

from data.chat.template import ChatTemplate
from data.errors import DataError
from data.json_text import BadLineError, check_text, parse_json
from data.tokenization.tokenizer import Tokenizer

BUILT_IN = {
    "plain": (
        "{% for m in messages %}{{ '' if loop.first else '\n' }}"
        "{{ '<|' + m.role + '|>\n' + m.content }}"
        "{{ eos_token if m.role == 'assistant' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '\n<|assistant|>\n' }}{% endif %}"
    ),
    "chatml": (
        "{% for m in messages %}"
        "{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    ),
}
"""`plain`: roles in plain text, answers end with the end-of-document token: every tokenizer has
what it needs (Tulu, arXiv:2306.04751). `chatml`: needs the special tokens it names."""
SETTINGS_FILE = "tokenizer_config.json"
CHATML_TOKENS = ("<|im_start|>", "<|im_end|>")


def load_chat_template(name: str, tokenizer: Tokenizer, folder: Path | None) -> ChatTemplate:
    """Return the chat template that `--template` names.

    Args:
        name: `plain`, `chatml`, `tokenizer` (the tokenizer folder's own), or a Jinja file.
        tokenizer: Of the model.
        folder: Where the tokenizer's files are; None: it has no folder.

    Raises:
        DataError: There is none, it is not Jinja, or it needs tokens that the tokenizer lacks.
    """
    names = {} if folder is None else _token_names(folder)
    if name == "chatml":
        missing = [t for t in CHATML_TOKENS if t not in tokenizer.info.special_tokens]
        if missing:
            raise DataError(
                f"--template chatml: the tokenizer has no special token {missing[0]}: use"
                " --template plain, or a tokenizer that has it"
            )
    if name in BUILT_IN:
        return ChatTemplate(BUILT_IN[name], tokenizer, names)
    text = _folder_template(folder) if name == "tokenizer" else _file_template(Path(name))
    return ChatTemplate(check_text(text, f"--template {name}"), tokenizer, names)


def _file_template(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(
            f"--template {file}: {error.strerror}: give {', '.join(BUILT_IN)}, tokenizer or a file"
        ) from None
    except UnicodeDecodeError as error:
        raise DataError(
            f"--template {file}: not UTF-8 ({error.reason} at byte {error.start}): save it as UTF-8"
        ) from None


def _folder_template(folder: Path | None) -> str:
    if folder is not None and (folder / "chat_template.jinja").is_file():
        return _file_template(folder / "chat_template.jinja")
    template = None if folder is None else _settings(folder).get("chat_template")
    if isinstance(template, list):  # several, by name
        by_name = {
            one.get("name"): one.get("template") for one in template if isinstance(one, dict)
        }
        template = by_name.get("default")
    if not isinstance(template, str):
        raise DataError(
            "--template tokenizer: the tokenizer's folder has no chat template"
            " (chat_template.jinja, or in tokenizer_config.json): use --template plain"
        )
    return template


def _token_names(folder: Path) -> dict[str, str]:
    """Return the tokens that templates refer to by name, such as `bos_token`."""
    names = {}
    for key, value in _settings(folder).items():
        token = value.get("content") if isinstance(value, dict) else value
        if key.endswith("_token") and isinstance(token, str):
            names[key] = check_text(token, f"{folder / SETTINGS_FILE}: {key}")
    return names


def _settings(folder: Path) -> dict[str, Any]:
    file = folder / SETTINGS_FILE
    try:
        values = parse_json(file.read_bytes()) if file.is_file() else {}
    except BadLineError:
        raise DataError(f"{file}: not JSON: mend it") from None
    return values if isinstance(values, dict) else {}
