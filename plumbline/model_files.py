"""Finding model folders and what lies in them: local folders, hub snapshots, adapters, safetensors, tokenizers.

Everything that loads from a model folder goes through `from_folder`, so that Python code which comes with a model is
run only where it is trusted.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plumbline.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ADAPTER_CONFIG = "adapter_config.json"
_code_is_trusted: ContextVar[bool] = ContextVar("trust_remote_code", default=False)

DOWNLOADED = ["*.safetensors", "*.json", "*.jinja", "tokenizer*", "*.model", "*.txt", "*.py", "README.md"]


def resolve_model(source: str | Path, *, revision: str | None = None) -> Path:
    """The folder of a model: a local one as it is, or the snapshot of a hub model, downloaded when it is not there.

    Raises:
        UserError: there is no such folder or hub model, or it holds no model.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        if not ((path / "config.json").is_file() or is_adapter(path)):
            raise UserError(f"{path} holds no model: it has neither config.json nor {ADAPTER_CONFIG}.")
        return path.resolve()
    text = str(source)
    if path.exists() or isinstance(source, Path) or text.startswith((".", "/", "~")) or text.count("/") > 1:
        raise UserError(f"there is no model folder {path}: give the folder of a model, or a hub name such as org/name.")
    folder = _download(text, revision)
    if not is_adapter(folder):
        weight_files(folder)
    return folder


def _download(name: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=DOWNLOADED))
    except GatedRepoError as error:
        raise UserError(
            f"the model {name} is gated: accept its terms on its hub page and run `hf auth login`."
        ) from error
    except RevisionNotFoundError as error:
        raise UserError(f"the model {name} has no revision {revision!r} on the hub: set model.revision.") from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise UserError(
            f"there is no model {name!r}, neither as a folder here nor on the hub: check the spelling, or log in with "
            "`hf auth login` where it is private."
        ) from error
    except (LocalEntryNotFoundError, HfHubHTTPError) as error:
        raise UserError(
            f"the model {name} is not on this machine and the hub cannot be reached: connect to the network once, or "
            "give the folder of a model."
        ) from error


def hub_name(folder: Path) -> tuple[str, str] | None:
    """The hub name and commit of a folder in the hub's cache; None for any other folder."""
    cached = folder.parent.parent
    if folder.parent.name == "snapshots" and cached.name.startswith("models--"):
        return cached.name.removeprefix("models--").replace("--", "/"), folder.name
    return None


@contextmanager
def trust_remote_code(trusted: bool) -> Iterator[None]:
    """While it lasts, Python code that comes with a model is run; where it is not `trusted`, such a model is refused.

    This is a context and no argument because the models that a run makes carry the code of their base model: every
    function that loads one of them would have to hand the argument on.
    """
    token = _code_is_trusted.set(trusted)
    try:
        yield
    finally:
        _code_is_trusted.reset(token)


def code_is_trusted() -> bool:
    """Whether Python code that comes with a model is run; by `trust_remote_code`."""
    return _code_is_trusted.get()


def from_folder(auto_class: Any, folder: str | Path, **options: Any) -> Any:
    """`auto_class.from_pretrained(folder, **options)` for an auto class of transformers.

    Raises:
        UserError: the model needs Python code that comes with it, and that is not trusted.
    """
    try:
        return auto_class.from_pretrained(folder, trust_remote_code=code_is_trusted(), **options)
    except ValueError as error:
        if code_is_trusted() or "trust_remote_code" not in str(error):
            raise
        raise UserError(
            f"{folder} comes with Python code of its own, which is not run unless the recipe says so: read that code, "
            "then set `trust_remote_code: true` at the top of the recipe, or use another model."
        ) from error


def read_tokenizer(path: str | Path) -> PreTrainedTokenizerBase:
    """Load a tokenizer as it is, without asking for a chat template or a pad token.

    Raises:
        UserError: the folder has no tokenizer that can be loaded.
    """
    from transformers import AutoTokenizer

    try:
        return from_folder(AutoTokenizer, path)
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(f"{path} has no tokenizer that can be loaded: {reason[0]}") from error


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter instead of full weights."""
    return (folder / ADAPTER_CONFIG).is_file()


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a model folder, by name.

    Raises:
        UserError: there are none, or there is no such folder.
    """
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}; `plumbline.models.resolve_model` fetches a model from the hub.")
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise UserError(
            f"{folder} has no weights in safetensors: plumbline unpickles nothing. Convert the model with "
            "`model.save_pretrained(folder)` of a current transformers, or name another one."
        )
    return files


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        UserError: the file is no JSON.
    """
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except ValueError as error:
        raise UserError(f"{path} cannot be read as JSON ({error}): restore the model folder.") from error
