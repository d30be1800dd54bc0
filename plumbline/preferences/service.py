"""Every rule of collecting preferences: who may judge what, when, how often, and what is kept of it.

People (through the app) and simulated annotators call the same methods. An answer is acknowledged by returning: it is
committed then. Answers are never changed; a correction is a new answer that supersedes the old one.

    store = Store.open("preferences.db")
    service = PreferenceService(store, project="support")
    me = service.sign_in("Anna")
    work = service.lease_next(me.annotator_id)
    if isinstance(work, Assignment):
        ranking = {card.response_id: card.position + 1 for card in work.cards}
        service.judge(work.lease_id, me.annotator_id, ranking, idempotency_key="one-per-view")
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Row, select, update

from plumbline.errors import StoreError
from plumbline.preferences import queue
from plumbline.preferences.adjudication import NOT_THEIRS, Adjudication, may_adjudicate, next_dispute
from plumbline.preferences.answers import NewAnswer, answer_lease, is_superseded, last_answer
from plumbline.preferences.checks import Checks
from plumbline.preferences.drafts import checked_draft, drop_draft, put_draft
from plumbline.preferences.guidelines import Guidelines
from plumbline.preferences.handing import next_lease, reopened_lease
from plumbline.preferences.intake import Intake
from plumbline.preferences.judgement_stream import stream_judgements
from plumbline.preferences.own_work import asked_again, own_answer, own_answers
from plumbline.preferences.queue_control import QueueControl
from plumbline.preferences.quiz import Quizzes, needed_first
from plumbline.preferences.reading import progress_of, stream_flags
from plumbline.preferences.records import (
    ADJUDICATION,
    FLAG,
    JUDGEMENT,
    LEARNED_FROM,
    SKIP,
    Annotator,
    Assignment,
    FlagRecord,
    JudgementRecord,
    NoWork,
    OwnWork,
    Progress,
    Ranking,
)
from plumbline.preferences.rules import RANK_ONLY, Rules
from plumbline.preferences.store import Store
from plumbline.preferences.tables import Lease
from plumbline.preferences.turn import (
    Actor,
    Turn,
    acting,
    as_annotator,
    enrol,
    ensure_tally,
    holder_of,
    known_annotator,
    now_utc,
)
from plumbline.preferences.validation import checked_name
from plumbline.preferences.waiting import refusal, why_nothing

EXPIRE_EVERY = timedelta(seconds=1)
"""How often a service looks for leases whose time is over."""


class PreferenceService(Intake):
    """The preferences of one project in a store. Making a service, and reading through it, changes nothing.

    Args:
        store: an open store; several services and processes may share it.
        project: the domain's name. Projects in one store do not see each other's tasks.
        lease: how long a task stays with the annotator who opened it.
        rules: what the recipe asks beyond rankings.
        clock: gives the present moment; tests set it.

    Attributes:
        guidelines, quizzes, checks, adjudication, control: other sides of the same project: versions of the guideline,
            the quiz on it, what measures annotators, disputed tasks, and what the lead decides about the queue.
    """

    def __init__(
        self,
        store: Store,
        *,
        project: str,
        lease: timedelta = timedelta(minutes=15),
        rules: Rules = RANK_ONLY,
        clock: Callable[[], datetime] = now_utc,
    ) -> None:
        super().__init__(store, project=project, clock=clock)
        self.lease = lease
        self.rules = rules
        self.guidelines = Guidelines(store, project=project, clock=clock)
        self.quizzes = Quizzes(store, project=project, rules=rules, clock=clock)
        self.checks = Checks(store, project=project, rules=rules, clock=clock)
        self.adjudication = Adjudication(store, project=project, rules=rules, clock=clock)
        self.control = QueueControl(store, project=project, clock=clock)
        self._expired_at = datetime.min.replace(tzinfo=UTC)

    # -- annotators ----------------------------------------------------------------------------------------------

    def sign_in(self, name: str, *, simulated: bool = False, settings: dict[str, Any] | None = None) -> Annotator:
        """The annotator of this name, made where there is none; case and white space do not matter.

        Args:
            settings: how a simulated annotator is set; kept with everything that it says.

        Raises:
            StoreError: the name is not usable, or belongs to a person where a simulated annotator asks for it, or the
                other way round, or to a simulated annotator with other settings.
        """
        with self.turn() as turn:
            row = enrol(
                turn.connection, name, simulated=simulated, settings=settings or {}, now=turn.now, person=not simulated
            )
            ensure_tally(turn, row.id)
            return as_annotator(row)

    def check_name(self, name: str, *, simulated: bool = False, settings: dict[str, Any] | None = None) -> None:
        """Refuse what `sign_in` would refuse; nothing is changed.

        Raises:
            StoreError: see `sign_in`.
        """
        name = checked_name(name, person=not simulated)
        with self.store.read() as connection:
            holder_of(connection, name, simulated=simulated, settings=settings or {})

    # -- the queue -----------------------------------------------------------------------------------------------

    def lease_next(self, annotator_id: str, *, wait: bool = True) -> Assignment | NoWork:
        """Hand out the next task, or say why there is none.

        An annotator holds one task at a time: while they hold one, it is handed to them again (a page that was
        reloaded goes on where it was), with its time renewed. What they left unanswered (its time was over, or they
        corrected something first) follows again where it is still free. Now and then the task is a check or a repeat,
        which nothing in the assignment tells.

        Args:
            wait: where others are just about to take all that is left, wait for what becomes of it (PostgreSQL).

        Returns:
            `NeedsConsent` or `NeedsQuiz`, a `NoWork`, where the annotator must accept the guideline in force, or pass
            the quiz on it, first.
        """
        self._expire_leases()
        with self.turn() as turn:
            actor = acting(turn, annotator_id)
            first = needed_first(turn, actor, self.rules.quiz)
            if first is not None:
                return first
            held = queue.held_lease(turn, actor)
            if held is not None:
                return self._renewed(turn, actor, held)
            refused = refusal(actor)
            if refused is not None:
                return refused
            until = turn.now + self.lease
            lease = next_lease(turn, actor, self.project, self.rules, until, wait=wait)
            return (
                why_nothing(turn, actor)
                if lease is None
                else queue.as_assignment(turn, actor, lease, until, self.rules)
            )

    def lease_adjudication(self, annotator_id: str, *, lead: bool = False) -> Assignment | NoWork:
        """Hand out the most disputed task to be decided, or say why there is none.

        It is one that this annotator has said nothing of, shown as every task is: blind to names and to what others
        said. Work that they hold goes back to the queue.

        Args:
            lead: they are a lead (or an admin), by their session; others must be in the pool `adjudicators`.

        Raises:
            StoreError: they may not adjudicate.
        """
        self._expire_leases()
        with self.turn() as turn:
            actor = acting(turn, annotator_id)
            if not lead and not may_adjudicate(turn, actor):
                raise StoreError(NOT_THEIRS)
            refused = needed_first(turn, actor, self.rules.quiz) or refusal(actor)
            if refused is not None:
                return refused
            held = queue.held_lease(turn, actor)
            if held is not None and held.purpose == ADJUDICATION:
                return self._renewed(turn, actor, held)
            task = next_dispute(turn, actor, self.rules)
            if task is None:
                return NoWork("No disputed task waits for you.", "adjudicated")
            if held is not None:
                queue.end_lease(turn, held, queue.SET_ASIDE)
            until = turn.now + self.lease
            order = queue.shown_order(task.key, actor.seed, len(task.responses))
            lease = queue.open_lease(turn, actor, task.id, order=order, until=until, purpose=ADJUDICATION)
            return queue.as_assignment(turn, actor, lease, until, self.rules)

    def then_next(self, annotator_id: str, answer: Callable[[], str]) -> Assignment | NoWork:
        """Give an answer and take the next task, in one transaction: half the time of one after the other.

        Args:
            answer: calls `judge`, `skip` or `flag` of this service.

        Raises:
            StoreError: the answer is refused; no task is handed out then.
        """
        self._expire_leases()
        with self.turn():
            answer()
            work = self.lease_next(annotator_id, wait=False)  # who waits must not hold the lock of the answered task
        return self.lease_next(annotator_id) if isinstance(work, NoWork) else work

    def renew(self, lease_id: str, annotator_id: str) -> datetime:
        """Give a held task its full time again; returns the new end.

        Raises:
            StoreError: the lease is over, was taken back, or is not theirs.
        """
        with self.turn() as turn:
            actor = acting(turn, annotator_id)
            lease = queue.own_lease(turn, actor, lease_id)
            lost = queue.why_lost(lease)
            if lost is not None:
                raise StoreError(lost)
            return self._renewed(turn, actor, lease).expires_at

    def release(self, lease_id: str | None, annotator_id: str, *, aside: bool = False) -> bool:
        """Give a held task back unanswered; of a correction, the earlier answer stands. Repeating it does nothing.

        What was entered for a task is kept. What was entered for a correction is dropped: whoever gives that up sees
        what they said when they open it again. Something else follows, and the same task only where nothing else is
        left for this annotator.

        Args:
            lease_id: None for what they hold, where they hold anything.
            aside: they only leave, so that others need not wait: the same task follows, where it is still free then.

        Returns:
            Whether it was a correction.

        Raises:
            StoreError: the lease is not theirs.
        """
        with self.turn() as turn:
            actor = acting(turn, annotator_id)
            lease = queue.own_lease(turn, actor, lease_id) if lease_id else queue.held_lease(turn, actor)
            if lease is None:
                return False
            if lease.state == queue.OPEN:
                queue.end_lease(turn, lease, queue.SET_ASIDE if aside else queue.RELEASED)
            if lease.supersedes_id is None:
                return False
            if not aside and (lease.state == queue.OPEN or queue.was_left(turn, actor, lease)):
                drop_draft(turn, lease)
            return True

    def save_draft(
        self, lease_id: str, annotator_id: str, content: dict[str, Any], *, after: Collection[str] | None = None
    ) -> str | None:
        """Keep what the annotator entered for a task; the next assignment of the same task brings it back.

        It survives reload and restart, also the end of the lease, and is gone with the answer.

        Args:
            content: a JSON object of the page's own making, at most `drafts.MAX_DRAFT` bytes; `revision` in it names
                this state of the draft.
            after: the revisions that it goes on from, so that a save that was late or elsewhere undoes no newer one.

        Returns:
            Why the task is no longer theirs, where its time is over or it was taken back; the draft is kept then too,
            but not that of a correction which they gave up.

        Raises:
            NewerDraft: the draft that is kept goes on from none of `after`.
            StoreError: the lease is not theirs or its task is answered, or the content is too large or no JSON.
        """
        content = checked_draft(content)
        with self.turn() as turn:
            actor = acting(turn, annotator_id)
            lease = queue.own_lease(turn, actor, lease_id)
            if queue.was_answered(turn, lease):
                raise StoreError(queue.ANSWERED_ALREADY)
            if lease.supersedes_id is None or lease.state != queue.RELEASED:
                put_draft(turn, actor, lease, content, after)
            return queue.why_lost(lease)

    def purpose_of(self, lease_id: str) -> str:
        """Why a task was handed out (see `records`): for programs that annotate, never for an annotator's page.

        Raises:
            StoreError: there is no such lease.
        """
        with self.look() as turn:
            mine = (Lease.lease_id == lease_id) & (Lease.project_id == turn.project_id)
            purpose = turn.connection.execute(select(Lease.purpose).where(mine)).scalar_one_or_none()
        if purpose is None:
            raise StoreError("there is no such lease.")
        return purpose

    # -- answers -------------------------------------------------------------------------------------------------

    def judge(
        self,
        lease_id: str,
        annotator_id: str,
        ranking: Ranking,
        *,
        idempotency_key: str,
        seconds: float | None = None,
        strength: float | None = None,
        gaps: Sequence[int] = (),
        scores: dict[str, Any] | None = None,
        reason: str | None = None,
        edited: str | None = None,
        flags: Sequence[str] = (),
    ) -> str:
        """Store a judgement; when this returns, it is committed.

        Args:
            ranking: every response's rank, 1 is best; equal ranks are ties.
            idempotency_key: made once for each view of a task. The same call again returns the same judgement.
            seconds: time on task.
            strength: how much better the best response is, in the source's own steps (2 responses only).
            gaps: grades of preference, 1 (hardly) to 4 (much better), between neighbouring ranks, the best first: one
                fewer than there are ranks, or none.
            scores: `{axis: {response id: level}}` by the rubric of `rules`; on each axis all responses or none.
            edited: the best response, improved by the annotator.
            flags: such as `ALL_BAD`: even the best response is not good enough.

        Returns:
            The judgement's id.

        Raises:
            StoreError: the ranking, or what is said with it, does not fit the task; the lease is not theirs, or it is
                over and others have taken the task since. An answer that is late but still wanted is stored.
        """
        return self._answer(
            lease_id,
            annotator_id,
            NewAnswer(
                JUDGEMENT,
                idempotency_key,
                dict(ranking),
                seconds,
                strength,
                tuple(gaps),
                scores,
                reason,
                edited,
                tuple(flags),
            ),
        )

    def skip(self, lease_id: str, annotator_id: str, *, reason: str, idempotency_key: str) -> str:
        """Leave a task to other annotators; it is not handed to this one again. Returns the answer's id."""
        return self._answer(lease_id, annotator_id, NewAnswer(SKIP, idempotency_key, reason=reason))

    def flag(self, lease_id: str, annotator_id: str, *, kind: str, note: str, idempotency_key: str) -> str:
        """Report a faulty task to the lead: it is handed out to nobody, nor waited for, while a flag of it stands.

        Whoever holds it may still answer, and what was judged stays. Returns the answer's id.
        """
        return self._answer(lease_id, annotator_id, NewAnswer(FLAG, idempotency_key, reason=note, flags=(kind,)))

    def reopen_last(self, annotator_id: str) -> Assignment | None:
        """Undo: hand the annotator's last answer back to them, shown in the same order, to be corrected.

        A task that they hold meanwhile goes back to the queue. The earlier answer stands until a new one is given.

        Returns:
            The assignment; None when there is nothing to undo.

        Raises:
            StoreError: the last answer was a skip or a flag, and others have taken the task since.
        """
        self._expire_leases()
        with self.turn() as turn:
            actor = acting(turn, annotator_id)
            held = queue.held_lease(turn, actor)
            if held is not None and held.supersedes_id is not None:
                return self._renewed(turn, actor, held)
            last = last_answer(turn, actor)
            return None if last is None else self._reopened(turn, actor, held, last)

    def reopen(self, answer_id: str, annotator_id: str) -> Assignment:
        """Hand any own answer back to the annotator, shown in the same order, to be corrected; see `reopen_last`.

        Raises:
            StoreError: it is not theirs, they are asked the same task again just now, it was corrected since, or was a
                skip or a flag whose task others have taken.
        """
        self._expire_leases()
        with self.turn() as turn:
            actor = acting(turn, annotator_id)
            answer = own_answer(turn, actor.id, answer_id)
            if answer.task_id in asked_again(turn, actor.id):
                raise StoreError("this is none of your answers: load the list again.")
            if is_superseded(turn, answer.id):
                raise StoreError("you have corrected this answer since: open the newer one.")
            held = queue.held_lease(turn, actor)
            if held is not None and held.supersedes_id == answer.id:
                return self._renewed(turn, actor, held)
            return self._reopened(turn, actor, held, answer)

    # -- reading -------------------------------------------------------------------------------------------------

    def own_work(
        self,
        annotator_id: str,
        *,
        limit: int = 20,
        before: str | None = None,
        kinds: Collection[str] = (JUDGEMENT, SKIP, FLAG),
        only: str | None = None,
    ) -> list[OwnWork]:
        """What the annotator said, the newest first, a page at a time: their current answers, to be looked through.

        Neither sources nor purposes are in it, so that it may be shown to them; `reopen` corrects one.

        Args:
            before: the `answer_id` that the page before ended with; None for the first page.
            only: the `answer_id` of the one that is wanted; nothing comes where it is none of theirs, or was corrected.

        Raises:
            StoreError: they gave no answer `before`.
        """
        with self.look() as turn:
            annotator = known_annotator(turn.connection, annotator_id)
            names = self.rules.names
            return own_answers(turn, annotator.id, limit=limit, before=before, kinds=kinds, names=names, only=only)

    def progress(self) -> Progress:
        """How far the project is."""
        with self.look() as turn:
            return progress_of(turn)

    def judgements(
        self,
        *,
        include_superseded: bool = False,
        purposes: Collection[str] = LEARNED_FROM,
        pseudonyms: bool = False,
    ) -> Iterator[JudgementRecord]:
        """Judgements as a stream, all from one state of the store, in an order that their contents decide.

        Without other `purposes` (see `records`) they are those that models learn from. With `pseudonyms`, people have
        random names.
        """
        with self.look() as turn:
            project = turn.project_id
        return stream_judgements(
            self.store,
            project,
            include_superseded=include_superseded,
            purposes=purposes,
            pseudonyms=pseudonyms,
        )

    def flags(self, *, pseudonyms: bool = False) -> Iterator[FlagRecord]:
        """The flags that stand, as a stream, in the order in which they were given."""
        with self.look() as turn:
            project = turn.project_id
        return stream_flags(self.store, project, pseudonyms=pseudonyms)

    # -- inside --------------------------------------------------------------------------------------------------

    def _expire_leases(self) -> None:
        # A transaction of its own: who waits for a task's lock must not hold the locks of other tasks.
        now = self.clock()
        if abs(now - self._expired_at) >= EXPIRE_EVERY:
            self._expired_at = now
            with self.turn() as turn:
                queue.expire_leases(turn)

    def _answer(self, lease_id: str, annotator_id: str, new: NewAnswer) -> str:
        with self.turn() as turn:
            return answer_lease(turn, acting(turn, annotator_id), lease_id, new, self.rules)

    def _reopened(self, turn: Turn, actor: Actor, held: Row[Any] | None, answer: Row[Any]) -> Assignment:
        if held is not None:
            queue.end_lease(turn, held, queue.SET_ASIDE)
        until = turn.now + self.lease
        return queue.as_assignment(turn, actor, reopened_lease(turn, actor, answer, until), until, self.rules)

    def _renewed(self, turn: Turn, actor: Actor, lease: Row[Any]) -> Assignment:
        until = turn.now + self.lease
        turn.connection.execute(update(Lease).where(Lease.id == lease.id).values(expires_at=until))
        return queue.as_assignment(turn, actor, lease, until, self.rules)
