"""What a project asks of its annotators beyond a ranking, as its recipe says it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from plumbline.errors import StoreError
from plumbline.preferences.quiz_file import Quiz, read_quiz
from plumbline.preferences.records import ADJUDICATION, ALL_BAD, MAX_GAP
from plumbline.preferences.source_names import WELL_KNOWN, SourceNames
from plumbline.recipe_annotate import ChecksSection, ReasonCase, RubricAxis

if TYPE_CHECKING:
    from plumbline.recipe import Recipe

REASONS: dict[ReasonCase, str] = {
    "strong": "you graded a response as much better than another: say in a few words what decided it.",
    "all_bad": "you said that all responses are bad: say in a few words what is wrong with them.",
    "adjudication": "your ranking decides a disputed task: say in a few words what decided it.",
    "always": "every ranking of this project needs a reason: say in a few words what decided it.",
}
"""When a reason may be required, and how a ranking without one is refused."""


@dataclass(frozen=True)
class Rules:
    """The settings that the service needs; without any, tasks are ranked and nothing else is asked.

    Attributes:
        checks: gold items, attention checks and silent repeats; None for none.
        adjudicate_above: disagreement above which an adjudicator decides; None for no adjudication.
        rubric: axes on which each response may be scored; without them no scores are taken.
        edit: whether the best response may be improved.
        require_reason: when a person's ranking needs a reason.
        names: of models, to be masked in what people see; None for no masks.
        quiz: questions on the guideline that people answer before their first work; None for none.
    """

    checks: ChecksSection | None = None
    adjudicate_above: float | None = None
    rubric: tuple[RubricAxis, ...] = ()
    edit: bool = True
    require_reason: tuple[ReasonCase, ...] = ()
    names: SourceNames | None = WELL_KNOWN
    quiz: Quiz | None = None

    @classmethod
    def of(cls, recipe: Recipe) -> Rules:
        """The rules of a recipe.

        Raises:
            UserError: the quiz's file has faults.
        """
        section = recipe.annotate
        return cls(
            checks=section.checks,
            adjudicate_above=section.adjudicate_above,
            rubric=tuple(section.rubric),
            edit=section.edit,
            require_reason=tuple(section.require_reason),
            names=SourceNames.of(recipe),
            quiz=read_quiz(section.quiz) if section.quiz else None,
        )

    def reason_cases(self, purpose: str) -> tuple[ReasonCase, ...]:
        """When a ranking that is asked for with this purpose (see `records`) needs a reason."""
        return tuple(case for case in self.require_reason if case != "adjudication" or purpose == ADJUDICATION)

    def check_reason(self, reason: str | None, purpose: str, gaps: Sequence[int], flags: Collection[str]) -> None:
        """Refuse a ranking that needs a reason and has none, which is one with a letter or digit in it.

        Raises:
            StoreError: why it needs one.
        """
        if any(character.isalnum() for character in reason or ""):
            return
        without = {"strong": MAX_GAP in gaps, "all_bad": ALL_BAD in flags}
        for case in self.reason_cases(purpose):
            if without.get(case, True):
                raise StoreError(REASONS[case])


RANK_ONLY = Rules()
"""Rankings, and nothing else."""
