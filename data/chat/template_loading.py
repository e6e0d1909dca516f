"""The chat template that `--template` names: built in, the tokenizer's own, or a file."""

from pathlib import Path

from data.chat.template import ChatTemplate
from data.errors import DataError
from data.json_text import check_text
from data.tokenization.hub_folder import (
    TEMPLATE_FILE,
    TOKENIZER_CONFIG_FILE,
    hub_file,
    hub_json,
    named_token,
    tokenizer_settings,
)
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
    if name != "tokenizer":
        text = _file_template(Path(name))
        return ChatTemplate(check_text(text, f"--template {name}"), tokenizer, names)
    own = None if folder is None else own_template(tokenizer, folder)
    if own is None:
        raise DataError(
            "--template tokenizer: the tokenizer's folder has no chat template"
            " (chat_template.jinja, or in tokenizer_config.json): use --template plain"
        )
    return own


def own_template(tokenizer: Tokenizer, folder: Path) -> ChatTemplate | None:
    """Return the chat template in a tokenizer's folder; None: there is none.

    Raises:
        DataError: It is damaged.
    """
    text = own_template_text(folder)
    return None if text is None else ChatTemplate(text, tokenizer, _token_names(folder))


def own_template_text(folder: Path) -> str | None:
    """Return the text of the default chat template in a tokenizer's folder; None: there is none.

    Raises:
        DataError: It is damaged, or no file of the folder.
    """
    file = hub_file(folder, TEMPLATE_FILE)
    text = hub_json(folder, TOKENIZER_CONFIG_FILE).get("chat_template")
    if file is not None:
        text = _file_template(file)
    elif isinstance(text, list):  # several, by name
        named = (one for one in text if isinstance(one, dict) and one.get("name") == "default")
        text = next(named, {}).get("template")
    return check_text(text, f"{folder}: chat template") if isinstance(text, str) else None


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


def _token_names(folder: Path) -> dict[str, str]:
    """Return the tokens that templates refer to by name, such as `bos_token`."""
    settings = tokenizer_settings(folder)
    named = {key: named_token(settings, key) for key in settings if key.endswith("_token")}
    return {
        key: check_text(token, f"{folder / TOKENIZER_CONFIG_FILE}: {key}")
        for key, token in named.items()
        if token is not None
    }
