"""What a project asks of its annotators beyond a ranking, as its recipe says it."""

from __future__ import annotations

from dataclasses import dataclass

from plumbline.preferences.quiz_file import Quiz, read_quiz
from plumbline.recipe_annotate import AnnotateSection, ChecksSection, RubricAxis


@dataclass(frozen=True)
class Rules:
    """The settings that the service needs; without any, tasks are ranked and nothing else is asked.

    Attributes:
        checks: gold items, attention checks and silent repeats; None for none.
        adjudicate_above: disagreement above which an adjudicator decides; None for no adjudication.
        rubric: axes on which each response may be scored; without them no scores are taken.
        edit: whether the best response may be improved.
        quiz: questions on the guideline that people answer before their first work; None for none.
    """

    checks: ChecksSection | None = None
    adjudicate_above: float | None = None
    rubric: tuple[RubricAxis, ...] = ()
    edit: bool = True
    quiz: Quiz | None = None

    @classmethod
    def of(cls, section: AnnotateSection) -> Rules:
        """The rules of a recipe.

        Raises:
            UserError: the quiz's file has faults.
        """
        quiz = read_quiz(section.quiz) if section.quiz else None
        return cls(section.checks, section.adjudicate_above, tuple(section.rubric), section.edit, quiz)


RANK_ONLY = Rules()
"""Rankings, and nothing else."""
