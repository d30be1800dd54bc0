"""What the pages need to know of the recipe."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from annotate_ui.i18n import Texts, load_texts
from plumbline.preferences.exporters.stream import ExportOptions
from plumbline.recipe import Recipe
from plumbline.recipe_annotate import RubricAxis


@dataclass(frozen=True)
class Setup:
    """How the app is set.

    Attributes:
        title: what is annotated, shown at the top of every page.
        guideline: Markdown for the annotators, published when the app starts; None where it is published already.
        rubric: axes on which each response is scored.
        strength: ask how much better, between neighbouring ranks.
        edit: let annotators improve the best response.
        language: `en`, `de`, or a JSON file with the same keys as `annotate_ui/locales/en.json`.
        show_streak: tell annotators how many checks in a row they got right.
        export_defaults: shares of the splits, as the recipe has them.
        pages: pages that are there (names in `annotate_ui.nav.PAGES`); the head line links to them.
    """

    title: str
    guideline: str | None = None
    rubric: tuple[RubricAxis, ...] = ()
    strength: bool = False
    edit: bool = True
    language: str = "en"
    show_streak: bool = False
    export_defaults: ExportOptions = field(default_factory=ExportOptions)
    pages: tuple[str, ...] = ("annotate", "lead")

    @classmethod
    def of_recipe(cls, recipe: Recipe) -> Setup:
        """The setup that a recipe asks for; its guideline is published by `plumbline.annotation`."""
        settings = recipe.annotate
        return cls(
            title=recipe.name,
            rubric=tuple(settings.rubric),
            strength=settings.strength,
            edit=settings.edit,
            language=settings.language,
            show_streak=settings.checks is not None and settings.checks.show_streak,
            export_defaults=ExportOptions(validation=recipe.data.validation, test=recipe.data.test),
        )

    @cached_property
    def texts(self) -> Texts:
        """What the pages say, in their language.

        Raises:
            UserError: see `annotate_ui.i18n.load_texts`.
        """
        return load_texts(self.language)
