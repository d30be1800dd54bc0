"""Reading the recipe's file of checks: items with the ranking that a careful annotator gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from plumbline.datafiles import read_rows
from plumbline.errors import DataError
from plumbline.preferences.records import CHECKS, GOLD, NewResponse, NewTask
from plumbline.preferences.validation import dense_ranks, task_fault, task_key

ORIGIN = "checks"
"""Origin of tasks that came from a file of checks."""

FIELDS = {"prompt", "responses", "ranking", "kind"}


class Check(NamedTuple):
    """A check: the task, the expected rank of each of its responses, and `gold` or `attention`."""

    task: NewTask
    expected: tuple[int, ...]
    kind: str


def read_checks(path: Path, project: str) -> list[Check]:
    """The checks of a file, in its order.

    Raises:
        DataError: with the line: unknown or missing fields, a ranking that does not fit or prefers nothing, or an item
            that is there twice.
    """
    checks: list[Check] = []
    seen: dict[str, int] = {}
    for line, row in read_rows(path):
        fault = _row_fault(row)
        if fault:
            raise DataError(path, line, fault)
        prompt = row["prompt"]
        if isinstance(prompt, str):
            prompt = [{"role": "user", "content": prompt}]
        responses = [NewResponse(text, ORIGIN) for text in row["responses"]]
        task = NewTask(prompt, responses, project, origin=ORIGIN)
        fault = task_fault(task)
        if fault:
            raise DataError(path, line, fault)
        key = task_key(task.prompt, row["responses"])
        if key in seen:
            raise DataError(path, line, f"the same item is in line {seen[key]} already: remove one of them")
        seen[key] = line
        checks.append(Check(task, dense_ranks(row["ranking"]), row.get("kind", GOLD)))
    if not checks:
        raise DataError(path, None, "has no rows: add checks, or remove annotate.checks.file from the recipe")
    return checks


def _row_fault(row: dict[str, Any]) -> str | None:
    unknown = sorted(set(row) - FIELDS)
    if unknown:
        return f"unknown field {unknown[0]!r}: a check has {', '.join(sorted(FIELDS))}"
    missing = sorted(FIELDS - {"kind"} - set(row))
    if missing:
        return f"the field {missing[0]!r} is missing"
    responses, ranking = row["responses"], row["ranking"]
    if not isinstance(responses, list) or not all(isinstance(text, str) for text in responses):
        return "`responses` is no list of texts"
    if not isinstance(ranking, list) or not all(type(rank) is int and rank >= 1 for rank in ranking):
        return "`ranking` is no list of ranks: whole numbers, 1 is best"
    if len(ranking) != len(responses):
        return f"{len(ranking)} ranks for {len(responses)} responses: `ranking` gives one to each, in their order"
    if len(set(ranking)) < 2:
        return "`ranking` ties all responses, so there is nothing to get right"
    if row.get("kind", GOLD) not in CHECKS:
        return f"`kind` is {row['kind']!r}: expected gold or attention"
    return None
