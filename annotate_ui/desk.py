"""Between the page and the service: reads what the page sent, asks the service, renders what comes next.

No rule lives here. Every call names the annotator of the server-side session; the service checks the lease against it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypedDict

from annotate_ui.calls import Nothing, sentence
from annotate_ui.messages import (
    ConsentMessage,
    DraftMessage,
    FlagMessage,
    HistoryMessage,
    JudgeMessage,
    LeaseMessage,
    OwnMessage,
    QuizMessage,
    SkipMessage,
)
from annotate_ui.render import (
    render_consent,
    render_empty,
    render_graded,
    render_guideline,
    render_history,
    render_own,
    render_quiz,
    render_task,
    time_left,
)
from plumbline.errors import StoreError
from plumbline.preferences.counting import LiveCounts
from plumbline.preferences.drafts import NewerDraft
from plumbline.preferences.pace import Pace
from plumbline.preferences.records import ALL_BAD, JUDGEMENT, Assignment, NeedsConsent, NeedsQuiz, NoWork
from plumbline.preferences.source_names import MASK

if TYPE_CHECKING:
    from annotate_ui.setup import Setup
    from plumbline.preferences.records import Card, GivenAnswer
    from plumbline.preferences.service import PreferenceService

HISTORY_PAGE = 20


class Reply(TypedDict, total=False):
    """What the page gets back.

    `html` replaces the shown task; `task` is what the page has to know of it beside the HTML (see `Desk._task`);
    `expires_in` is the seconds left of its lease; `consent` opens the guideline to be accepted; what `stays` is not
    replaced before the annotator asks; `notice` is announced; `lost` says why the shown task is no longer theirs;
    `newer` says that a draft was not taken, because a newer one is kept;
    `error` is a sentence for the annotator, and what they entered stays on the page.
    """

    html: str
    task: dict[str, Any]
    expires_in: float
    consent: bool
    stays: bool
    notice: str
    lost: str
    newer: str
    error: str


class Desk:
    """The page's side of the preference service, one method for each thing that an annotator can do."""

    def __init__(self, service: PreferenceService, setup: Setup) -> None:
        self.service, self.setup = service, setup
        self.pace = Pace(service.store, project=service.project, clock=service.clock)
        self.counts = LiveCounts(service, self.pace, checks=service.rules.checks is not None)

    @property
    def actions(self) -> tuple[Callable[[str, Any], Mapping[str, Any]], ...]:
        """What the page may ask for."""
        answers = (self.judge, self.skip, self.flag, self.undo, self.reopen)
        return (
            self.next,
            self.decide,
            *answers,
            self.release,
            self.renew,
            self.draft,
            self.history,
            self.own,
            self.guideline,
            self.consent,
            self.quiz,
        )

    def next(self, annotator_id: str, message: LeaseMessage) -> Reply:
        """Show the next task, or why there is none."""
        return self._show(annotator_id, self.service.lease_next(annotator_id))

    def decide(self, annotator_id: str, message: Nothing) -> Reply:
        """Show the most disputed task to a member of the pool of adjudicators."""
        return self._disputed(annotator_id, lead=False)

    def decide_as_lead(self, annotator_id: str, message: Nothing) -> Reply:
        """Show the most disputed task to a lead; the route admits no others."""
        return self._disputed(annotator_id, lead=True)

    def judge(self, annotator_id: str, message: JudgeMessage) -> Reply:
        """Store a ranking, then show the next task."""
        judge = partial(
            self.service.judge,
            message.lease_id,
            annotator_id,
            message.ranking,
            idempotency_key=message.key,
            seconds=message.seconds,
            gaps=message.gaps,
            scores=message.scores or None,
            reason=message.reason or None,
            edited=message.edited,
            flags=(ALL_BAD,) if message.all_bad else (),
        )
        return self._next_after(annotator_id, judge, "board.saved")

    def skip(self, annotator_id: str, message: SkipMessage) -> Reply:
        """Leave the task to others, then show the next one."""
        skip = partial(self.service.skip, reason=message.reason, idempotency_key=message.key)
        return self._next_after(annotator_id, partial(skip, message.lease_id, annotator_id), "board.skipped")

    def flag(self, annotator_id: str, message: FlagMessage) -> Reply:
        """Report a faulty task, then show the next one."""
        flag = partial(self.service.flag, kind=message.kind, note=message.note, idempotency_key=message.key)
        return self._next_after(annotator_id, partial(flag, message.lease_id, annotator_id), "board.flagged")

    def undo(self, annotator_id: str, message: Nothing) -> Reply:
        """Show the annotator's last answer again, to correct it."""
        assignment = self.service.reopen_last(annotator_id)
        if assignment is None:
            return {"notice": self.setup.texts("board.nothing_to_undo")}
        return {**self._show(annotator_id, assignment), "notice": self.setup.texts("board.reopened")}

    def reopen(self, annotator_id: str, message: OwnMessage) -> Reply:
        """Show one of the annotator's answers again, to correct it."""
        assignment = self.service.reopen(message.answer_id, annotator_id)
        return {**self._show(annotator_id, assignment), "notice": self.setup.texts("board.reopened_this")}

    def release(self, annotator_id: str, message: LeaseMessage) -> Reply:
        """Hand the shown task back unanswered, then show another; of a correction, the earlier answer stands."""
        corrected = message.lease_id is not None and self.service.release(message.lease_id, annotator_id)
        notice = self.setup.texts("board.kept" if corrected else "board.handed_back")
        return {**self._show(annotator_id, self.service.lease_next(annotator_id)), "notice": notice}

    def renew(self, annotator_id: str, message: LeaseMessage) -> Reply:
        """Keep the shown task for this annotator a while longer."""
        if message.lease_id is None:
            return {}
        return {"expires_in": seconds_until(self.service.renew(message.lease_id, annotator_id))}

    def draft(self, annotator_id: str, message: DraftMessage) -> Reply:
        """Keep what is entered and not submitted."""
        content, say = message.content.model_dump(), self.setup.texts.of_service
        try:
            lost = self.service.save_draft(message.lease_id, annotator_id, content, after=message.after)
        except NewerDraft as fault:
            return {"newer": say(sentence(fault))}
        return {} if lost is None else {"lost": say(f"{lost[:1].upper()}{lost[1:]}")}

    def history(self, annotator_id: str, message: HistoryMessage) -> Reply:
        """The annotator's own answers, the newest first, a page at a time."""
        answers = self.service.own_work(annotator_id, limit=HISTORY_PAGE + 1, before=message.before)
        more = len(answers) > HISTORY_PAGE
        return {"html": render_history(self.setup, answers[:HISTORY_PAGE], first=message.before is None, more=more)}

    def own(self, annotator_id: str, message: OwnMessage) -> Reply:
        """One of the annotator's own answers in full, to be read; it stays as it is."""
        found = self.service.own_work(annotator_id, only=message.answer_id)
        if not found:
            raise StoreError("this is none of your answers: load the list again.")
        return {"html": render_own(self.setup, found[0])}

    def guideline(self, annotator_id: str, message: Nothing) -> Reply:
        """The guideline in force, for the panel."""
        current = self.service.guidelines.current()
        return {"html": render_guideline(self.setup, current) if current else ""}

    def consent(self, annotator_id: str, message: ConsentMessage) -> Reply:
        """Note that the annotator accepts the guideline, then show the next task."""
        self.service.guidelines.consent(annotator_id, message.version)
        if message.deciding:
            return {}
        return self._show(annotator_id, self.service.lease_next(annotator_id))

    def quiz(self, annotator_id: str, message: QuizMessage) -> Reply:
        """Grade a try at the quiz, and tell what was wrong; where nothing was, show the next task."""
        graded = self.service.quizzes.answer(annotator_id, message.shown, message.number, message.chosen)
        if graded.wrong:
            return {"html": render_graded(self.setup, graded), "stays": True}
        if message.deciding:
            return {"notice": self.setup.texts("quiz.all_right")}
        work = self.service.lease_next(annotator_id)
        return {**self._show(annotator_id, work), "notice": self.setup.texts("quiz.all_right")}

    # -- inside --------------------------------------------------------------------------------------------------

    def _disputed(self, annotator_id: str, *, lead: bool) -> Reply:
        work = self.service.lease_adjudication(annotator_id, lead=lead)
        notice: Reply = {"notice": self.setup.texts("board.deciding")} if isinstance(work, Assignment) else {}
        return {**self._show(annotator_id, work, deciding=True), **notice}

    def _next_after(self, annotator_id: str, answer: Callable[[], str], notice: str) -> Reply:
        work = self.service.then_next(annotator_id, answer)
        return {**self._show(annotator_id, work), "notice": self.setup.texts(notice)}

    def _show(self, annotator_id: str, work: Assignment | NoWork, *, deciding: bool = False) -> Reply:
        counts = self._counts(annotator_id)
        if isinstance(work, NeedsConsent):
            return {"html": render_consent(self.setup, work, counts), "consent": True}
        if isinstance(work, NeedsQuiz):
            return {"html": render_quiz(self.setup, work, counts), "stays": True}
        if isinstance(work, NoWork):
            left = {"remaining": None, "time_left": None} if work.kind == "paused" else {}
            return {"html": render_empty(self.setup, work, {**counts, **left})}
        html = render_task(self.setup, work, counts, deciding=deciding)
        return {"html": html, "task": _task(work), "expires_in": seconds_until(work.expires_at)}

    def _counts(self, annotator_id: str) -> dict[str, Any]:
        counts = self.counts.of(annotator_id)
        seconds = counts.seconds_left
        return {
            "mine": counts.mine,
            "remaining": counts.remaining,
            "share": counts.share,
            "time_left": None if seconds is None else time_left(self.setup, seconds),
            "streak": self.pace.check_streak(annotator_id) if self.setup.show_streak else None,
        }


def _task(work: Assignment) -> dict[str, Any]:
    """What the page has to know of a task beside its HTML.

    `texts` are the responses as they are shown, by id; `mask` is in them where a name is hidden; `begin` is what to
    begin with; `asks_reason` says when a reason is needed; `showing` names what is asked, for what is entered.
    """
    return {
        "lease": work.lease_id,
        "showing": work.showing,
        "texts": {card.response_id: card.text for card in work.cards},
        "mask": MASK if work.masked else None,
        "asks_reason": work.asks_reason,
        "begin": work.draft if work.draft is not None else _earlier(work),
    }


def _earlier(work: Assignment) -> dict[str, Any]:
    """The judgement that a correction starts from, as a draft; empty for a new task, a skip or a flag."""
    given = work.earlier
    if given is None or given.kind != JUDGEMENT:
        return {}
    return {
        "ranks": given.ranking,
        "gaps_between": given.gaps,
        "scores": given.scores,
        "reason": given.reason or "",
        "all_bad": ALL_BAD in given.flags,
        "edited": {"of": _edited_from(work.cards, given), "text": given.edited} if given.edited else None,
        "seconds": given.seconds or 0,
    }


def _edited_from(cards: Sequence[Card], given: GivenAnswer) -> str:
    """The response that an answer improved. Of several best ones the store does not know: the one most alike."""
    best = [card for card in cards if given.ranking[card.response_id] == 1]
    return max(best, key=lambda card: _likeness(card.text, given.edited or "")).response_id


def _likeness(text: str, other: str) -> float:
    """The share of neighbouring characters that two texts have in common, wherever they stand."""
    pairs, others = (Counter(pairwise(one)) for one in (text, other))
    return 2 * (pairs & others).total() / max(pairs.total() + others.total(), 1)


def seconds_until(moment: datetime) -> float:
    """Seconds from now to `moment` (UTC where it names no zone), never below zero."""
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max(0.0, (aware - datetime.now(UTC)).total_seconds())
