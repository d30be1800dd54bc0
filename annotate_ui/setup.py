"""What the pages need to know of the recipe."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from annotate_ui.i18n import Texts, load_texts
from plumbline.recipe_annotate import AnnotateSection, RubricAxis


@dataclass(frozen=True)
class Setup:
    """How the app is set.

    Attributes:
        title: what is annotated, shown at the top of every page.
        guideline: Markdown for the annotators, or None.
        rubric: axes on which each response is scored.
        strength: ask how much better, between neighbouring ranks.
        edit: let annotators improve the best response.
        language: `en`, `de`, or a JSON file with the same keys as `annotate_ui/locales/en.json`.
        show_streak: tell annotators how many checks in a row they got right.
        pages: pages that are there (names in `annotate_ui.nav.PAGES`); the head line links to them.
    """

    title: str
    guideline: str | None = None
    rubric: tuple[RubricAxis, ...] = ()
    strength: bool = False
    edit: bool = True
    language: str = "en"
    show_streak: bool = False
    pages: tuple[str, ...] = ("annotate", "lead")

    @classmethod
    def of_recipe(cls, title: str, settings: AnnotateSection, *, guideline: str | None = None) -> Setup:
        """The setup that a recipe's section `annotate` asks for; `guideline` is the text of its file."""
        return cls(
            title=title,
            guideline=guideline,
            rubric=tuple(settings.rubric),
            strength=settings.strength,
            edit=settings.edit,
            language=settings.language,
            show_streak=settings.checks is not None and settings.checks.show_streak,
        )

    @cached_property
    def texts(self) -> Texts:
        """What the pages say, in their language.

        Raises:
            UserError: see `annotate_ui.i18n.load_texts`.
        """
        return load_texts(self.language)
