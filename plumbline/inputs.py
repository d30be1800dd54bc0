"""What a stage reads, by its content: data files, earlier stages' output, the base model, the store's judgements.

Two runs of a stage with the same inputs and configuration give the same result, so these hashes decide whether it is up
to date (`plumbline.runs.fingerprint_of`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

from plumbline.domain import Domain
from plumbline.errors import NoStoreError, UserError
from plumbline.models import identify
from plumbline.runs import InputRef, hash_file
from plumbline.stages import Stage

if TYPE_CHECKING:
    from plumbline.preferences.records import JudgementRecord


def inputs_of(domain: Domain, stage: Stage) -> dict[str, InputRef]:
    """Everything a stage reads, with the hash of its content.

    Raises:
        UserError: a stage it builds on is not finished.
    """
    inputs: dict[str, InputRef] = {}
    for name, paths in stage.files.items():
        for number, path in enumerate(paths):
            key = name if len(paths) == 1 else f"{name}[{number}]"
            inputs[key] = InputRef(kind="file", source=str(path), hash=hash_file(path))
    for name in stage.after:
        if name == "base model":
            inputs[name] = _model_input(domain)
        elif name == "judgements":
            inputs[name] = _judgements_input(domain)
        else:
            manifest = domain.run.manifest(name)
            if manifest is None:
                raise UserError(f"the stage {stage.name!r} needs the stage {name!r}, which has not been run yet.")
            inputs[name] = InputRef(kind="stage", source=name, hash=manifest.output_hash)
    return inputs


def _model_input(domain: Domain) -> InputRef:
    """The base model by the content of all its files that decide what it says."""
    folder = domain.given_model
    facts = identify(folder).to_json()
    digest = hashlib.sha256()
    for key in ("weights_hash", "base_hash", "tokenizer_hash", "chat_template_hash", "pad_token_id", "eos_token_id"):
        digest.update(f"{key}={facts[key]}\n".encode())
    code = folder.rglob("*.py") if domain.recipe.trust_remote_code else []
    code_names = sorted(path.relative_to(folder).as_posix() for path in code)
    for name in ("config.json", "generation_config.json", *code_names):
        path = folder / name
        digest.update(f"{name}={hash_file(path) if path.is_file() else None}\n".encode())
    return InputRef(kind="model", source=domain.recipe.model.name, hash=digest.hexdigest(), facts=facts)


def _judgements_input(domain: Domain) -> InputRef:
    digest = hashlib.sha256()
    annotators: dict[str, int] = {}
    simulated = total = 0
    for record in _judgements(domain):
        said = [record.judgement_id, sorted(record.ranking.items()), record.strength, record.edited]
        digest.update(f"{json.dumps(said)}\n".encode())
        annotators[record.annotator] = annotators.get(record.annotator, 0) + 1
        simulated += record.simulated
        total += 1
    facts = {"judgements": total, "simulated": simulated, "by_annotator": annotators}
    return InputRef(kind="judgements", source=shown_store(domain), hash=digest.hexdigest(), facts=facts)


def _judgements(domain: Domain) -> Iterator[JudgementRecord]:
    """The store's judgements; none where there is no store yet, which is not made for this."""
    try:
        with domain.service(create=False) as service:
            yield from service.judgements()
    except NoStoreError:
        return


def shown_store(domain: Domain) -> str:
    """The store's address as it may be shown: of a URL only driver, host, port and database."""
    from sqlalchemy import URL, make_url

    store = domain.recipe.annotate.store
    if not store:
        return str(domain.run.root / "preferences.db")
    if "://" not in store:
        return store
    url = make_url(store)
    return URL.create(url.drivername, host=url.host, port=url.port, database=url.database).render_as_string()
