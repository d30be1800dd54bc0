"""What the lead decides about the queue: who gets what, in which order, how much, and what must come back."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any

from sqlalchemy import Row, Text, bindparam, cast, delete, insert, or_, select, text, update

from plumbline.conversations import Conversation
from plumbline.errors import StoreError, counted
from plumbline.preferences import queue
from plumbline.preferences.account_tables import Account
from plumbline.preferences.adjudication import ADJUDICATORS, take_back_disputes
from plumbline.preferences.tables import OPEN_TASK, Annotator, Lease, PoolMember, Tally, Task, TaskAllowance
from plumbline.preferences.turn import Facet, Turn, ensure_tally, known_annotator, restart_queue
from plumbline.preferences.validation import checked_name, note_fault

HIGHEST_PRIORITY = 2**31 - 2
TASKS_AT_ONCE = 500


@dataclass(frozen=True)
class HeldTask:
    """A task in somebody's hands; `purpose` is as in `records`."""

    lease_id: str
    task_id: str
    prompt: Conversation
    annotator_id: str
    annotator: str
    purpose: str
    since: datetime
    until: datetime


@dataclass(frozen=True)
class Standing:
    """An annotator of the project, what they did, and what the lead decided about them.

    Attributes:
        judged, skipped, flagged: current answers, checks and repeats among them.
        quota: the most that they may judge; None for no limit.
        paused: why they get no work; None while they get some.
        pools: pools that they are in.
    """

    annotator_id: str
    name: str
    simulated: bool
    judged: int
    skipped: int
    flagged: int
    quota: int | None
    paused: str | None
    pools: tuple[str, ...]


@dataclass(frozen=True)
class OpenTask:
    """A task that is handed out, with the texts of its responses."""

    task_id: str
    prompt: Conversation
    responses: tuple[str, ...]


@dataclass(frozen=True)
class FoundTask:
    """A task that was looked for, and its place in the queue; `flagged` says that flags close it for now."""

    task_id: str
    prompt: Conversation
    judged: int
    wanted: int
    flagged: bool
    priority: int
    pool: str | None
    restricted: bool


@dataclass(frozen=True)
class RestrictedTask:
    """A task that is handed to named people only: their `names`, in order."""

    task_id: str
    prompt: Conversation
    names: tuple[str, ...]


class QueueControl(Facet):
    """The lead's hand on the queue of a project. Tasks are named by their ids as in `Assignment.task_id`.

    Methods that name a task or an annotator raise StoreError where it is not known.
    """

    # -- which task goes first, and to whom ------------------------------------------------------------------------

    def set_priorities(self, priorities: Mapping[str, int]) -> int:
        """Hand out tasks by priority, the highest first; without one it is 0. Equal ones go in the order of coming.

        Tasks that are not in the store are passed over. Returns how many are in it.
        """
        wrong = [value for value in priorities.values() if not -HIGHEST_PRIORITY <= value <= HIGHEST_PRIORITY]
        if wrong:
            raise StoreError(f"{wrong[0]} is no priority: it is from {-HIGHEST_PRIORITY} to {HIGHEST_PRIORITY}.")
        with self.turn() as turn:
            restart_queue(turn)
            rows = _ids(turn, priorities)
            if rows:
                turn.connection.execute(
                    update(Task).where(Task.id == bindparam("row")).values(deferral=bindparam("later")),
                    [{"row": rows[key], "later": -priorities[key]} for key in sorted(rows, key=rows.__getitem__)],
                )
                turn.record("priorities", tasks=len(rows))
            return len(rows)

    def assign_pool(self, task_ids: Iterable[str], pool: str | None) -> int:
        """Keep tasks for the members of a pool, or with None for nobody in particular; returns how many."""
        name = None if pool is None else _pool_name(pool)
        with self.turn() as turn:
            restart_queue(turn)
            rows = _known_ids(turn, task_ids)
            for part in _parts(sorted(rows.values())):
                turn.connection.execute(update(Task).where(Task.id.in_(part)).values(pool=name))
            turn.record("tasks kept for a pool" if name else "tasks of no pool", tasks=len(rows))
            return len(rows)

    def set_pool(self, pool: str, annotator_ids: Collection[str]) -> None:
        """Say who is in a pool, in place of those who were; without anybody the pool is gone.

        Members of the pool `adjudicators` may decide disputed tasks; what they hold of these when they leave it goes
        back.
        """
        name = _pool_name(pool)
        with self.turn() as turn:
            restart_queue(turn)
            members = [known_annotator(turn.connection, one).id for one in dict.fromkeys(annotator_ids)]
            turn.connection.execute(
                delete(PoolMember).where(PoolMember.project_id == turn.project_id, PoolMember.pool == name)
            )
            rows = [{"project_id": turn.project_id, "pool": name, "annotator_id": member} for member in members]
            for member in members:
                ensure_tally(turn, member)  # so that `standings` names every member
            if rows:
                turn.connection.execute(insert(PoolMember), rows)
            if name == ADJUDICATORS:
                take_back_disputes(turn, Lease.project_id == turn.project_id)
            turn.record("pool members", members=len(rows))

    def pools(self) -> dict[str, list[str]]:
        """The pools that have members, with the members' annotator ids."""
        with self.look() as turn:
            query = (
                select(PoolMember.pool, Annotator.annotator_id)
                .join(Annotator, Annotator.id == PoolMember.annotator_id)
                .where(PoolMember.project_id == turn.project_id)
                .order_by(PoolMember.pool, Annotator.name)
            )
            pools: dict[str, list[str]] = {}
            for row in turn.connection.execute(query):
                pools.setdefault(row.pool, []).append(row.annotator_id)
            return pools

    def restrict(self, task_id: str, annotator_ids: Collection[str] | None) -> None:
        """Hand a task to these annotators only; with None, to everybody again. Who holds it may finish it."""
        with self.turn() as turn:
            restart_queue(turn)
            (task,) = _known_ids(turn, [task_id]).values()
            named = [known_annotator(turn.connection, one).id for one in dict.fromkeys(annotator_ids or ())]
            turn.connection.execute(delete(TaskAllowance).where(TaskAllowance.task_id == task))
            if named:
                rows = [{"task_id": task, "annotator_id": one} for one in named]
                turn.connection.execute(insert(TaskAllowance), rows)
            restricted = annotator_ids is not None
            turn.connection.execute(update(Task).where(Task.id == task).values(restricted=restricted))
            turn.record("task restricted" if restricted else "task unrestricted", task_id, annotators=len(named))

    def find(self, words: str, limit: int = 20) -> list[FoundTask]:
        """The tasks whose conversation has these words as they stand, or whose id begins so, in the order of coming.

        Imported tasks are among them, checks and replaced tasks are not. Letters beyond ASCII are told apart by case.
        """
        said = words.strip()
        if not said or note_fault(said):  # what cannot be stored is nowhere
            return []
        # As it stands in the stored JSON; that also holds the names of roles, so the texts are looked at again.
        has = cast(Task.prompt, Text).icontains(json.dumps(said)[1:-1], autoescape=True)
        wanted = or_(Task.key.startswith(said.lower(), autoescape=True), has)
        with self.look() as turn:
            mine = (Task.project_id == turn.project_id) & ~Task.retired & Task.check_kind.is_(None)
            query = select(Task.__table__).where(mine, wanted).order_by(Task.id)
            streaming = turn.connection.execution_options(stream_results=True, yield_per=TASKS_AT_ONCE)
            return list(islice((_found(row) for row in streaming.execute(query) if _has(row, said)), limit))

    def restricted(self, limit: int | None = None) -> list[RestrictedTask]:
        """The tasks that are handed to named people only, in the order of coming; with a limit, the first ones."""
        with self.look() as turn:
            mine = (Task.project_id == turn.project_id) & Task.restricted & ~Task.retired
            tasks = select(Task.id, Task.key, Task.prompt).where(mine).order_by(Task.id).limit(limit)
            found = turn.connection.execute(tasks).all()
            query = (
                select(TaskAllowance.task_id, Annotator.name)
                .join(Annotator, Annotator.id == TaskAllowance.annotator_id)
                .join(Task, Task.id == TaskAllowance.task_id)
                .where(mine, Task.id <= (found[-1].id if found else 0))
                .order_by(Annotator.name)
            )
            names: dict[int, list[str]] = {}
            for row in turn.connection.execute(query):
                names.setdefault(row.task_id, []).append(row.name)
        return [RestrictedTask(task.key, task.prompt, tuple(names.get(task.id, ()))) for task in found]

    def annotators_named(self, names: Iterable[str]) -> list[str]:
        """The annotator ids of people by their names; case and white space do not matter.

        Raises:
            StoreError: nobody in the store has one of the names.
        """
        with self.look() as turn:
            found = []
            for name in names:
                query = select(Annotator.annotator_id).where(
                    Annotator.name_key == checked_name(name, person=False).casefold()
                )
                annotator_id = turn.connection.execute(query).scalar_one_or_none()
                if annotator_id is None:
                    raise StoreError(
                        f"nobody in this store is called {name!r}: they sign in, or get an account, first."
                    )
                found.append(annotator_id)
            return found

    # -- how much, and whether at all ------------------------------------------------------------------------------

    def set_quota(self, annotator_id: str, quota: int | None) -> None:
        """Let an annotator judge at most this many tasks, checks and repeats included; None for no limit."""
        if quota is not None and quota < 0:
            raise StoreError(f"{quota} is no quota: it is a number of tasks, or none at all.")
        self._set(annotator_id, "quota", quota=quota)

    def pause(self, annotator_id: str, reason: str) -> None:
        """Give an annotator no more work; they read the reason. What they hold they may finish."""
        if not reason.strip() or note_fault(reason):
            raise StoreError("say why: the annotator reads it.")
        self._set(annotator_id, "paused", paused=reason.strip())

    def resume(self, annotator_id: str) -> None:
        """Give an annotator work again. Their checks count from anew, so that old ones do not pause them at once."""
        self._set(
            annotator_id, "resumed", paused=None, checks_seen=0, checks_passed=0, checks_score=0.0, check_streak=0
        )

    def standings(self) -> list[Standing]:
        """Everybody in the project, and whoever may sign in but has not, by name."""
        pools: dict[str, list[str]] = {}
        for pool, members in self.pools().items():
            for member in members:
                pools.setdefault(member, []).append(pool)
        with self.look() as turn:
            rows = turn.connection.execute(
                select(Annotator.annotator_id, Annotator.name, Annotator.simulated, Tally.__table__)
                .outerjoin(Tally, (Tally.annotator_id == Annotator.id) & (Tally.project_id == turn.project_id))
                .outerjoin(Account, (Account.annotator_id == Annotator.id) & Account.active)
                .where(or_(Tally.project_id.is_not(None), Account.annotator_id.is_not(None)))
                .order_by(Annotator.name)
            ).all()
        return [
            Standing(
                annotator_id=row.annotator_id,
                name=row.name,
                simulated=row.simulated,
                judged=row.judged or 0,
                skipped=row.skipped or 0,
                flagged=row.flagged or 0,
                quota=row.quota,
                paused=row.paused,
                pools=tuple(pools.get(row.annotator_id, ())),
            )
            for row in rows
        ]

    # -- what people hold ------------------------------------------------------------------------------------------

    def held(self) -> list[HeldTask]:
        """The tasks in people's hands, those that end first at the top."""
        with self.look() as turn:
            query = (
                select(
                    Lease.lease_id,
                    Task.key,
                    Task.prompt,
                    Annotator.annotator_id,
                    Annotator.name,
                    Lease.purpose,
                    Lease.created_at,
                    Lease.expires_at,
                )
                .join(Task, Task.id == Lease.task_id)
                .join(Annotator, Annotator.id == Lease.annotator_id)
                .where(Lease.project_id == turn.project_id, Lease.state == queue.OPEN)
                .order_by(Lease.expires_at)
            )
            return [HeldTask(*row) for row in turn.connection.execute(query)]

    def release(self, lease_id: str) -> bool:
        """Take a task back from whoever holds it; returns whether it was held. Their draft stays."""
        return self._release(Lease.lease_id == lease_id) == 1

    def release_all(self, annotator_id: str) -> int:
        """Take back what an annotator holds; returns how many tasks."""
        with self.turn() as turn:
            annotator = known_annotator(turn.connection, annotator_id)
            return self._release(Lease.annotator_id == annotator.id)

    def open_tasks(self) -> Iterator[OpenTask]:
        """The tasks that are handed out, as a stream, in the order of coming."""
        with self.look() as turn:
            query = select(Task.key, Task.prompt, Task.responses).where(
                Task.project_id == turn.project_id, text(OPEN_TASK), Task.check_kind.is_(None)
            )
            streaming = turn.connection.execution_options(stream_results=True, yield_per=TASKS_AT_ONCE)
            for row in streaming.execute(query.order_by(Task.id)):
                yield OpenTask(row.key, row.prompt, tuple(response["text"] for response in row.responses))

    # -- inside ----------------------------------------------------------------------------------------------------

    def _set(self, annotator_id: str, action: str, **values: Any) -> None:
        with self.turn() as turn:
            annotator = known_annotator(turn.connection, annotator_id)
            ensure_tally(turn, annotator.id)
            mine = (Tally.project_id == turn.project_id) & (Tally.annotator_id == annotator.id)
            turn.connection.execute(update(Tally).where(mine).values(**values))
            turn.record(action, annotator_id)

    def _release(self, which: Any) -> int:
        with self.turn() as turn:
            held = (Lease.project_id == turn.project_id) & (Lease.state == queue.OPEN) & which
            holders = select(Lease.annotator_id).where(held)
            theirs = (Tally.project_id == turn.project_id) & Tally.annotator_id.in_(holders)
            # Whoever acts locks their tally first, then the lease.
            turn.connection.execute(select(Tally.annotator_id).where(theirs).with_for_update())
            leases = turn.connection.execute(select(Lease.__table__).where(held).with_for_update()).all()
            for lease in leases:
                queue.end_lease(turn, lease, queue.TAKEN_BACK)
                turn.record("taken back", lease.lease_id)
            return len(leases)


def _has(row: Row[Any], said: str) -> bool:
    texts = (message["content"].casefold() for message in row.prompt)
    return row.key.startswith(said.lower()) or any(said.casefold() in text for text in texts)


def _found(row: Row[Any]) -> FoundTask:
    place = (row.judged, row.wanted, row.flagged > 0, -row.deferral, row.pool, row.restricted)
    return FoundTask(row.key, row.prompt, *place)


def _ids(turn: Turn, keys: Iterable[str]) -> dict[str, int]:
    """Row ids of the tasks with these keys; those that are not in the store are left out."""
    ids: dict[str, int] = {}
    for part in _parts(dict.fromkeys(keys)):
        query = select(Task.key, Task.id).where(Task.project_id == turn.project_id, Task.key.in_(part))
        ids.update((row.key, row.id) for row in turn.connection.execute(query))
    return ids


def _known_ids(turn: Turn, keys: Iterable[str]) -> dict[str, int]:
    asked = list(dict.fromkeys(keys))
    ids = _ids(turn, asked)
    missing = [key for key in asked if key not in ids]
    if missing:
        raise StoreError(f"{counted(len(missing), 'task')} not in the store, the first is {missing[0]!r}.")
    return ids


def _parts(items: Iterable[Any]) -> Iterator[list[Any]]:
    iterator = iter(items)
    while part := list(islice(iterator, TASKS_AT_ONCE)):
        yield part


def _pool_name(pool: str) -> str:
    return checked_name(pool, person=False)
