"""Between the page and the service: reads what the page sent, asks the service, renders what comes next.

No rule lives here. Every call names the annotator of the server-side session; the service checks the lease against it.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, TypedDict

from pydantic import Field

from annotate_ui.calls import Message
from annotate_ui.render import render_empty, render_task
from plumbline.preferences.records import Assignment, NoWork

if TYPE_CHECKING:
    from annotate_ui.setup import Setup
    from plumbline.preferences.service import PreferenceService

Identifier = Annotated[str, Field(min_length=1, max_length=200)]
Note = Annotated[str, Field(max_length=4000)]
Seconds = Annotated[float, Field(ge=0, le=7 * 24 * 3600)]


class LeaseMessage(Message):
    """Names the lease that the page shows, where it shows one."""

    lease_id: Identifier | None = None


class AnswerMessage(Message):
    """An answer to the shown task; `key` is made once for each view of a task, so that a retry counts once."""

    lease_id: Identifier
    key: Identifier


class JudgeMessage(AnswerMessage):
    """A ranking: response id to rank, 1 is best, equal ranks are ties."""

    ranking: dict[Identifier, Annotated[int, Field(ge=1, le=9)]]
    seconds: Seconds | None = None
    reason: Note = ""


class SkipMessage(AnswerMessage):
    """The annotator leaves this task to others."""

    reason: Annotated[Note, Field(min_length=1)]


class FlagMessage(AnswerMessage):
    """Something is wrong with the task itself."""

    kind: Identifier
    note: Note = ""


class Reply(TypedDict, total=False):
    """What the page gets back.

    `html` replaces the shown task; `expires_in` is the seconds left of its lease; `notice` is announced; `error` is a
    sentence for the annotator, and what they entered stays on the page.
    """

    html: str
    expires_in: float
    notice: str
    error: str


class Desk:
    """The page's side of the preference service, one method for each thing that an annotator can do."""

    def __init__(self, service: PreferenceService, setup: Setup) -> None:
        self.service, self.setup = service, setup

    def next(self, annotator_id: str, message: LeaseMessage) -> Reply:
        """Show the next task, or why there is none."""
        return self._show(annotator_id, self.service.lease_next(annotator_id))

    def judge(self, annotator_id: str, message: JudgeMessage) -> Reply:
        """Store a ranking, then show the next task."""
        self.service.judge(
            message.lease_id,
            annotator_id,
            message.ranking,
            idempotency_key=message.key,
            seconds=message.seconds,
            reason=message.reason or None,
        )
        return self._next_after(annotator_id, self.setup.texts("board.saved"))

    def skip(self, annotator_id: str, message: SkipMessage) -> Reply:
        """Leave the task to others, then show the next one."""
        self.service.skip(message.lease_id, annotator_id, reason=message.reason, idempotency_key=message.key)
        return self._next_after(annotator_id, self.setup.texts("board.skipped"))

    def flag(self, annotator_id: str, message: FlagMessage) -> Reply:
        """Report a faulty task, then show the next one."""
        self.service.flag(
            message.lease_id, annotator_id, kind=message.kind, note=message.note, idempotency_key=message.key
        )
        return self._next_after(annotator_id, self.setup.texts("board.flagged"))

    def undo(self, annotator_id: str, message: LeaseMessage) -> Reply:
        """Show the annotator's last answer again, to correct it."""
        assignment = self.service.reopen_last(annotator_id)
        if assignment is None:
            return {"notice": self.setup.texts("board.nothing_to_undo")}
        return {**self._show(annotator_id, assignment), "notice": self.setup.texts("board.reopened")}

    def release(self, annotator_id: str, message: LeaseMessage) -> Reply:
        """Hand the shown task back unanswered; of a correction, the earlier answer stands."""
        if message.lease_id:
            self.service.release(message.lease_id, annotator_id)
        return {}

    def renew(self, annotator_id: str, message: LeaseMessage) -> Reply:
        """Keep the shown task for this annotator a while longer."""
        if message.lease_id is None:
            return {}
        return {"expires_in": seconds_until(self.service.renew(message.lease_id, annotator_id))}

    def _next_after(self, annotator_id: str, notice: str) -> Reply:
        return {**self._show(annotator_id, self.service.lease_next(annotator_id)), "notice": notice}

    def _show(self, annotator_id: str, work: Assignment | NoWork) -> Reply:
        mine, remaining = self.service.annotator_progress(annotator_id)
        team = self.service.progress()
        counts = {"mine": mine, "remaining": remaining, "done": team.done, "required": team.required}
        if isinstance(work, NoWork):
            return {"html": render_empty(self.setup, work.reason, counts)}
        html = render_task(self.setup, work, self._earlier_ranking(annotator_id, work), counts)
        return {"html": html, "expires_in": seconds_until(work.expires_at)}

    def _earlier_ranking(self, annotator_id: str, assignment: Assignment) -> dict[str, int]:
        """The ranking that a correction starts from; empty for a new task, a skip or a flag."""
        if assignment.supersedes is None:
            return {}
        history = self.service.history(annotator_id)
        return next((dict(r.ranking) for r in history if r.judgement_id == assignment.supersedes), {})


def seconds_until(moment: datetime) -> float:
    """Seconds from now to `moment` (UTC where it names no zone), never below zero."""
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max(0.0, (aware - datetime.now(UTC)).total_seconds())
