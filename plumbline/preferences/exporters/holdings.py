"""What there is to export, without exporting it."""

from __future__ import annotations

from sqlalchemy import ColumnElement, Text, cast, or_, select

from plumbline.preferences.records import ALL_BAD, FLAG, JUDGEMENT, LEARNED_FROM
from plumbline.preferences.service import PreferenceService
from plumbline.preferences.tables import Annotator, Answer, current

PREFERRING = ("trl", "dpo", "csv", "kto")
"""Formats that have no row of a judgement that ties all responses."""


def why_nothing(service: PreferenceService, format: str, *, people_only: bool = False) -> str | None:
    """Why an export would be empty, as a sentence for the lead; None where it would not.

    Args:
        service: of the project.
        format: one of `EXPORTED`.
        people_only: without what simulated annotators said.
    """
    with service.look() as turn:
        for wanted, none in _needed(format):
            query = select(Answer.id).where(Answer.project_id == turn.project_id, wanted, current()).limit(1)
            if people_only:
                query = query.join(Annotator, Annotator.id == Answer.annotator_id).where(~Annotator.simulated)
            if turn.connection.execute(query).one_or_none() is None:
                return f"{none}{' by people' if people_only else ''}, so there is nothing to download."
    return None


def _needed(format: str) -> list[tuple[ColumnElement[bool], str]]:
    """What answers an export needs, and what is said where there is none."""
    if format == "flags":
        return [(Answer.kind == FLAG, "No flag stands")]
    judged = (Answer.kind == JUDGEMENT) & Answer.purpose.in_(LEARNED_FROM)
    if format == "demonstrations":
        return [(judged & (Answer.edited != ""), "No response was improved yet")]
    needed: list[tuple[ColumnElement[bool], str]] = [(judged, "Nothing was judged yet")]
    if format in PREFERRING:
        # Ranks are dense: of all that are not tied throughout, some response has the second one.
        prefers = or_(cast(Answer.ranks, Text).contains("2"), Answer.edited != "")
        all_bad = cast(Answer.flags, Text).contains(ALL_BAD)
        needed.append(
            (judged & (or_(prefers, all_bad) if format == "kto" else prefers), "No response was preferred yet")
        )
    return needed
