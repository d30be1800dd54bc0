"""How many tasks have responses that name a model: what annotators see masked (`source_names`)."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import func, select

from plumbline.preferences.source_names import SourceNames
from plumbline.preferences.store import Store
from plumbline.preferences.tables import Task
from plumbline.preferences.turn import Facet, Turn, now_utc

TASKS_AT_ONCE = 500


class MaskedTasks(NamedTuple):
    """So many tasks; `whole` is false while some were not looked at yet."""

    tasks: int
    whole: bool


class MaskCount(Facet):
    """Counts the masked tasks of a project; share one per process, any thread may ask.

    Tasks do not change, so that each is looked at once.

    Args:
        store, project, clock: see `Facet`.
        names: that are masked.
    """

    def __init__(
        self, store: Store, *, project: str, names: SourceNames, clock: Callable[[], datetime] = now_utc
    ) -> None:
        super().__init__(store, project=project, clock=clock)
        self.names = names
        self._lock = threading.Lock()
        self._looked_at = 0  # up to this row id
        self._masked: list[int] = []

    def count(self, *, seconds: float = 0.3) -> MaskedTasks:
        """The tasks with masks that are handed out here, or were; of a large store, what is found in so many seconds.

        The next call goes on from there.
        """
        with self._lock, self.look() as turn:
            end = time.monotonic() + seconds
            whole = False
            while not whole and time.monotonic() < end:
                whole = self._look_on(turn)
            return MaskedTasks(sum(_not_retired(turn, part) for part in _parts(self._masked)), whole)

    def _look_on(self, turn: Turn) -> bool:
        """Look at some more tasks; returns whether these were the last ones."""
        more = (Task.project_id == turn.project_id) & (Task.wanted > 0) & (Task.id > self._looked_at)
        query = select(Task.id, Task.prompt, Task.responses).where(more).order_by(Task.id).limit(TASKS_AT_ONCE)
        rows = turn.connection.execute(query).all()
        for row in rows:
            if any(self.names.found(response["text"], row.prompt) for response in row.responses):
                self._masked.append(row.id)
            self._looked_at = row.id
        return len(rows) < TASKS_AT_ONCE


def _not_retired(turn: Turn, ids: list[int]) -> int:
    query = select(func.count()).select_from(Task).where(Task.id.in_(ids), ~Task.retired)
    return int(turn.connection.execute(query).scalar_one())


def _parts(ids: list[int]) -> list[list[int]]:
    return [ids[at : at + TASKS_AT_ONCE] for at in range(0, len(ids), TASKS_AT_ONCE)]
