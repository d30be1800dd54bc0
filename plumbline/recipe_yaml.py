"""Reading a recipe's YAML so that every value knows its line, and setting values from the command line."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from plumbline.errors import RecipeError

KeyPath = tuple[str | int, ...]

OTHER_NAMES = {
    "alpha": "lora_alpha",
    "batch_size": "per_device_train_batch_size",
    "dropout": "lora_dropout",
    "epochs": "num_train_epochs",
    "episodes": "total_episodes",
    "evaluation_strategy": "eval_strategy",
    "grad_accum": "gradient_accumulation_steps",
    "kl": "kl_coef",
    "lr": "learning_rate",
    "max_seq_length": "max_length",
    "max_tokens": "max_new_tokens",
    "rank": "r",
    "scheduler": "lr_scheduler_type",
    "steps": "max_steps",
    "warmup": "warmup_steps",
    "wd": "weight_decay",
}
"""What else settings are called, where the spelling alone does not lead to the right key."""


class _Loader(yaml.SafeLoader):
    """YAML's safe loader, with numbers as YAML 1.2 reads them (`2e-5` is a number there, a string in YAML 1.1)."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d[\d_]*\.?[\d_]*|\.\d[\d_]*)[eE][-+]?\d+$"),
    list("-+0123456789."),
)


class Source:
    """Parsed YAML with the place of every key.

    Attributes:
        data: as plain Python values; of a key that is given twice, the last value, or both sections or lists as one,
            so that the faults of both are told.
        faults: keys that are given twice, with their places.
    """

    def __init__(self, path: Path, data: Any, lines: dict[KeyPath, int], faults: list[str]) -> None:
        self.path, self.data, self.faults = path, data, faults
        self._lines = lines
        self._from_command_line: set[KeyPath] = set()

    @classmethod
    def read(cls, path: Path) -> Source:
        """Read a file; a file that is no YAML is a RecipeError with its line."""
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise RecipeError([f"{path}: not UTF-8 at byte {error.start}; save the file as UTF-8"]) from None
        except OSError as error:
            raise RecipeError([f"{path}: cannot be read: {error.strerror}"]) from None
        try:
            loader = _Loader(text)
            node = loader.get_single_node()
            faults: list[str] = []
            joined = None if node is None else _joined(node, faults, path)
            data = {} if joined is None else loader.construct_document(joined)
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            line = mark.line + 1 if mark else 1
            raise RecipeError([f"{path}:{line}: not valid YAML: {getattr(error, 'problem', None) or error}"]) from None
        lines: dict[KeyPath, int] = {(): 1}
        if joined is not None:
            _collect_lines(joined, (), lines)
        return cls(path, {} if data is None else data, lines, faults)

    def value(self, path: KeyPath) -> Any:
        """The value of a key; None where it, or a section above it, is not there."""
        value = self.data
        for part in path:
            if isinstance(value, dict):
                value = value.get(part)
            elif isinstance(value, list) and isinstance(part, int) and part < len(value):
                value = value[part]
            else:
                return None
        return value

    def place(self, path: KeyPath) -> str:
        """`file:line` of a key, or of the nearest key above it."""
        for end in range(len(path), -1, -1):
            if path[:end] in self._from_command_line:
                return "command line"
            if path[:end] in self._lines:
                return f"{self.path}:{self._lines[path[:end]]}"
        return str(self.path)

    def line(self, path: KeyPath) -> int:
        """The line of a key in the file, or of the nearest key above it."""
        return next(self._lines[path[:end]] for end in range(len(path), -1, -1) if path[:end] in self._lines)

    def in_order(self, faults: Iterable[str]) -> list[str]:
        """Faults that begin with a `place`, by line; those of the command line come first."""
        line = re.compile(rf"{re.escape(str(self.path))}:(\d+):")
        found = [(line.match(fault), fault) for fault in faults]
        return [fault for _, fault in sorted(found, key=lambda pair: int(pair[0][1]) if pair[0] else 0)]

    def set(self, assignment: str) -> None:
        """Apply one `section.key=value` of the command line; list items are named by their `name`/`method` or index.

        Raises:
            RecipeError: the assignment has no `=`, or leads through something that is no section.
        """
        name, equals, text = assignment.partition("=")
        if not equals or not name.strip():
            raise RecipeError([f"command line: {assignment!r} is not of the form section.key=value"])
        try:
            value = yaml.load(text, Loader=_Loader) if text else None
        except yaml.YAMLError:
            value = text
        target: Any = self.data
        path: list[str | int] = []
        *parents, last = name.strip().split(".")
        for part in parents:
            target, key = _descend(target, part, assignment)
            path.append(key)
        if isinstance(target, list):
            raise RecipeError(
                [f"command line: {assignment!r} must say which item of {'.'.join(parents)} and which key"]
            )
        if not isinstance(target, dict):
            raise RecipeError([f"command line: {'.'.join(parents)} in {assignment!r} is not a section"])
        target[last] = value
        self._from_command_line.add((*path, last))


def _joined(node: yaml.Node, faults: list[str], file: Path) -> yaml.Node:
    """The node with what is given twice told in `faults`; of sections and lists given twice, both in one."""
    if isinstance(node, yaml.SequenceNode):
        return _with_value(node, [_joined(item, faults, file) for item in node.value])
    if not isinstance(node, yaml.MappingNode):
        return node
    pairs: dict[str, tuple[yaml.Node, yaml.Node]] = {}
    for key_node, value_node in node.value:
        key, value = str(key_node.value), _joined(value_node, faults, file)
        if key in pairs:
            faults.append(f"{file}:{key_node.start_mark.line + 1}: {key!r} is given twice in this section; keep one")
            earlier = pairs[key][1]
            if type(value) is type(earlier) and isinstance(value, yaml.CollectionNode):
                value = _joined(_with_value(value, earlier.value + value.value), [], file)
        pairs[key] = (key_node, value)
    return _with_value(node, list(pairs.values()))


def _with_value(node: yaml.CollectionNode, value: list[Any]) -> yaml.CollectionNode:
    return type(node)(node.tag, value, node.start_mark, node.end_mark)


def _collect_lines(node: yaml.Node, path: KeyPath, lines: dict[KeyPath, int]) -> None:
    if isinstance(node, yaml.MappingNode):
        for key_node, value_node in node.value:
            key = (*path, str(key_node.value))
            lines[key] = key_node.start_mark.line + 1
            _collect_lines(value_node, key, lines)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            lines[(*path, index)] = item.start_mark.line + 1
            _collect_lines(item, (*path, index), lines)


def _descend(target: Any, part: str, assignment: str) -> tuple[Any, str | int]:
    if isinstance(target, list):
        named = [_names_of(item) for item in target]
        for index, item in enumerate(target):
            if part in (*named[index], str(index)):
                return item, index
        items = [names[0] if names else str(index) for index, names in enumerate(named)]
        has = f"it has {', '.join(items)}" if items else "it is empty"
        raise RecipeError([f"command line: {assignment!r}: there is no item {part!r} in this list; {has}"])
    if isinstance(target, dict):
        if target.get(part) is None:
            target[part] = {}
        elif part == "model" and isinstance(target[part], str):  # short for `model: {name: …}`
            target[part] = {"name": target[part]}
        return target[part], part
    raise RecipeError([f"command line: {assignment!r}: {part!r} is not a section"])


def _names_of(item: Any) -> list[str]:
    """By which a list's item may be called."""
    return [str(item[key]) for key in ("name", "method") if item.get(key)] if isinstance(item, dict) else []


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the nearest known name, or the list of the known ones when none is near."""
    import difflib

    names = sorted(known)
    other = OTHER_NAMES.get(name)
    close = [other] if other in names else difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; known are {', '.join(names)}" if len(names) <= 25 else ""


def without_none(values: Mapping[str, Any]) -> dict[str, Any]:
    """The mapping without its None values."""
    return {key: value for key, value in values.items() if value is not None}
