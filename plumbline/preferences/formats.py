"""The formats of import and export by name, without the weight of what reads and writes them: the help names them."""

from __future__ import annotations

from collections.abc import Sequence

from plumbline.errors import UserError

IMPORTED = ("rankings", "hh", "oasst", "tulu_human_eval", "pandalm", "llamafactory", "openai", "trl")
"""Modules of `importers`; the first one that recognises a row decides, so the most particular formats come first."""

EXPORTED = ("trl", "dpo", "kto", "csv", "demonstrations", "rankings", "argilla", "label_studio", "flags")
"""Modules of `exporters`; the first is the default. `flags` writes the flags that stand, the others judgements."""


def check_format(name: str, known: Sequence[str]) -> None:
    """Refuse a format that is not among the known ones.

    Raises:
        UserError: names the nearest one.
    """
    from plumbline.recipe_yaml import nearest

    if name not in known:
        raise UserError(f"there is no format {name!r}{nearest(name, known)}")
