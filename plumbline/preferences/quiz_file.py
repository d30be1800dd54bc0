"""The quiz on the guideline: its questions, read from the recipe's file, and what is right."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from plumbline.datafiles import read_rows
from plumbline.errors import DataError, Faults, RecipeError, UserError, counted
from plumbline.preferences.records import ShownQuestion
from plumbline.preferences.validation import digest, text_fault
from plumbline.recipe_annotate import QuizSection
from plumbline.recipe_yaml import Source, nearest

FIELDS = ("question", "options", "right", "explanation")
FEWEST_OPTIONS, MOST_OPTIONS = 2, 6
MOST_QUESTIONS = 50
LONGEST_TEXT = 10_000


@dataclass(frozen=True)
class Question:
    """A question of the quiz; `right` are the numbers of the right options, from 1."""

    text: str
    options: tuple[str, ...]
    right: frozenset[int]
    explanation: str

    @property
    def shown(self) -> ShownQuestion:
        """The question as whoever answers sees it."""
        return ShownQuestion(self.text, self.options, several=len(self.right) > 1)


@dataclass(frozen=True)
class Quiz:
    """The questions, and what must be right of them; see `QuizSection`."""

    questions: tuple[Question, ...]
    pass_share: float = 0.8
    attempts: int = 3
    ask_again: bool = False

    @cached_property
    def content(self) -> str:
        """Names what is asked and what is right; another explanation is the same quiz."""
        return digest(self.shown_content, *(str(sorted(one.right)) for one in self.questions))

    @cached_property
    def shown_content(self) -> str:
        """Names what the page shows. The right answers are not in it: they could be guessed until the digest fits."""
        return digest(*(part for one in self.questions for part in (one.text, *one.options, "")))

    @property
    def needed(self) -> int:
        """How many questions must be right."""
        return next(n for n in range(len(self.questions) + 1) if n >= self.pass_share * len(self.questions) - 1e-9)

    def admits(self, passed: str | None) -> bool:
        """Whether somebody is through who passed a quiz of the content `passed`, or none."""
        return passed is not None and (passed == self.content or not self.ask_again)

    def wrong(self, chosen: Sequence[Collection[int]]) -> tuple[int, ...]:
        """Places of the questions that are not right: those of which not just the right options were chosen."""
        pairs = zip(self.questions, chosen, strict=True)
        return tuple(place for place, (question, options) in enumerate(pairs) if set(options) != question.right)


def read_quiz(section: QuizSection) -> Quiz:
    """The quiz of a recipe.

    Raises:
        UserError: all faults of its file, each with the line.
    """
    path, faults = section.file, Faults()
    questions: list[Question] = []
    seen: dict[str, int] = {}
    for line, row in _rows(path):
        question = faults.attempt(_question, path, line, row)
        if question is None:
            continue
        if question.text in seen:
            faults.found.append(f"{path}:{line}: the same question is in line {seen[question.text]} already")
        seen.setdefault(question.text, line)
        questions.append(question)
    faults.raise_together("the quiz has")
    if not questions:
        raise DataError(path, None, "has no questions: add some, or remove annotate.quiz from the recipe")
    if len(questions) > MOST_QUESTIONS:
        raise DataError(path, None, f"has {len(questions)} questions, and a quiz has at most {MOST_QUESTIONS}")
    return Quiz(tuple(questions), section.pass_share, section.attempts, section.ask_again)


def _rows(path: Path) -> Iterator[tuple[int, Any]]:
    """The questions as they stand in the file, with their lines."""
    if path.suffix not in (".yaml", ".yml"):
        yield from read_rows(path)
        return
    try:
        source = Source.read(path)
    except RecipeError as error:
        raise UserError("\n".join(error.faults)) from None
    if source.faults:
        raise UserError("\n".join(source.faults))
    rows = source.data or []
    if not isinstance(rows, list):
        raise DataError(path, 1, "is no list: begin each question with `- question:`")
    yield from ((source.line((place,)), row) for place, row in enumerate(rows))


def _question(path: Path, line: int, row: Any) -> Question:
    fault = _row_fault(row)
    if fault:
        raise DataError(path, line, fault)
    right = row["right"] if isinstance(row["right"], list) else [row["right"]]
    options = tuple(option.strip() for option in row["options"])
    return Question(row["question"].strip(), options, frozenset(right), row["explanation"].strip())


def _row_fault(row: Any) -> str | None:
    if not isinstance(row, dict):
        return f"is no question: a question has {', '.join(FIELDS)}"
    unknown = sorted(str(key) for key in row if key not in FIELDS)
    if unknown:
        return f"unknown field {unknown[0]!r}{nearest(unknown[0], FIELDS)}"
    missing = [name for name in FIELDS if row.get(name) is None]
    if missing:
        return f"the field {missing[0]!r} is missing: a question has {', '.join(FIELDS)}"
    if not isinstance(row["options"], list) or not FEWEST_OPTIONS <= len(row["options"]) <= MOST_OPTIONS:
        return f"`options` is no list of {FEWEST_OPTIONS} to {MOST_OPTIONS} texts"
    texts = {"`question`": row["question"], "`explanation`": row["explanation"]}
    texts |= {f"option {number}": option for number, option in enumerate(row["options"], 1)}
    for name, text in texts.items():
        if isinstance(text, bool | int | float):
            return f"{name} is {text!r}, which YAML and JSON take for no text: put it in quotes"
        fault = text_fault(text) or (f"has more than {LONGEST_TEXT:,} characters" if len(text) > LONGEST_TEXT else None)
        if fault:
            return f"{name} {fault}"
    if len({option.strip() for option in row["options"]}) < len(row["options"]):
        return "two options are the same"
    return _right_fault(row["right"], len(row["options"]))


def _right_fault(right: Any, options: int) -> str | None:
    numbers = right if isinstance(right, list) else [right]
    if not numbers or not all(type(number) is int for number in numbers):
        return f"`right` is {right!r}: expected the number of the right option, from 1, or a list of such numbers"
    beyond = next((number for number in numbers if not 1 <= number <= options), None)
    if beyond is not None:
        return f"`right` names option {beyond}, and there are {counted(options, 'option')}, counted from 1"
    if len(set(numbers)) < len(numbers):
        return "`right` names an option twice"
    return None
