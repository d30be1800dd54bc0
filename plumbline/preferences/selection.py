"""The random sample that active selection leaves: a fifth of all tasks, known by their keys.

Tasks that were chosen because a model is unsure of them say nothing unbiased about it. Those of the sample are not
chosen by that: whatever part of them is judged is a random part of all tasks.
"""

from __future__ import annotations

import hashlib

from sqlalchemy import Connection, select, update

from plumbline.preferences.tables import Project
from plumbline.preferences.turn import Turn

ONE_IN = 5
"""One task in so many is in the sample."""

ACTIVE = "active_selection"
"""The project's setting: tasks were put in order by a model, so it is told of each whether it is in the sample."""


def by_chance(task_key: str) -> str:
    """What tasks are sorted by to be in random order, always the same."""
    return hashlib.sha256(f"prioritise:{task_key}".encode()).hexdigest()


def in_random_sample(task_key: str) -> bool:
    """Whether the task is in the sample; its place in the random order tells nothing of that."""
    return int(by_chance(task_key)[-8:], 16) % ONE_IN == 0


def is_active(connection: Connection, project_id: int) -> bool:
    """Whether tasks of the project were ever put in order by a model."""
    settings = connection.execute(select(Project.settings).where(Project.id == project_id)).scalar_one_or_none()
    return bool((settings or {}).get(ACTIVE))


def note_active(turn: Turn) -> None:
    """Note that the project's tasks were put in order by a model."""
    project = Project.id == turn.project_id
    settings = turn.connection.execute(select(Project.settings).where(project).with_for_update()).scalar_one()
    turn.connection.execute(update(Project).where(project).values(settings={**(settings or {}), ACTIVE: True}))
