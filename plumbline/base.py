"""A base model with the recipe's own chat template or pad token, as a folder that `from_pretrained` loads."""

from __future__ import annotations

import shutil
from pathlib import Path

from plumbline.errors import UserError

TOKENIZER_FILES = ("tokenizer", "special_tokens_map", "chat_template", "vocab", "merges", "added_tokens")


def prepare_base(source: Path, folder: Path, *, chat_template: Path | None, pad_token: str | None) -> None:
    """Write a model folder: weights linked to `source`, a tokenizer with the given template and pad token.

    Args:
        source: the base model's folder.
        folder: where to write.
        chat_template: a Jinja file, or None to keep the model's own.
        pad_token: a token of the vocabulary, or None to keep the model's own.

    Raises:
        UserError: the pad token is not in the vocabulary, or is the eos token.
    """
    from transformers import AutoConfig, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(source)
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
        tokenizer.chat_template = chat_template.read_text(encoding="utf-8")
    for path in source.iterdir():
        if path.is_file() and not path.name.startswith((*TOKENIZER_FILES, "config.json", "README")):
            (folder / path.name).symlink_to(path.resolve())
    tokenizer.save_pretrained(folder)
    if (source / "config.json").is_file():
        config = AutoConfig.from_pretrained(source)
        config.pad_token_id = tokenizer.pad_token_id
        config.save_pretrained(folder)
    elif (source / "adapter_config.json").is_file():
        shutil.copy(source / "adapter_config.json", folder)
