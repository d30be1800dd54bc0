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

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from itertools import islice
from typing import Any, TypeVar

from sqlalchemy import Row, select, update

from plumbline.errors import StoreError
from plumbline.preferences import queue
from plumbline.preferences.answers import FLAG, JUDGEMENT, SKIP, NewAnswer, answer_lease, last_answer
from plumbline.preferences.ingest import BATCH, add_batch, retire_batch, take_batch
from plumbline.preferences.judgement_stream import stream_judgements
from plumbline.preferences.reading import latest_judgements, progress_of, stream_flags
from plumbline.preferences.records import (
    LEARNED_FROM,
    Added,
    Annotator,
    Assignment,
    FlagRecord,
    JudgementRecord,
    NewJudgement,
    NewTask,
    NoWork,
    Progress,
    Ranking,
    Taken,
)
from plumbline.preferences.store import Store
from plumbline.preferences.tables import Lease, Project, Tally, Task
from plumbline.preferences.turn import (
    TOP,
    Actor,
    Facet,
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

Item = TypeVar("Item")

RESTART = {"cursor_deferral": TOP.deferral, "cursor": TOP.task}
"""Values of a tally whose annotator looks through the queue from the top."""


class PreferenceService(Facet):
    """The preferences of one project in a store. Making a service, and reading through it, changes nothing.

    Args:
        store: an open store; several services and processes may share it.
        project: the domain's name. Projects in one store do not see each other's tasks.
        lease: how long a task stays with the annotator who opened it.
        clock: gives the present moment; tests set it.
    """

    def __init__(
        self,
        store: Store,
        *,
        project: str,
        lease: timedelta = timedelta(minutes=15),
        clock: Callable[[], datetime] = now_utc,
    ) -> None:
        super().__init__(store, project=project, clock=clock)
        self.lease = lease

    # -- tasks ---------------------------------------------------------------------------------------------------

    def set_overlap(self, judgements_per_task: int) -> None:
        """Ask for this many judgements of each task, of those that are there and of those to come; it begins with 1."""
        if judgements_per_task < 1:
            raise StoreError(f"judgements_per_task is {judgements_per_task}: at least one judgement is needed.")
        with self.turn() as turn:
            project = Project.id == turn.project_id
            overlap = select(Project.judgements_per_task).where(project).with_for_update()
            if turn.connection.execute(overlap).scalar_one() == judgements_per_task:
                return
            turn.connection.execute(update(Project).where(project).values(judgements_per_task=judgements_per_task))
            handed_out = (Task.project_id == turn.project_id) & (Task.wanted > 0)
            turn.connection.execute(update(Task).where(handed_out).values(wanted=judgements_per_task))
            # Tasks that were full may be open again, above where the annotators stand in the queue.
            turn.connection.execute(update(Tally).where(Tally.project_id == turn.project_id).values(**RESTART))

    def add_tasks(self, tasks: Iterable[NewTask]) -> Added:
        """Add tasks from a stream. A task that is there (same prompt, same responses) is left alone.

        One that was only imported, or was retired, is handed out from now on.

        Raises:
            UserError: a task has a fault or belongs to another project; earlier batches of the stream stay.
        """
        new = present = 0
        for batch in _batches(tasks, BATCH):
            self._check_project(batch)
            with self.turn() as turn:
                added = add_batch(turn, batch)
            new, present = new + added.new, present + added.present
        return Added(new, present)

    def retire(self, keys: Collection[str]) -> int:
        """Close tasks whose responses were replaced: they are no longer handed out, nor waited for.

        What was judged stays, and whoever holds such a task may still answer it. `add_tasks` opens it again.

        Args:
            keys: of the tasks (`plumbline.preferences.validation.task_key`); those that are not in the store are
                passed over.

        Returns:
            How many of them still asked for judgements.
        """
        unfinished = 0
        for batch in _batches(sorted(keys), BATCH):
            with self.turn() as turn:
                unfinished += retire_batch(turn, batch)
        return unfinished

    def take(self, judgements: Iterable[NewJudgement]) -> Taken:
        """Add judgements that were given elsewhere, from a stream, with their tasks and annotators.

        Raises:
            UserError: a task has a fault, or a name belongs to another kind of annotator; earlier batches stay.
        """
        taken = present = 0
        for batch in _batches(judgements, BATCH):
            self._check_project([judgement.task for judgement in batch])
            with self.turn() as turn:
                result = take_batch(turn, batch)
            taken, present = taken + result.taken, present + result.present
        return Taken(taken, present)

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

    def lease_next(self, annotator_id: str) -> Assignment | NoWork:
        """Hand out the next task, or say why there is none.

        An annotator holds one task at a time: while they hold one, it is handed to them again (a page that was
        reloaded goes on where it was), with its time renewed.
        """
        self._expire_leases()
        with self.turn() as turn:
            actor = acting(turn, annotator_id)
            held = queue.held_lease(turn, actor)
            if held is not None:
                return self._renewed(turn, held)
            task = queue.next_free_task(turn, actor)
            if task is None:
                return NoWork(queue.why_nothing(turn, actor))
            queue.change_task(turn, task.id, taken=1)
            order = queue.shown_order(task.key, actor.name, len(task.responses))
            return self._leased(turn, actor, task.id, order=order, slot=True, supersedes=None)

    def renew(self, lease_id: str, annotator_id: str) -> datetime:
        """Give a held task its full time again; returns the new end.

        Raises:
            StoreError: the lease is over, or not theirs.
        """
        with self.turn() as turn:
            lease = queue.own_lease(turn, acting(turn, annotator_id), lease_id)
            if lease.state != queue.OPEN:
                raise StoreError("your time for this task is over: load the next one.")
            return self._renewed(turn, lease).expires_at

    def release(self, lease_id: str, annotator_id: str) -> None:
        """Give a held task back unanswered; of a correction, the earlier answer stands. Repeating it does nothing.

        Raises:
            StoreError: the lease is not theirs.
        """
        with self.turn() as turn:
            lease = queue.own_lease(turn, acting(turn, annotator_id), lease_id)
            if lease.state == queue.OPEN:
                queue.end_lease(turn, lease, queue.RELEASED)

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
            scores: what was said of single responses or axes.
            edited: the best response, improved by the annotator.

        Returns:
            The judgement's id.

        Raises:
            StoreError: the ranking does not fit the task, the lease is not theirs, or it is over and others have
                taken the task since. An answer that is late but still wanted is stored.
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
                return self._renewed(turn, held)
            last = last_answer(turn, actor)
            if last is None:
                return None
            if held is not None:
                queue.end_lease(turn, held, queue.RELEASED)
            slot = last.kind != JUDGEMENT  # a judgement has its place in the task's count already
            if slot and not queue.take_place(turn, last.task_id):
                raise StoreError("others have taken this task since you left it, so it cannot be opened again.")
            return self._leased(turn, actor, last.task_id, order=last.shown_order, slot=slot, supersedes=last.id)

    # -- reading -------------------------------------------------------------------------------------------------

    def history(self, annotator_id: str, limit: int = 20) -> list[JudgementRecord]:
        """The annotator's current judgements, the newest first."""
        with self.look() as turn:
            annotator = known_annotator(turn.connection, annotator_id)
        return latest_judgements(self.store, turn.project_id, annotator.id, limit)

    def progress(self) -> Progress:
        """How far the project is."""
        with self.look() as turn:
            return progress_of(turn)

    def annotator_progress(self, annotator_id: str) -> tuple[int, int]:
        """How many tasks the annotator has judged, and how many are left for them."""
        with self.look() as turn:
            annotator = known_annotator(turn.connection, annotator_id)
            mine = (Tally.project_id == turn.project_id) & (Tally.annotator_id == annotator.id)
            judged = turn.connection.execute(select(Tally.judged).where(mine)).scalar_one_or_none() or 0
            return judged, queue.remaining_for(turn, annotator.id)

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
        with self.turn() as turn:
            queue.expire_leases(turn)

    def _check_project(self, tasks: Sequence[NewTask]) -> None:
        for task in tasks:
            if task.project != self.project:
                raise StoreError(f"a task of project {task.project!r} cannot go into project {self.project!r}.")

    def _answer(self, lease_id: str, annotator_id: str, new: NewAnswer) -> str:
        with self.turn() as turn:
            return answer_lease(turn, acting(turn, annotator_id), lease_id, new)

    def _leased(
        self, turn: Turn, actor: Actor, task_id: int, *, order: list[int], slot: bool, supersedes: int | None
    ) -> Assignment:
        until = turn.now + self.lease
        lease = queue.open_lease(turn, actor, task_id, order=order, until=until, slot=slot, supersedes=supersedes)
        return queue.as_assignment(turn, lease, until)

    def _renewed(self, turn: Turn, lease: Row[Any]) -> Assignment:
        until = turn.now + self.lease
        turn.connection.execute(update(Lease).where(Lease.id == lease.id).values(expires_at=until))
        return queue.as_assignment(turn, lease, until)


def _batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
