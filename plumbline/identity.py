"""What a model folder is: hashes of its weights, tokenizer and chat template, and the base and parent of an adapter.

Two folders fit when tokenizer and chat template are the same and an adapter stands over the base it was trained on.
"""

from __future__ import annotations

import hashlib
import json
import struct
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import Any

from plumbline.errors import MismatchError, UserError
from plumbline.model_files import ADAPTER_CONFIG, is_adapter, read_json, read_tokenizer, resolve_model, weight_files

ADAPTER_LINEAGE = "adapter_lineage.json"
BLOCK = 1 << 22

_hashes: dict[tuple[str, int, int], str] = {}
"""Hashes of files that were read before, by path, size and time of change."""


@dataclass(frozen=True)
class AdapterIdentity:
    """Where an adapter comes from.

    Attributes:
        parent: the policy it was trained from: the base itself, or a folder with another adapter.
        parent_hash: hash of the parent's weights when the training began.
        mode: `new` (over the base) or `joined` (the parent's adapter was merged for the training and its low-rank
            update is part of this adapter, so that this adapter stands over the base alone).
    """

    parent: str
    parent_hash: str
    mode: str


@dataclass(frozen=True)
class ModelIdentity:
    """What a model folder is; everything that a later stage has to fit to.

    Attributes:
        source: the folder.
        weights_hash: SHA-256 over its safetensors files.
        base: the folder or hub name of the weights below an adapter; `source` itself for full weights.
        base_hash: hash of those weights.
        tokenizer_hash: hash of vocabulary, merges, normaliser and added tokens.
        chat_template_hash: hash of the template's text; empty where there is none.
        pad_token_id, eos_token_id: as the tokenizer says; None where it has none.
        adapter: where the adapter comes from; None for full weights.
        parameters: number of weights of the model without adapters.
    """

    source: str
    weights_hash: str
    base: str
    base_hash: str
    tokenizer_hash: str
    chat_template_hash: str
    pad_token_id: int | None
    eos_token_id: int | None
    adapter: AdapterIdentity | None
    parameters: int

    def to_json(self) -> dict[str, Any]:
        """As plain dictionaries, for a manifest."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> ModelIdentity:
        """The identity that `to_json` wrote."""
        adapter = values.get("adapter")
        return cls(**{**values, "adapter": AdapterIdentity(**adapter) if adapter else None})


def identify(path: str | Path) -> ModelIdentity:
    """Read what a model folder is. Files are hashed in blocks, once per process while they do not change.

    Raises:
        UserError: the folder holds no model with safetensors weights and a tokenizer.
    """
    folder = Path(path)
    weights = hash_weights(folder)
    adapter, base_name, base = None, str(folder), folder
    if is_adapter(folder):
        base_name, base = adapter_base(folder)
        lineage = adapter_lineage(folder)
        adapter = AdapterIdentity(
            parent=lineage.get("parent", base_name),
            parent_hash=lineage.get("parent_hash", hash_weights(base)),
            mode=lineage.get("mode", "new"),
        )
    return ModelIdentity(
        source=str(folder),
        weights_hash=weights,
        base=base_name,
        base_hash=weights if base == folder else hash_weights(base),
        adapter=adapter,
        parameters=count_parameters(base),
        **_tokenizer_facts(folder),
    )


def check_fits(expected: ModelIdentity, found: ModelIdentity, *, expected_name: str, found_name: str) -> None:
    """Refuse a model that does not fit another one.

    Compares tokenizer, chat template and, where `found` is an adapter, the base below it. Pad and eos ids may differ:
    they are settings of a model, not of the text it reads.

    Raises:
        MismatchError: names the two things that differ, with their hashes and what to do.
    """
    if expected.tokenizer_hash != found.tokenizer_hash:
        raise MismatchError(
            f"the tokenizer of {found_name} ({_short(found.tokenizer_hash)}) is not the tokenizer of {expected_name} "
            f"({_short(expected.tokenizer_hash)}): their token ids mean different text. Use models with the same "
            "tokenizer, or run the earlier stage again."
        )
    if expected.chat_template_hash != found.chat_template_hash:
        raise MismatchError(
            f"the chat template of {found_name} ({_short(found.chat_template_hash)}) is not the chat template of "
            f"{expected_name} ({_short(expected.chat_template_hash)}): it would read conversations that it was not "
            "trained on. Give both the same template (model.chat_template), or run the earlier stage again."
        )
    if found.adapter is not None and found.base_hash != expected.base_hash:
        raise MismatchError(
            f"{found_name} is an adapter over {found.base} (weights {_short(found.base_hash)}), but {expected_name} "
            f"has the base {expected.base} (weights {_short(expected.base_hash)}). Use the base that the adapter was "
            "trained on, or train the adapter again."
        )


def adapter_base(folder: Path) -> tuple[str, Path]:
    """The named base of an adapter folder, and where its weights are.

    A base that moved together with the adapter is found where it now is, and named by that place.

    Raises:
        MismatchError: the base is not the one that the adapter was trained on.
        UserError: the base cannot be found.
    """
    config = read_json(folder / ADAPTER_CONFIG)
    name = str(config.get("base_model_name_or_path") or "")
    if not name:
        raise UserError(f"{folder / ADAPTER_CONFIG} names no base model: set base_model_name_or_path.")
    expected = adapter_lineage(folder).get("base_hash")
    if expected and Path(name).is_absolute() and not _holds(Path(name), expected):
        moved = _moved_with(folder, Path(name), expected)
        if moved is not None:
            return str(moved), moved
    base = resolve_model(name, revision=config.get("revision"))
    if expected and expected != hash_weights(base):
        raise MismatchError(
            f"the adapter {folder} was trained over {name} with weights {_short(expected)}, but the weights there are "
            f"now {_short(hash_weights(base))}. Restore that base, or train the adapter again."
        )
    return name, base


def _moved_with(adapter: Path, base: Path, expected: str) -> Path | None:
    """Where a base now lies whose folder was renamed or moved from above both base and adapter, such as a run folder.

    The end of its path is the same then, below one of the folders above the adapter; the weights tell that it is it.
    """
    below = [Path(*base.parts[start:]) for start in range(1, len(base.parts))]
    places = (above / end for above in adapter.resolve().parents for end in reversed(below))
    return next((place for place in places if _holds(place, expected)), None)


def _holds(folder: Path, weights_hash: str) -> bool:
    return any(folder.glob("*.safetensors")) and hash_weights(folder) == weights_hash


def adapter_lineage(folder: Path) -> dict[str, str]:
    """What plumbline wrote beside an adapter (parent, hashes, mode); empty for an adapter from elsewhere."""
    path = folder / ADAPTER_LINEAGE
    return read_json(path) if path.is_file() else {}


def hash_weights(folder: Path) -> str:
    """SHA-256 over names and contents of a folder's safetensors files.

    Raises:
        UserError: there are none.
    """
    digest = hashlib.sha256()
    for path in weight_files(folder):
        digest.update(f"{path.name}:{_hash_file(path)}\n".encode())
    return digest.hexdigest()


def _hash_file(path: Path) -> str:
    status = path.stat()
    key = (str(path.resolve()), status.st_size, status.st_mtime_ns)
    if key not in _hashes:
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while block := file.read(BLOCK):
                digest.update(block)
        _hashes[key] = digest.hexdigest()
    return _hashes[key]


def count_parameters(folder: Path) -> int:
    """Number of weights in a model folder, from the headers of its safetensors files alone."""
    count = 0
    for path in weight_files(folder):
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(length))
        count += sum(prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")
    return count


def _tokenizer_facts(folder: Path) -> dict[str, Any]:
    tokenizer = read_tokenizer(folder)
    backend = getattr(tokenizer, "backend_tokenizer", None)
    facts = json.loads(backend.to_str()) if backend is not None else {"vocab": sorted(tokenizer.get_vocab().items())}
    for setting in ("padding", "truncation"):  # set by whoever used the tokenizer last
        facts.pop(setting, None)
    template = tokenizer.chat_template
    return {
        "tokenizer_hash": _hash_json(facts),
        "chat_template_hash": _hash_json(template) if template else "",
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }


def _hash_json(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def _short(digest: str) -> str:
    return digest[:12] or "none"
