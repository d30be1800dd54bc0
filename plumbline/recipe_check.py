"""Checking a whole recipe before any work: all faults at once, each with file, line and the nearest right key.

The trainers are handed in by the caller (`chain.trainers`), because this module is on the ground floor and imports no
stage.
"""

from __future__ import annotations

import copy
import dataclasses
import tempfile
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from plumbline.errors import RecipeError
from plumbline.recipe import (
    NAME_PATTERN,
    POLICY_PATTERN,
    AdaptSection,
    AlignSection,
    Recipe,
    RewardSection,
    SFTSection,
    TrainerSection,
)
from plumbline.recipe_yaml import KeyPath, Source, nearest

STAGE_FOLDERS = ("base", "adapt", "sft", "sample", "preferences", "reward", "judge", "watch", "compare", "logs")
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

PLAIN = {
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "dict_type": "must be a section with keys of its own",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "greater_than": "must be more than {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "int_from_float": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_type": "must be a whole number",
    "less_than": "must be less than {lt:g}",
    "less_than_equal": "must be at most {le:g}",
    "list_type": "must be a list",
    "literal_error": "must be {expected}",
    "model_type": "must be a section with keys of its own",
    "path_type": "must be the path of a file",
    "string_type": "must be text",
    "too_short": "must have {min_length} or more entries",
}
"""pydantic's kinds of faults in plain words."""

PATTERNS = {
    NAME_PATTERN: "must begin with a letter or digit and have only letters, digits, '_', '.' and '-'",
    POLICY_PATTERN: "must begin with a small letter or digit and have only small letters, digits, '_' and '-'",
}
"""What the patterns of names ask for."""


def load_recipe(path: Path, *, overrides: Sequence[str] = (), trainers: Mapping[str, Trainer]) -> Recipe:
    """Read and check a whole recipe.

    Args:
        path: the YAML file.
        overrides: `section.key=value` from the command line, applied over the file.
        trainers: the trainers whose fields the sections take: keys `adapt`, `sft`, `reward` and one for each alignment
            method.

    Raises:
        RecipeError: with every fault found, by line, each with its place and what to do.
    """
    source = Source.read(path)
    if not isinstance(source.data, dict):
        raise RecipeError(
            [f"{path}:1: expected sections such as `model:` and `data:`, found {type(source.data).__name__}"]
        )
    faults = list(source.faults)
    for assignment in overrides:
        try:
            source.set(assignment)
        except RecipeError as error:
            faults += error.faults
    values, missing = _resolved(source, path.parent.resolve())
    wrong: list[Any] = []
    recipe = None
    try:
        recipe = Recipe.model_validate(values)
    except ValidationError as error:
        wrong = list(error.errors())
    faults += [_explain(fault, source) for fault in wrong]
    faults += [*_trainer_faults(source, trainers), *_align_faults(source), *missing]
    # An unknown key may be what is missing, misspelt.
    if not any(fault["type"] == "extra_forbidden" and fault["loc"][:-1] in ((), ("data",)) for fault in wrong):
        faults += _data_faults(source)
    if recipe is None or faults:
        raise RecipeError(source.in_order(faults))
    return recipe


def _explain(fault: Any, source: Source) -> str:
    """One pydantic fault as `file:line: key: what is wrong`, with the nearest right key for an unknown one."""
    location: KeyPath = tuple(part for part in fault["loc"])
    key = ".".join(str(part) for part in location)
    place = source.place(location)
    if fault["type"] == "extra_forbidden":
        return f"{place}: unknown key {key!r}{nearest(str(location[-1]), _known_keys(location[:-1]))}"
    if fault["type"] == "missing":
        return f"{place}: {key!r} is missing: {_description(location)}"
    if not isinstance(source.value(location[:-1]), dict | list):  # pydantic adds which of several types it tried
        key = ".".join(str(part) for part in location[:-1])
    given = fault.get("input")
    shown = f" (given: {given!r})" if isinstance(given, str | int | float | bool) else ""
    return f"{place}: {key}: {_plain(fault)}{shown}"


def _plain(fault: Any) -> str:
    """A pydantic fault in plain words."""
    details = fault.get("ctx", {})
    if fault["type"] == "string_pattern_mismatch" and details["pattern"] in PATTERNS:
        return PATTERNS[details["pattern"]]
    if fault["type"] in PLAIN:
        return PLAIN[fault["type"]].format(**details)
    return str(fault["msg"]).removeprefix("Value error, ")


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


def _trainer_faults(source: Source, trainers: Mapping[str, Trainer]) -> list[str]:
    """Faults of the sections that drive a trainer."""
    faults: list[str] = []
    named: dict[str, type[TrainerSection]] = {"adapt": AdaptSection, "sft": SFTSection, "reward": RewardSection}
    sections: list[tuple[KeyPath, type[TrainerSection], str]] = [
        ((name,), section, name) for name, section in named.items()
    ]
    methods = set(trainers) - set(named)
    sections += [
        (("align", index), AlignSection, method)
        for index, entry in _aligned(source)
        for method in methods
        if entry.get("method") == method
    ]
    for location, section, trainer in sections:
        values = source.value(location)
        if not isinstance(values, dict):
            continue
        fields = {key: value for key, value in values.items() if key not in section.model_fields}
        faults += _fields_faults(fields, list(section.model_fields), location, source, trainers[trainer])
        if values.get("load_in_4bit") is True and values.get("lora") is None:
            place = source.place((*location, "load_in_4bit"))
            faults.append(
                f"{place}: load_in_4bit needs `lora:`: 4-bit weights cannot be trained; add a lora section or drop it"
            )
    return faults


def _aligned(source: Source) -> list[tuple[int, dict[str, Any]]]:
    """The `align` entries that are mappings, with their place in the list."""
    entries = source.value(("align",))
    return [
        (index, entry)
        for index, entry in enumerate(entries if isinstance(entries, list) else [])
        if isinstance(entry, dict)
    ]


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
            fault = _type_fault(value, hints.get(name, Any)) or _steps_fault(name, value)
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
        first, *others = dict.fromkeys(_plain(fault) for fault in error.errors())
        return " or ".join([first, *(other.removeprefix("must be ") for other in others)])
    return None


def _steps_fault(name: str, value: Any) -> str | None:
    """An interval of 1.0, which looks like the whole training, as 0.5 is half of it, and means every step."""
    if name not in ("eval_steps", "save_steps", "logging_steps") or not isinstance(value, float) or value != 1:
        return None
    return "this would be done at every step; write 1 if you mean that, or a share of the training below 1, such as 0.5"


def _align_faults(source: Source) -> list[str]:
    """Names of aligned policies that are taken, and settings for rewards that the chain does not have."""
    faults: list[str] = []
    seen: set[str] = set()
    for index, entry in _aligned(source):
        name = entry.get("name") or entry.get("method")
        if not isinstance(name, str):
            continue
        place = source.place(("align", index))
        if name in seen:
            faults.append(f"{place}: two aligned policies are called {name!r}; give one another `name:`")
        if name in STAGE_FOLDERS:
            faults.append(f"{place}: {name!r} is the folder of another stage; give this policy another `name:`")
        seen.add(name)
        weights = entry.get("reward_weights") if entry.get("method") == "ppo" else None
        if isinstance(weights, list) and len(weights) != 1:
            place = source.place(("align", index, "reward_weights"))
            faults.append(
                f"{place}: align.{index}.reward_weights has {len(weights)} entries, but the chain optimises one reward "
                "model: leave it out (several rewards are for PPOTrainer in a script)"
            )
        action = entry.get("on_overoptimization") if entry.get("method") == "ppo" else None
        if action in ("stop", "raise_kl") and not source.value(("reward", "watch_share")):
            place = source.place(("align", index, "on_overoptimization"))
            faults.append(
                f"{place}: align.{index}.on_overoptimization is {action!r}, but the chain watches no second reward: "
                "set `reward.watch_share`, such as 0.2 (the comparison's judge may select no policy), or leave it out"
            )
    return faults


def _data_faults(source: Source) -> list[str]:
    """Data that a stage needs and that are not named, or are named for no stage."""
    faults: list[str] = []
    adapts, corpus = source.value(("adapt",)) is not None, source.value(("data", "corpus"))
    if corpus and not adapts:
        place = source.place(("data", "corpus"))
        faults.append(f"{place}: data.corpus is read by the adaptation stage only; add `adapt: {{}}`")
    if adapts and not corpus:
        faults.append(f"{source.place(('adapt',))}: adapt needs raw text; name its files in data.corpus")
    place = source.place(("data",))
    if not source.value(("data", "demonstrations")):
        faults.append(f"{place}: data.demonstrations is missing: conversations to fine-tune on")
    if not source.value(("data", "prompts")) and not source.value(("data", "preferences")):
        faults.append(f"{place}: name data.prompts to sample responses from, or data.preferences to import")
    return faults


def _resolved(source: Source, folder: Path) -> tuple[dict[str, Any], list[str]]:
    """The recipe's values with absolute paths (they are relative to the recipe), and the files that are not there.

    It reads the values before they are checked, so that a missing file is told beside everything else.
    """
    missing: list[str] = []

    def absolute(text: str) -> Path:
        return (folder / Path(text).expanduser()).resolve()

    def local(text: str, place: KeyPath) -> str:
        path = absolute(text)
        if not path.exists():
            missing.append(f"{source.place(place)}: {'.'.join(str(part) for part in place)}: there is no file {path}")
        return str(path)

    def model(text: str, place: KeyPath) -> str:
        return local(text, place) if text.startswith((".", "/", "~")) or (folder / text).exists() else text

    def policy(text: str, place: KeyPath) -> str:
        return text if text in ("sft", "base") else local(text, place)

    def store(text: str, place: KeyPath) -> str:
        return text if "://" in text else str(absolute(text))

    changes: dict[KeyPath, Callable[[str, KeyPath], str]] = {
        **{("data", name): local for name in ("demonstrations", "prompts", "benchmark", "corpus", "preferences")},
        ("model",): model,
        ("model", "name"): model,
        ("model", "chat_template"): local,
        ("sample", "policies"): policy,
        ("annotate", "guideline"): local,
        ("annotate", "checks", "file"): local,
        ("annotate", "quiz", "file"): local,
        ("annotate", "simulated", "utility"): local,
        ("annotate", "store"): store,
    }
    values = copy.deepcopy(source.data)
    for place, change in changes.items():
        *parents, key = place
        section: Any = values
        for parent in parents:
            section = section.get(parent) if isinstance(section, dict) else None
        if isinstance(section, dict) and key in section:
            section[key] = _changed(section[key], change, place)
    return values, missing


def _changed(value: Any, change: Callable[[str, KeyPath], str], place: KeyPath) -> Any:
    """A path, a list of them, or an entry with `path`, each path changed; anything else as it is."""
    if isinstance(value, str):
        return change(value, place)
    if isinstance(value, list):
        return [_changed(item, change, (*place, index)) for index, item in enumerate(value)]
    if isinstance(value, dict) and isinstance(value.get("path"), str):
        return {**value, "path": change(value["path"], place)}
    return value
