"""Versions of the guideline, and who has accepted which.

Annotators are given no work until they accept the version in force. Every answer names the newest version that its
annotator had accepted by then, so that a change of the guideline can be seen in what people say after it. Simulated
annotators read nothing: they need not accept, and their answers name no version.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ScalarSelect, Select, bindparam, func, insert, select

from plumbline.errors import StoreError
from plumbline.preferences.records import AcceptedGuideline, NeedsConsent
from plumbline.preferences.store import insert_new
from plumbline.preferences.tables import Consent, Guideline, Project, RowId
from plumbline.preferences.turn import Actor, Facet, Turn, acting
from plumbline.preferences.validation import text_fault

MAX_GUIDELINE = 200_000


@dataclass(frozen=True)
class GuidelineVersion:
    """A version of the guideline (Markdown), counted from 1; `consents` is how many annotators have accepted it."""

    version: int
    text: str
    created_at: datetime
    consents: int


class Guidelines(Facet):
    """The guideline of a project."""

    def publish(self, text: str, *, from_file: bool = False) -> int:
        """Bring a guideline into force; returns its version. The text that is in force keeps its version.

        Args:
            from_file: the text is the recipe's file: where it was in force before, nothing changes, because the lead
                has published another one since.

        Raises:
            StoreError: the text is empty, too long, or cannot be stored.
        """
        fault = text_fault(text) or (f"has more than {MAX_GUIDELINE} characters" if len(text) > MAX_GUIDELINE else None)
        if fault:
            raise StoreError(f"the guideline {fault}.")
        with self.turn() as turn:
            # Under the project's lock, so that two who publish at once get two versions.
            turn.connection.execute(select(Project.id).where(Project.id == turn.project_id).with_for_update()).one()
            newest = turn.connection.execute(_newest(turn.project_id)).one_or_none()
            if newest is not None and (newest.text == text or (from_file and _known(turn, text))):
                return int(newest.version)
            version = 1 if newest is None else newest.version + 1
            values = {"project_id": turn.project_id, "version": version, "text": text, "created_at": turn.now}
            turn.connection.execute(insert(Guideline).values(**values))
            turn.record("guideline", version=int(version))
            return int(version)

    def current(self) -> GuidelineVersion | None:
        """The version in force; None where there is no guideline."""
        with self.look() as turn:
            row = turn.connection.execute(_versions(turn).limit(1)).one_or_none()
            return None if row is None else GuidelineVersion(**row._mapping)

    def versions(self) -> list[GuidelineVersion]:
        """All versions, the newest first."""
        with self.look() as turn:
            return [GuidelineVersion(**row._mapping) for row in turn.connection.execute(_versions(turn))]

    def consent(self, annotator_id: str, version: int) -> None:
        """Note that the annotator has read and accepts a version; repeating it does nothing.

        Raises:
            StoreError: it is not the version in force, or the annotator is not known.
        """
        with self.turn() as turn:
            actor = acting(turn, annotator_id)
            newest = turn.connection.execute(_newest(turn.project_id)).one_or_none()
            if newest is None or newest.version != version:
                raise StoreError("the guideline has changed since you opened it: load the next task to read it.")
            row = {"guideline_id": newest.id, "annotator_id": actor.id, "given_at": turn.now}
            insert_new(turn.connection, Consent, [row])


def missing_consent(turn: Turn, actor: Actor) -> NeedsConsent | None:
    """What the annotator must accept before they get work; None where there is nothing to accept."""
    if actor.simulated:
        return None
    asked = {"project": turn.project_id, "annotator": actor.id}
    newest = turn.connection.execute(_NEWEST_WITH_CONSENT, asked).one_or_none()
    if newest is None or newest.given_at is not None:
        return None
    why = "Please read and accept the guideline first."
    return NeedsConsent(why, "guideline", {}, newest.version, newest.text, _accepted(turn, actor))


def accepted_guideline(project: RowId, annotator: RowId) -> ScalarSelect[Any]:
    """The row id of the newest version that the annotator has accepted, as a part of a statement."""
    return (
        select(func.max(Guideline.id))
        .join(Consent, Consent.guideline_id == Guideline.id)
        .where(Guideline.project_id == project, Consent.annotator_id == annotator)
        .scalar_subquery()
    )


def accepted_version(turn: Turn, actor: Actor) -> int | None:
    """The newest version that the annotator has accepted; None where they have accepted none."""
    accepted = _accepted(turn, actor)
    return accepted and accepted.version


def _accepted(turn: Turn, actor: Actor) -> AcceptedGuideline | None:
    newest = Guideline.id == accepted_guideline(turn.project_id, actor.id)
    row = turn.connection.execute(select(Guideline.version, Guideline.text).where(newest)).one_or_none()
    return None if row is None else AcceptedGuideline(**row._mapping)


def _newest(project: RowId) -> Select[Any]:
    mine = Guideline.project_id == project
    return select(Guideline.__table__).where(mine).order_by(Guideline.version.desc()).limit(1)


_GIVEN = (
    select(Consent.given_at)
    .where(Consent.guideline_id == Guideline.id, Consent.annotator_id == bindparam("annotator"))
    .scalar_subquery()
)
_NEWEST_WITH_CONSENT = _newest(bindparam("project")).add_columns(_GIVEN.label("given_at"))


def _known(turn: Turn, text: str) -> bool:
    query = select(Guideline.id).where(Guideline.project_id == turn.project_id, Guideline.text == text).limit(1)
    return turn.connection.execute(query).one_or_none() is not None


def _versions(turn: Turn) -> Select[Any]:
    consents = select(func.count()).where(Consent.guideline_id == Guideline.id).scalar_subquery()
    return (
        select(Guideline.version, Guideline.text, Guideline.created_at, consents.label("consents"))
        .where(Guideline.project_id == turn.project_id)
        .order_by(Guideline.version.desc())
    )
