"""What goes into a project: tasks to be judged, and judgements that were given elsewhere."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

from sqlalchemy import update

from plumbline.errors import StoreError
from plumbline.preferences.ingest import BATCH, add_batch, ask_batch, retire_batch, take_batch
from plumbline.preferences.records import Added, NewJudgement, NewTask, Taken
from plumbline.preferences.tables import Project
from plumbline.preferences.turn import Facet

Item = TypeVar("Item")


class Intake(Facet):
    """Adding tasks and judgements, in batches, from streams of any length."""

    def set_overlap(self, judgements_per_task: int) -> None:
        """Ask for this many judgements of each task, of those that are there and of those to come; it begins with 1.

        In batches, so that annotators need not wait until all tasks are changed. After a crash the next call goes on.
        """
        if judgements_per_task < 1:
            raise StoreError(f"judgements_per_task is {judgements_per_task}: at least one judgement is needed.")
        with self.turn() as turn:
            project = (Project.id == turn.project_id) & (Project.judgements_per_task != judgements_per_task)
            turn.connection.execute(update(Project).where(project).values(judgements_per_task=judgements_per_task))
        last: int | None = 0
        while last is not None:
            with self.turn() as turn:
                last = ask_batch(turn, judgements_per_task, after=last)

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

    def retire(self, keys: Collection[str], *, checks: bool = False) -> int:
        """Close tasks whose responses were replaced: they are no longer handed out, nor waited for.

        What was judged stays, and whoever holds such a task may still answer it. `add_tasks` opens it again. A check
        measures annotators whatever policy is sampled: it stays, unless `checks` says to close these too.

        Args:
            keys: of the tasks (`plumbline.preferences.validation.task_key`); those that are not in the store are
                passed over.
            checks: close checks too.

        Returns:
            How many of them still asked for judgements.
        """
        unfinished = 0
        for batch in _batches(sorted(keys), BATCH):
            with self.turn() as turn:
                unfinished += retire_batch(turn, batch, checks=checks)
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

    def _check_project(self, tasks: Sequence[NewTask]) -> None:
        for task in tasks:
            if task.project != self.project:
                raise StoreError(f"a task of project {task.project!r} cannot go into project {self.project!r}.")


def _batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
