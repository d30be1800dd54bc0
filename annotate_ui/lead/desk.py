"""What the lead's pages ask: reads figures, asks the service, renders what is to be shown. No rule lives here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, TypedDict

from pydantic import Field

from annotate_ui.calls import Message
from annotate_ui.lead.render import render_decided, render_quality, render_queue
from plumbline.preferences.quality import Quality
from plumbline.preferences.quality.decided import Decided

if TYPE_CHECKING:
    from annotate_ui.setup import Setup
    from plumbline.preferences.service import PreferenceService

Name = Annotated[str, Field(min_length=1, max_length=200)]


class NoMessage(Message):
    """Nothing needs to be said."""


class DecidedMessage(Message):
    """Which judged tasks to show: those before a place, those that one annotator judged."""

    before: int | None = None
    annotator_id: Name | None = None


class Reply(TypedDict, total=False):
    """What the page gets back: `html` replaces the panel, `notice` is announced, `error` is told."""

    html: str
    notice: str
    error: str


class LeadDesk:
    """The lead's side of the service, one method for each thing that the pages can ask.

    The routes let only leads and admins in; whom each call comes from is told as `lead`.
    """

    def __init__(self, service: PreferenceService, setup: Setup, quality: Quality) -> None:
        self.service, self.setup, self.figures = service, setup, quality
        self.decisions = Decided(service.store, project=service.project, clock=service.clock)

    def quality(self, lead: str, message: NoMessage) -> Reply:
        """Show the figures as they are now; the slowest of them follow with a later call."""
        return {"html": render_quality(self.setup, self.figures.report(wait=False), self.figures.limits)}

    def queue(self, lead: str, message: NoMessage) -> Reply:
        """Show who holds what, what was flagged, and what waits for an adjudicator."""
        return {"html": self._queue()}

    def decided(self, lead: str, message: DecidedMessage) -> Reply:
        """Show judged tasks with what was said of them."""
        tasks, before = self.decisions.page(before=message.before, annotator_id=message.annotator_id)
        return {"html": render_decided(self.setup, tasks, before, message.annotator_id)}

    def _queue(self) -> str:
        return render_queue(self.setup, self.figures.report(wait=False), self.service.clock())
