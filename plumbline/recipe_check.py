"""Checking a whole recipe before any work: all faults at once, each with file, line and the nearest right key.

The trainers are handed in by the caller (`chain.trainers`), because this module is on the ground floor and imports no
stage.
"""

from __future__ import annotations

import dataclasses
import tempfile
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from plumbline.errors import RecipeError
from plumbline.recipe import AdaptSection, AlignSection, Recipe, RewardSection, SFTSection, TrainerSection
from plumbline.recipe_yaml import KeyPath, Source, nearest

STAGE_FOLDERS = ("base", "adapt", "sft", "sample", "preferences", "reward", "judge", "compare", "logs")
"""Names in a run folder that no aligned policy may take."""


class Trainer(NamedTuple):
    """A trainer that a section drives: its configuration class, and what completes the fields that a recipe names."""

    config: type
    complete: Callable[[dict[str, Any]], dict[str, Any]] = dict


SET_BY_PLUMBLINE = {
    "output_dir": "the run folder decides where a stage writes",
    "seed": "set `seed` at the top of the recipe",
    "data_seed": "set `seed` at the top of the recipe",
    "run_name": "the run's name is given by --run",
    "resume_from_checkpoint": "a killed stage resumes by itself",
    "overwrite_output_dir": "use --force STAGE to redo a stage",
    "disable_tqdm": "plumbline draws its own progress bar",
    "push_to_hub": "upload the finished model folder instead",
    "trust_remote_code": "set `trust_remote_code` at the top of the recipe",
    "do_train": "the chain decides what runs",
    "do_eval": "the chain decides what runs",
    "do_predict": "the chain decides what runs",
}


def load_recipe(path: Path, *, overrides: Sequence[str] = (), trainers: Mapping[str, Trainer]) -> Recipe:
    """Read and check a whole recipe.

    Args:
        path: the YAML file.
        overrides: `section.key=value` from the command line, applied over the file.
        trainers: the trainers whose fields the sections take: keys `adapt`, `sft`, `reward` and one for each alignment
            method.

    Raises:
        RecipeError: with every fault found, each with its place and what to do.
    """
    source = Source.read(path)
    if not isinstance(source.data, dict):
        raise RecipeError(
            [f"{path}:1: expected sections such as `model:` and `data:`, found {type(source.data).__name__}"]
        )
    for assignment in overrides:
        source.set(assignment)
    try:
        recipe = Recipe.model_validate(source.data)
    except ValidationError as error:
        faults = [_explain(fault, source) for fault in error.errors()]
        raise RecipeError([*faults, *_trainer_faults_of_raw(source, trainers)]) from None
    faults = [*_trainer_faults(recipe, source, trainers), *_align_faults(recipe, source)]
    resolved = recipe.model_copy(update=_resolved_paths(recipe, source, path.parent.resolve(), faults))
    if faults:
        raise RecipeError(faults)
    return resolved


def _explain(fault: Any, source: Source) -> str:
    """One pydantic fault as `file:line: key: what is wrong`, with the nearest right key for an unknown one."""
    location: KeyPath = tuple(part for part in fault["loc"])
    key = ".".join(str(part) for part in location)
    place = source.place(location)
    if fault["type"] == "extra_forbidden":
        return f"{place}: unknown key {key!r}{nearest(str(location[-1]), _known_keys(location[:-1]))}"
    if fault["type"] == "missing":
        return f"{place}: {key!r} is missing: {_description(location)}"
    given = fault.get("input")
    shown = f" (given: {given!r})" if isinstance(given, str | int | float | bool) else ""
    return f"{place}: {key}: {fault['msg'].removeprefix('Value error, ')}{shown}"


def _section_at(location: KeyPath) -> type[BaseModel] | None:
    """The section class that a key path leads to."""
    current: type[BaseModel] | None = Recipe
    for part in location:
        if current is None:
            return None
        if isinstance(part, int):
            continue
        field = current.model_fields.get(part)
        current = _model_in(field.annotation) if field else None
    return current


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in typing.get_args(annotation):
        found = _model_in(argument)
        if found:
            return found
    return None


def _known_keys(location: KeyPath) -> list[str]:
    section = _section_at(location)
    return list(section.model_fields) if section else []


def _description(location: KeyPath) -> str:
    section = _section_at(location[:-1])
    field = section.model_fields.get(str(location[-1])) if section else None
    return (field.description or "it must be given") if field else "it must be given"


def _trainer_sections(recipe: Recipe) -> list[tuple[KeyPath, TrainerSection, str]]:
    """Every section that drives a trainer: its place in the recipe, itself, and the trainer's key."""
    sections: list[tuple[KeyPath, TrainerSection, str]] = [
        (("sft",), recipe.sft, "sft"),
        (("reward",), recipe.reward, "reward"),
    ]
    if recipe.adapt is not None:
        sections.append((("adapt",), recipe.adapt, "adapt"))
    return sections + [(("align", index), section, section.method) for index, section in enumerate(recipe.align)]


def _trainer_faults(recipe: Recipe, source: Source, trainers: Mapping[str, Trainer]) -> list[str]:
    faults: list[str] = []
    for location, section, trainer in _trainer_sections(recipe):
        own = list(type(section).model_fields)
        faults += _fields_faults(section.trainer, own, location, source, trainers[trainer])
        if section.load_in_4bit and section.lora is None:  # type: ignore[attr-defined]
            place = source.place((*location, "load_in_4bit"))
            faults.append(
                f"{place}: load_in_4bit needs `lora:`: 4-bit weights cannot be trained; add a lora section or drop it"
            )
    return faults


def _trainer_faults_of_raw(source: Source, trainers: Mapping[str, Trainer]) -> list[str]:
    """Trainer fields' faults of a recipe that has other faults too, so that all are told at once."""
    faults: list[str] = []
    named: dict[str, type[TrainerSection]] = {"adapt": AdaptSection, "sft": SFTSection, "reward": RewardSection}
    raw: list[tuple[KeyPath, Any, type[TrainerSection], str]] = [
        ((name,), source.data.get(name), section, name) for name, section in named.items()
    ]
    aligned = source.data.get("align")
    for index, item in enumerate(aligned if isinstance(aligned, list) else []):
        if isinstance(item, dict) and item.get("method") in trainers:
            raw.append((("align", index), item, AlignSection, item["method"]))
    for location, values, section, trainer in raw:
        if isinstance(values, dict):
            fields = {key: value for key, value in values.items() if key not in section.model_fields}
            faults += _fields_faults(fields, list(section.model_fields), location, source, trainers[trainer])
    return faults


def _fields_faults(
    fields: Mapping[str, Any], own: Sequence[str], location: KeyPath, source: Source, trainer: Trainer
) -> list[str]:
    """Unknown names and wrong types among a trainer's fields, then what the trainer's configuration itself refuses."""
    known = {field.name for field in dataclasses.fields(trainer.config) if field.init}
    hints = typing.get_type_hints(trainer.config)
    faults = []
    for name, value in fields.items():
        place, key = source.place((*location, name)), ".".join(str(part) for part in (*location, name))
        if name in SET_BY_PLUMBLINE:
            faults.append(f"{place}: {key} cannot be set here: {SET_BY_PLUMBLINE[name]}")
        elif name not in known:
            faults.append(
                f"{place}: unknown key {key!r}{nearest(name, [*known, *own])} (fields of {trainer.config.__name__})"
            )
        else:
            fault = _type_fault(value, hints.get(name, Any))
            if fault:
                faults.append(f"{place}: {key}: {fault} (given: {value!r})")
    if faults:
        return faults
    import torch

    on_cpu = {} if torch.accelerator.is_available() else {"use_cpu": True}
    try:
        with tempfile.TemporaryDirectory() as folder:
            trainer.config(**{"output_dir": folder, **on_cpu, **trainer.complete(dict(fields))})
    except (ValueError, TypeError, ImportError, NotImplementedError) as error:
        return [f"{source.place(location)}: {'.'.join(str(part) for part in location)}: {error}"]
    return []


def _type_fault(value: Any, hint: Any) -> str | None:
    try:
        TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True)).validate_python(value)
    except ValidationError as error:
        return str(error.errors()[0]["msg"])
    return None


def _align_faults(recipe: Recipe, source: Source) -> list[str]:
    faults: list[str] = []
    seen: set[str] = set()
    for index, section in enumerate(recipe.align):
        place = source.place(("align", index))
        if section.name in seen:
            faults.append(f"{place}: two aligned policies are called {section.name!r}; give one another `name:`")
        if section.name in STAGE_FOLDERS:
            faults.append(f"{place}: {section.name!r} is the folder of another stage; give this policy another `name:`")
        seen.add(section.name)
    return faults


def _resolved_paths(recipe: Recipe, source: Source, folder: Path, faults: list[str]) -> dict[str, Any]:
    """Paths made absolute (they are relative to the recipe); a file that is not there is added to `faults`."""

    def local(path: str | Path, *place: str | int) -> Path:
        absolute = (folder / Path(path).expanduser()).resolve()
        if not absolute.exists():
            faults.append(f"{source.place(place)}: {'.'.join(str(p) for p in place)}: there is no file {absolute}")
        return absolute

    data: dict[str, Any] = {}
    for field in ("demonstrations", "prompts", "benchmark", "corpus"):
        data[field] = [str(local(path, "data", field)) for path in getattr(recipe.data, field)]
    data["preferences"] = [
        file.model_copy(update={"path": local(file.path, "data", "preferences", index)})
        for index, file in enumerate(recipe.data.preferences)
    ]
    if recipe.data.corpus and recipe.adapt is None:
        faults.append(
            f"{source.place(('data', 'corpus'))}: data.corpus is read by the adaptation stage only; add `adapt: {{}}`"
        )
    if recipe.adapt is not None and not recipe.data.corpus:
        faults.append(f"{source.place(('adapt',))}: adapt needs raw text; name its files in data.corpus")
    if not recipe.data.demonstrations:
        faults.append(f"{source.place(('data',))}: data.demonstrations is missing: conversations to fine-tune on")
    if not recipe.data.prompts and not recipe.data.preferences:
        faults.append(
            f"{source.place(('data',))}: name data.prompts to sample responses from, or data.preferences to import"
        )
    model: dict[str, Any] = {}
    if recipe.model.name.startswith((".", "/", "~")) or (folder / recipe.model.name).exists():
        model["name"] = str(local(recipe.model.name, "model"))
    if recipe.model.chat_template is not None:
        model["chat_template"] = local(recipe.model.chat_template, "model", "chat_template")
    annotate: dict[str, Any] = {}
    if recipe.annotate.guideline is not None:
        annotate["guideline"] = local(recipe.annotate.guideline, "annotate", "guideline")
    if recipe.annotate.store is not None and "://" not in recipe.annotate.store:
        annotate["store"] = str((folder / Path(recipe.annotate.store).expanduser()).resolve())
    if recipe.annotate.simulated is not None:
        utility = local(recipe.annotate.simulated.utility, "annotate", "simulated", "utility")
        annotate["simulated"] = recipe.annotate.simulated.model_copy(update={"utility": utility})
    policies = [
        name if name in ("sft", "base") else str(local(name, "sample", "policies", index))
        for index, name in enumerate(recipe.sample.policies)
    ]
    return {
        "data": recipe.data.model_copy(update=data),
        "model": recipe.model.model_copy(update=model),
        "annotate": recipe.annotate.model_copy(update=annotate),
        "sample": recipe.sample.model_copy(update={"policies": policies}),
    }
