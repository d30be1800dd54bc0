"""Annotators at once over HTTP, and a server that is killed while they submit: the benchmark's checks, in small."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import pytest

from benchmarks.annotate import kill
from benchmarks.annotate.checks import faults
from benchmarks.annotate.client import Outcome, load
from benchmarks.annotate.levels import fill
from benchmarks.annotate.server import Server
from plumbline.preferences.store import Store

ANNOTATORS, ITEMS, OVERLAP = 8, 2000, 2  # more than a fast machine judges in both rounds
Result = TypeVar("Result")


def apart(act: Callable[[], Result]) -> Result:
    """Do it in a thread of its own: the browser tests' driver may keep an event loop in this one."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(act).result()


@pytest.fixture
def place(tmp_path: Path) -> str:
    return str(tmp_path / "preferences.db")


def test_a_server_killed_under_load_keeps_each_acknowledged_judgement_once(place: str, tmp_path: Path) -> None:
    store = Store.open(place)
    fill(store, ITEMS, overlap=OVERLAP)
    rounds: list[kill.Round] = []
    with Server(place, log=tmp_path / "log") as server:
        assert apart(lambda: kill.kill_rounds(server, store, ANNOTATORS, 2, rounds.append)) == 0
    assert [this.wrong for this in rounds] == ["", ""]
    assert all(this.acknowledged > this.before for this in rounds)  # the server was used again
    held, left = kill.leases_come_back(store)
    assert (held > 0, left) == (True, 0)
    store.close()


def test_the_checks_see_what_was_lost(place: str, tmp_path: Path) -> None:
    store = Store.open(place)
    fill(store, 20)
    with Server(place, log=tmp_path / "log") as server:
        outcome = apart(lambda: asyncio.run(load(server.port, 2, 60)))  # ends when all is judged
    assert len(outcome.acknowledged) == 20
    assert faults(store, outcome) == {}
    assert faults(store, outcome, Outcome(acknowledged={"key": "annotator 0"})) == {"acknowledged and lost": 1}
    with store.write() as connection:
        connection.exec_driver_sql("UPDATE tasks SET judged = 2 WHERE id = 1")
    assert set(faults(store, outcome)) == {"items over the overlap", "items with wrong counts"}
    store.close()
