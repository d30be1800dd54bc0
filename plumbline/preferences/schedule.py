"""At which places annotators get a check or a repeat: not to be predicted by them, yet the same whenever asked."""

from __future__ import annotations

import hashlib

from plumbline.recipe_annotate import ChecksSection

CHECK, REPEATED = "check", "repeat"


def extra_at(rules: ChecksSection, project: str, annotator_id: str, position: object) -> str | None:
    """Whether the item at a position is a `check`, a `repeat`, or work (None).

    Each position is drawn on its own: one in `every` is a check, a share `repeat_share` a repeat.
    """
    drawn = place(project, annotator_id, position, "kind")
    share = 1 / rules.every
    if drawn < share:
        return CHECK
    return REPEATED if drawn < share + rules.repeat_share else None


def place(*about: object) -> float:
    """A number from 0 to below 1 that depends on nothing but `about`; annotators' ids are random and not shown."""
    digest = hashlib.sha256("\x1f".join(map(str, about)).encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48
