"""What a project asks of its annotators beyond a ranking, as its recipe says it."""

from __future__ import annotations

from dataclasses import dataclass

from plumbline.recipe_annotate import AnnotateSection, ChecksSection, RubricAxis


@dataclass(frozen=True)
class Rules:
    """The settings that the service needs; without any, tasks are ranked and nothing else is asked.

    Attributes:
        checks: gold items, attention checks and silent repeats; None for none.
        adjudicate_above: disagreement above which an adjudicator decides; None for no adjudication.
        rubric: axes on which each response may be scored; without them no scores are taken.
        edit: whether the best response may be improved.
    """

    checks: ChecksSection | None = None
    adjudicate_above: float | None = None
    rubric: tuple[RubricAxis, ...] = ()
    edit: bool = True

    @classmethod
    def of(cls, section: AnnotateSection) -> Rules:
        """The rules of a recipe."""
        return cls(section.checks, section.adjudicate_above, tuple(section.rubric), section.edit)


RANK_ONLY = Rules()
"""Rankings, and nothing else."""
