"""Messages made by hypothesis: as a model asks for them, with parts exchanged, and anything else."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from pydantic import BaseModel

LARGEST_BODY = 256 * 1024

MADE = settings(
    max_examples=500,
    database=None,
    deadline=None,
    phases=(Phase.explicit, Phase.generate, Phase.shrink),
    suppress_health_check=list(HealthCheck),
)
"""The same 500 inputs in every run."""

HOSTILE = (
    "",
    " ",
    "\0",
    "a\0b",
    "\ud800",
    "a\udfffb",
    "\u202e\u2066abc",
    "\ufeff",
    "\r\n\r\n<script>",
    "\x1b[31m",
    "ß" * 250,
    "x" * 5000,
    "é\u0301" * 2500,
    "'; DROP TABLE answers; --",
    '" OR 1=1 --',
    "%00",
    "%s%n%x",
    "{0.__class__}",
    "{{7*7}}",
    "${7*7}",
    "{name}",
    "../../../../etc/passwd",
    "..\\..\\windows",
    "file:///etc/passwd",
    "http://169.254.169.254/",
    "=cmd|' /C calc'!A0",
    "<img src=x onerror=alert(1)>",
    "[" * 500,
    "true",
    "null",
    "-1",
    "NaN",
)
NUMBERS = (0, -1, 1, 2**31, 2**53, 2**62, 2**63 - 1, 2**63, -(2**63) - 1, 2**64, 10**30, 1e308, 0.1, -0.0)
UNJSON = (
    b"",
    b"{",
    b"null",
    b"[]",
    b"\xff\xfe{\x00}\x00",
    b"\xef\xbb\xbf{}",
    b"\0",
    b'{"a": 1}{"b": 2}',
    b'{"lease_id": "a", "lease_id": "b"}',
    b'{"key": "\\ud800"}',
    b'{"before": NaN, "version": Infinity, "quota": -Infinity}',
    b'{"version": 1' + b"0" * 5000 + b"}",
    b'{"before": -1' + b"0" * 400 + b"}",
    b'{"seconds": 1e999999}',
    b"[" * 100_000,
    b'{"a":' * 40_000,
    b'{"ranking":' * 100 + b"1" + b"}" * 100,
    b'{"members": [' + b"1," * 60_000 + b"1]}",
    b'{"text": "' + b">" * 200_000 + b'"}',
)


CHANGES = ("set", "set", "drop", "add")
SORTS = {"lease_id": "lease", "answer_id": "answer", "before": "answer", "annotator_id": "person", "members": "person"}
SORTS |= {"task_id": "task", "battle": "battle", "of": "card"}
"""Which ids a field takes, by its name."""

Made = st.SearchStrategy[Any]


def texts(words: Iterable[str] = ()) -> st.SearchStrategy[str]:
    """Texts of every sort; `words` stand for ids (see `World.known`)."""
    anything = st.text(st.characters(), max_size=12)  # halves of surrogate pairs too
    named = [f"@{word}@" for word in words]
    return st.one_of(st.sampled_from(HOSTILE), anything, *([st.sampled_from(named)] if named else []))


def anything(words: Iterable[str] = ()) -> st.SearchStrategy[Any]:
    """Any JSON value."""
    numbers = st.one_of(st.sampled_from(NUMBERS), st.integers(), st.floats(allow_nan=True))
    leaves = st.one_of(st.none(), st.booleans(), numbers, texts(words))
    return st.one_of(leaves, st.lists(leaves, max_size=3), st.dictionaries(texts(), leaves, max_size=3))


def fitting(schema: Mapping[str, Any], words: Sequence[str], root: Mapping[str, Any], name: str = "") -> Made:
    """Values that a JSON schema of pydantic's asks for, some of them just outside; `name` is the field's."""
    if "$ref" in schema:
        return fitting(root["$defs"][schema["$ref"].rpartition("/")[2]], words, root)
    if "anyOf" in schema:
        return st.one_of(*(fitting(part, words, root, name) for part in schema["anyOf"]))
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    match schema.get("type"):
        case "object":
            return _objects(schema, words, root)
        case "array" if "prefixItems" in schema:
            return st.tuples(*(fitting(part, words, root) for part in schema["prefixItems"])).map(list)
        case "array":
            return st.lists(fitting(schema.get("items", {}), words, root, name), max_size=3)
        case "integer":
            low, high = schema.get("minimum", -5), schema.get("maximum", 2**70)
            return st.one_of(st.integers(low, min(high, low + 9)), st.integers(low, high))
        case "number":
            return st.floats(schema.get("minimum"), schema.get("maximum"), allow_nan=False)
        case "boolean":
            return st.booleans()
        case "null":
            return st.none()
        case "string":
            return _strings(schema, words, name)
    return anything(words)


def bodies(model: type[BaseModel], words: Sequence[str], *, fits: int = 5) -> st.SearchStrategy[bytes]:
    """Bodies of a call: fitting messages, such with a part exchanged, added or left out, any JSON, any bytes.

    `fits` is how many of 12 fit.
    """
    schema = model.model_json_schema()
    fit, any_value = fitting(schema, words, schema), anything(words)
    mutated = st.builds(_mutated, fit, st.integers(0, 20), st.sampled_from(CHANGES), any_value)
    as_json = [made.map(lambda value: json.dumps(value).encode()) for made in (fit, mutated, any_value)]
    others = {as_json[1]: 9 - fits, as_json[2]: 1, st.sampled_from(UNJSON): 1, st.binary(max_size=40): 1}
    return _weighted({as_json[0]: fits, **others})


def _weighted(parts: Mapping[st.SearchStrategy[Any], int]) -> Made:
    """One of several sorts, each as often as it weighs; `one_of` would not know that something is there twice."""
    sorts = [made for made, weight in parts.items() for _ in range(weight)]
    return st.integers(0, len(sorts) - 1).flatmap(sorts.__getitem__)


def _strings(schema: Mapping[str, Any], words: Sequence[str], name: str) -> Made:
    """Mostly ids of the sort that a field of this name has; else short and hostile texts."""
    alike = [word for word in words if SORTS.get(name, "") in word] or list(words)
    ids = st.sampled_from([f"@{word}@" for word in alike])
    if "pattern" in schema:
        return ids
    longest, shortest = schema.get("maxLength"), schema.get("minLength", 0)
    fit = [text[:longest] for text in HOSTILE if len(text.strip()) >= shortest and text.isascii()]
    return _weighted({ids: 2, st.sampled_from(fit): 1, st.text(max_size=8): 1})


def _objects(schema: Mapping[str, Any], words: Sequence[str], root: Mapping[str, Any]) -> Made:
    if "properties" in schema:
        required = set(schema.get("required", ()))
        parts = {name: fitting(part, words, root, name) for name, part in schema["properties"].items()}
        return st.fixed_dictionaries(
            {name: part for name, part in parts.items() if name in required},
            optional={name: part for name, part in parts.items() if name not in required},
        )
    values = fitting(schema.get("additionalProperties", {}), words, root)
    cards = [f"@{word}@" for word in words if word.startswith("card")]
    whole = st.fixed_dictionaries(dict.fromkeys(cards, values))
    axes = st.fixed_dictionaries({"helpful": values})
    return st.one_of(whole, axes, st.dictionaries(st.sampled_from([*cards, "helpful", "x" * 200]), values))


def _mutated(message: Any, place: int, how: str, value: Any) -> Any:
    if not message or how == "add":
        return {**message, "more": value}
    name = list(message)[place % len(message)]
    if how == "drop":
        return {key: one for key, one in message.items() if key != name}
    return {**message, name: value}
