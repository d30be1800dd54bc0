"""SIGKILL of the server while annotators submit, again and again on one store."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import func, select

from benchmarks.annotate.checks import faults
from benchmarks.annotate.client import Outcome, load
from benchmarks.annotate.server import PROJECT, Server
from plumbline.preferences.records import NoWork
from plumbline.preferences.service import PreferenceService
from plumbline.preferences.store import Store
from plumbline.preferences.tables import Answer, Lease
from plumbline.preferences.turn import now_utc

SECONDS_BEFORE, SECONDS_AFTER = (0.8, 2.5), 1.5
HEAD = (
    "| round | acknowledged before the kill | stored by then, not acknowledged | restart, s | acknowledged in all "
    "| faults in the store |\n|---|---|---|---|---|---|"
)


@dataclass
class Round:
    """One kill: what was acknowledged and stored when the server died, and what is wrong at the end."""

    number: int
    before: int = 0
    unheard: int = 0
    restart: float = 0.0
    acknowledged: int = 0
    wrong: str = ""

    def row(self) -> str:
        """As a line of a Markdown table under `HEAD`."""
        return (
            f"| {self.number} | {self.before} | {self.unheard} | {self.restart:.1f} | {self.acknowledged} "
            f"| {self.wrong or 'none'} |"
        )


def kill_rounds(server: Server, store: Store, annotators: int, rounds: int, tell: Callable[[Round], None]) -> int:
    """Load, SIGKILL, start again, go on; the annotators send again what was not acknowledged. Returns the faults.

    Args:
        server: started; it is running again at the end.
        tell: is given each round when it is over.
    """
    outcomes: list[Outcome] = []
    wrong = 0
    for number in range(1, rounds + 1):
        this = Round(number)
        earlier = _answers(store)

        async def kill(outcome: Outcome, this: Round = this, earlier: int = earlier) -> None:
            await asyncio.sleep(random.uniform(*SECONDS_BEFORE))
            server.kill()
            await asyncio.sleep(0.1)  # what was acknowledged is on its way to the browsers
            this.before = len(outcome.acknowledged)
            this.unheard = _answers(store) - earlier - this.before
            this.restart = await asyncio.to_thread(server.start)
            await asyncio.sleep(SECONDS_AFTER)
            outcome.stopped = True

        outcomes.append(asyncio.run(load(server.port, annotators, 120.0, meanwhile=kill)))
        this.acknowledged = len(outcomes[-1].acknowledged)
        found = faults(store, *outcomes)
        wrong += len(found)
        this.wrong = "; ".join(f"{value} {what}" for what, value in found.items())
        tell(this)
    return wrong


def leases_come_back(store: Store) -> tuple[int, int]:
    """Open leases now, and after everybody's time is over and one more annotator has asked for work."""
    later = PreferenceService(store, project=PROJECT, clock=lambda: now_utc() + timedelta(hours=1))
    before = _open_leases(store)
    newcomer = later.sign_in("newcomer").annotator_id
    assert not isinstance(later.lease_next(newcomer), NoWork)
    return before, _open_leases(store) - 1


def _answers(store: Store) -> int:
    with store.read() as connection:
        return connection.execute(select(func.count()).select_from(Answer)).scalar_one()


def _open_leases(store: Store) -> int:
    with store.read() as connection:
        return connection.execute(select(func.count()).where(Lease.state == "open")).scalar_one()
