"""Where the turns of the arena's conversations are found in the store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Row, select

from plumbline.errors import StoreError
from plumbline.preferences.tables import Battle
from plumbline.preferences.turn import Turn


def own_battle(turn: Turn, annotator: int, battle_id: str, *, lock: bool = True) -> Row[Any]:
    """A battle of the annotator (a row id) by its id, locked for the rest of a transaction that writes.

    Raises:
        StoreError: there is no such battle, or it is somebody else's.
    """
    named: ColumnElement[bool] = (Battle.battle_id == battle_id) & (Battle.project_id == turn.project_id)
    query = select(Battle.__table__).where(named)
    battle = turn.connection.execute(query.with_for_update() if lock else query).one_or_none()
    if battle is None or battle.annotator_id != annotator:
        raise StoreError("this conversation is not yours: start a new one.")
    return battle


def open_battles(turn: Turn, annotator: int) -> Sequence[Row[Any]]:
    """The turns of the annotator's open conversation, in order."""
    mine = (Battle.project_id == turn.project_id) & (Battle.annotator_id == annotator) & Battle.revealed_at.is_(None)
    return turn.connection.execute(select(Battle.__table__).where(mine).order_by(Battle.id)).all()


def conversation(turn: Turn, last: Row[Any]) -> list[Row[Any]]:
    """The turns from the first one to `last`."""
    battles = [last]
    while battles[0].before_id is not None:
        query = select(Battle.__table__).where(Battle.id == battles[0].before_id)
        battles.insert(0, turn.connection.execute(query).one())
    return battles


def next_turn(turn: Turn, battle: Row[Any]) -> Row[Any] | None:
    """The turn that follows a battle, where there is one."""
    return turn.connection.execute(select(Battle.__table__).where(Battle.before_id == battle.id)).one_or_none()


def turns_after(turn: Turn, battle: Row[Any]) -> list[Row[Any]]:
    """All turns of the conversation that follow a battle, in order."""
    later = (Battle.project_id == turn.project_id) & (Battle.annotator_id == battle.annotator_id)
    query = select(Battle.__table__).where(later, Battle.id > battle.id).order_by(Battle.id)
    found = [battle]
    for row in turn.connection.execute(query):
        if row.before_id == found[-1].id:
            found.append(row)
    return found[1:]
