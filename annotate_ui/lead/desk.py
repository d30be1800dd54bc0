"""What the lead's pages ask: reads figures, asks the service, renders what is to be shown. No rule lives here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, TypedDict

from pydantic import Field

from annotate_ui.calls import Message, Nothing
from annotate_ui.lead.render import (
    guideline_text,
    render_decided,
    render_exports,
    render_found,
    render_guidelines,
    render_quality,
    render_queue,
)
from plumbline.errors import StoreError, counted
from plumbline.preferences.exporters.holdings import why_nothing
from plumbline.preferences.flag_decisions import FlagDecisions
from plumbline.preferences.formats import EXPORTED, check_format
from plumbline.preferences.guidelines import MAX_GUIDELINE
from plumbline.preferences.quality import Quality
from plumbline.preferences.quality.decided import Decided
from plumbline.preferences.quality.masked import MaskCount
from plumbline.preferences.tables import HIGHEST_ID

if TYPE_CHECKING:
    from annotate_ui.setup import Setup
    from plumbline.preferences.service import PreferenceService

SHOWN_RESTRICTED = 50
"""Tasks kept for named people that the page lists; `plumbline queue list` has all."""

MOST_FOUND = 20

Name = Annotated[str, Field(min_length=1, max_length=200)]
Identifier = Annotated[str, Field(pattern="^[0-9a-f]{32}$")]


class DecidedMessage(Message):
    """Which judged tasks to show: those before a place, those that one annotator judged."""

    before: Annotated[int, Field(ge=0, le=HIGHEST_ID)] | None = None
    annotator_id: Identifier | None = None


class LeaseMessage(Message):
    """Names a held task."""

    lease_id: Identifier


class TaskMessage(Message):
    """Names a task."""

    task_id: Identifier


class FindMessage(Message):
    """Words of a conversation, or the beginning of a task's id."""

    words: Name


class PriorityMessage(TaskMessage):
    """A task's priority, and the pool to which it is kept from now on, or `everybody`; what is left out stays."""

    priority: Annotated[int, Field(ge=-1000, le=1000)] | None = None
    pool: Annotated[str, Field(max_length=100)] = ""
    everybody: bool = False


class RestrictMessage(TaskMessage):
    """Who may have a task; nobody named for everybody."""

    annotators: Annotated[list[Identifier], Field(max_length=10_000)] = Field(default_factory=list)


class PersonMessage(Message):
    """Names an annotator."""

    annotator_id: Identifier


class PauseMessage(PersonMessage):
    """Why an annotator gets no more work; they read it."""

    reason: Annotated[str, Field(min_length=1, max_length=1000)]


class QuotaMessage(PersonMessage):
    """The most that an annotator may judge; nothing for no limit."""

    quota: Annotated[int, Field(ge=0, le=10_000_000)] | None = None


class PoolMessage(Message):
    """A pool and its members; without members it is gone."""

    pool: Name
    members: list[Identifier] = Field(default_factory=list)


class ExportMessage(Message):
    """A download: its format, and whether it is without simulated annotators."""

    format: Name
    people_only: bool = False


class GuidelineMessage(Message):
    """A new text of the guideline."""

    text: Annotated[str, Field(min_length=1, max_length=MAX_GUIDELINE)]


class Reply(TypedDict, total=False):
    """What the page gets back: `html` replaces the panel, `preview` is shown beside the form, `notice` is announced."""

    html: str
    preview: str
    notice: str
    error: str


class LeadDesk:
    """The lead's side of the service, one method for each thing that the pages can ask.

    The routes let only leads and admins in, and look at the role with every call; who calls is told as `lead`.
    """

    def __init__(self, service: PreferenceService, setup: Setup) -> None:
        self.service, self.setup = service, setup
        about = {"project": service.project, "clock": service.clock}
        self.figures = Quality(service.store, rules=service.rules, **about)  # type: ignore[arg-type]
        self.flags = FlagDecisions(service.store, **about)  # type: ignore[arg-type]
        names = service.rules.names
        self.decisions = Decided(service.store, names=names, **about)  # type: ignore[arg-type]
        self.masked = None if names is None else MaskCount(service.store, names=names, **about)  # type: ignore[arg-type]

    def summary(self, names: bool) -> dict[str, Any]:
        """All figures of quality, for programs; nobody is named without `names`."""
        return self.figures.report(wait=False).to_json(pseudonyms=not names)

    # -- what is shown -------------------------------------------------------------------------------------------

    def quality(self, lead: str, message: Nothing) -> Reply:
        """Show the figures as they are now; the slowest of them follow with a later call."""
        return {"html": render_quality(self.setup, self.figures.report(wait=False))}

    def queue(self, lead: str, message: Nothing) -> Reply:
        """Show who holds what, what was flagged, and what waits for an adjudicator."""
        return self._queue(lead)

    def find(self, lead: str, message: FindMessage) -> Reply:
        """Show tasks with these words, with their ids and places in the queue."""
        tasks = self.service.control.find(message.words, MOST_FOUND)
        return {"preview": render_found(self.setup, tasks, MOST_FOUND)}

    def guidelines(self, lead: str, message: Nothing) -> Reply:
        """Show all versions of the guideline."""
        return self._guidelines()

    def exports(self, lead: str, message: Nothing) -> Reply:
        """Show what can be downloaded."""
        nothing = {name: why_nothing(self.service, name) for name in EXPORTED}
        return {"html": render_exports(self.setup, nothing)}

    def check_export(self, lead: str, message: ExportMessage) -> Reply:
        """Say why a download would be empty, before the browser asks for it."""
        check_format(message.format, EXPORTED)
        why = why_nothing(self.service, message.format, people_only=message.people_only)
        if why is not None:
            raise StoreError(why)
        return {}

    def decided(self, lead: str, message: DecidedMessage) -> Reply:
        """Show judged tasks with what was said of them."""
        tasks, before = self.decisions.page(before=message.before, annotator_id=message.annotator_id)
        return {"html": render_decided(self.setup, tasks, before, message.annotator_id)}

    # -- what is changed -----------------------------------------------------------------------------------------

    def take_back(self, lead: str, message: LeaseMessage) -> Reply:
        """Take a held task back; it goes to somebody else."""
        if not self.service.control.release(message.lease_id):
            raise StoreError("nobody holds this task any more.")
        return self._queue(lead, "The task is back in the queue.")

    def reopen(self, lead: str, message: TaskMessage) -> Reply:
        """Hand a flagged task out again."""
        self.flags.decide(lead, message.task_id, reopen=True)
        return self._queue(lead, "The task is handed out again.")

    def keep_closed(self, lead: str, message: TaskMessage) -> Reply:
        """Leave a flagged task closed for good."""
        self.flags.decide(lead, message.task_id, reopen=False)
        return self._queue(lead, "The task stays closed.")

    def place(self, lead: str, message: PriorityMessage) -> Reply:
        """Set a task's priority, and the pool that it is kept to; what is left out stays as it is."""
        if message.pool and message.everybody:
            raise StoreError("name a pool, or choose everybody, not both.")
        if not message.pool and not message.everybody and message.priority is None:
            raise StoreError("say what to change: the task's priority, or its pool.")
        control = self.service.control
        with control.turn():
            if message.pool or message.everybody:
                control.assign_pool([message.task_id], message.pool or None)
            if message.priority is not None and not control.set_priorities({message.task_id: message.priority}):
                raise StoreError("this task is not in the store: load the list again.")
        return self._queue(lead, "The task has its new place.")

    def restrict(self, lead: str, message: RestrictMessage) -> Reply:
        """Keep a task for named people, or hand it to everybody again."""
        self.service.control.restrict(message.task_id, message.annotators or None)
        kept = counted(len(message.annotators), "annotator")
        return self._queue(
            lead, f"The task is kept for {kept}." if message.annotators else "The task is for everybody."
        )

    def make_gold(self, lead: str, message: TaskMessage) -> Reply:
        """Make a gold item of an adjudicated task."""
        self.service.checks.make_gold(message.task_id)
        return {"notice": "The task is a gold item."}

    def pause(self, lead: str, message: PauseMessage) -> Reply:
        """Give an annotator no more work."""
        self.service.control.pause(message.annotator_id, message.reason)
        return self._queue(lead, "They get no more work.")

    def resume(self, lead: str, message: PersonMessage) -> Reply:
        """Give an annotator work again; their checks count from anew."""
        self.service.control.resume(message.annotator_id)
        return self._queue(lead, "They get work again.")

    def quota(self, lead: str, message: QuotaMessage) -> Reply:
        """Set the most that an annotator may judge."""
        self.service.control.set_quota(message.annotator_id, message.quota)
        return self._queue(lead, "The limit is lifted." if message.quota is None else "The limit is set.")

    def quiz_again(self, lead: str, message: PersonMessage) -> Reply:
        """Let somebody try the quiz again who has used up their tries."""
        self.service.quizzes.let_try_again(message.annotator_id)
        return self._queue(lead, "They may try the quiz again.")

    def quiz_let_in(self, lead: str, message: PersonMessage) -> Reply:
        """Give somebody work who has not passed the quiz."""
        self.service.quizzes.let_in(message.annotator_id)
        return self._queue(lead, "They get work without having passed the quiz.")

    def set_pool(self, lead: str, message: PoolMessage) -> Reply:
        """Say who is in a pool."""
        self.service.control.set_pool(message.pool, message.members)
        return self._queue(lead, f"The pool has {counted(len(message.members), 'member')}.")

    def preview(self, lead: str, message: GuidelineMessage) -> Reply:
        """Show a text as annotators would see it; nothing is stored."""
        return {"preview": guideline_text(message.text)}

    def publish(self, lead: str, message: GuidelineMessage) -> Reply:
        """Bring a new version of the guideline into force."""
        version = self.service.guidelines.publish(message.text)
        return self._guidelines(f"Version {version} is in force.")

    # -- inside --------------------------------------------------------------------------------------------------

    def _queue(self, lead: str, notice: str = "") -> Reply:
        control = self.service.control
        html = render_queue(
            self.setup,
            state=self.figures.queue(),
            masked=self.masked and self.masked.count(),
            held=control.held(),
            flagged=self.flags.waiting(),
            disputes=self.service.adjudication.disputes(10),
            standings=control.standings(),
            quiz=self.service.quizzes.standings(),
            pools=control.pools(),
            restricted=control.restricted(SHOWN_RESTRICTED),
            now=self.service.clock(),
            lead=lead,
        )
        return {"html": html, "notice": notice}

    def _guidelines(self, notice: str = "") -> Reply:
        return {"html": render_guidelines(self.setup, self.service.guidelines.versions()), "notice": notice}
