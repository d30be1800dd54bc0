"""What there is to export, without exporting it."""

from __future__ import annotations

from sqlalchemy import Text, cast, or_, select

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
    if format == "flags":
        wanted, none = Answer.kind == FLAG, "No flag stands"
    elif format == "demonstrations":
        wanted = (Answer.kind == JUDGEMENT) & Answer.purpose.in_(LEARNED_FROM) & (Answer.edited != "")
        none = "No response was improved yet"
    else:
        wanted = (Answer.kind == JUDGEMENT) & Answer.purpose.in_(LEARNED_FROM)
        none = "Nothing was judged yet"
        if format in PREFERRING:
            # Ranks are dense: of all that are not tied throughout, some response has the second one.
            says = [cast(Answer.ranks, Text).contains("2"), Answer.edited != ""]
            wanted &= or_(*says, cast(Answer.flags, Text).contains(ALL_BAD)) if format == "kto" else or_(*says)
            none = "No response was preferred yet"
    with service.look() as turn:
        query = select(Answer.id).where(Answer.project_id == turn.project_id, wanted, current()).limit(1)
        if people_only:
            query = query.join(Annotator, Annotator.id == Answer.annotator_id).where(~Annotator.simulated)
        if turn.connection.execute(query).one_or_none() is not None:
            return None
    return f"{none}{' by people' if people_only else ''}, so there is nothing to download."
