"""A base model with the recipe's own chat template or pad token, as a folder that `from_pretrained` loads."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from plumbline.datafiles import read_text
from plumbline.errors import UserError
from plumbline.model_files import is_adapter, read_json, read_tokenizer

TOKENIZER_FILES = ("tokenizer", "special_tokens_map", "chat_template", "vocab", "merges", "added_tokens")


def tokenizer_of_base(source: Path, *, chat_template: Path | None, pad_token: str | None) -> Any:
    """The base model's tokenizer with the recipe's chat template and pad token, where it gives them.

    Raises:
        UserError: the pad token is not in the vocabulary, or is the eos token.
    """
    tokenizer = read_tokenizer(source)
    if pad_token is not None:
        if pad_token not in tokenizer.get_vocab():
            raise UserError(
                f"model.pad_token {pad_token!r} is not in the vocabulary of {source}: name a token that it has, "
                "one that no text uses (a reserved or unused token)."
            )
        if pad_token == tokenizer.eos_token:
            raise UserError(
                f"model.pad_token {pad_token!r} is the eos token of {source}: name another one, or the model may never "
                "learn to stop."
            )
        tokenizer.pad_token = pad_token
    if chat_template is not None:
        tokenizer.chat_template = read_text(chat_template)
    return tokenizer


def prepare_base(source: Path, folder: Path, *, chat_template: Path | None, pad_token: str | None) -> None:
    """Write a model folder: the weights of `source`, a tokenizer with the given template and pad token.

    Weights are hard links, which take no space and hold wherever the two folders are moved. Where the file system
    allows none, such as between two disks, they are symbolic links, and `source` must stay where it is.

    Args:
        source: the base model's folder.
        folder: where to write.
        chat_template: a Jinja file, or None to keep the model's own.
        pad_token: a token of the vocabulary, or None to keep the model's own.

    Raises:
        UserError: the pad token does not fit.
    """
    tokenizer = tokenizer_of_base(source, chat_template=chat_template, pad_token=pad_token)
    tokenizer.save_pretrained(folder)  # first: written over a link, its files would change the base model's own
    for path in source.iterdir():
        place = folder / path.name
        if place.exists() or not path.is_file() or path.name.startswith((*TOKENIZER_FILES, "config.json", "README")):
            continue
        if path.suffix != ".py":
            _link(path.resolve(), place)
    for path in source.rglob("*.py"):  # copied: code is edited in place, weights are not
        place = folder / path.relative_to(source)
        if not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, place)
    if is_adapter(source):
        return
    config = read_json(source / "config.json") | {"pad_token_id": tokenizer.pad_token_id}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _link(file: Path, place: Path) -> None:
    try:
        place.hardlink_to(file)
    except OSError:
        place.symlink_to(file)
