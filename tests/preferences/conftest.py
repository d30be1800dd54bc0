"""Stores on both databases, a clock that tests set, and small tasks."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from plumbline.preferences.accounts import Accounts, WrongPassword
from plumbline.preferences.counting import LiveCounts
from plumbline.preferences.login_sessions import LoginSessions
from plumbline.preferences.pace import Pace
from plumbline.preferences.records import ADJUDICATION, Assignment, NewJudgement, NewResponse, NewTask
from plumbline.preferences.service import PreferenceService
from plumbline.preferences.store import Store
from plumbline.preferences.validation import task_key
from tests.cheap_passwords import PASSWORD, cheap_passwords
from tests.postgres import database_of, new_database, postgres_server

HERE, ELSEWHERE = "192.0.2.1", "198.51.100.7"


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = datetime(2026, 3, 1, 9, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def advance(self, minutes: float) -> None:
        self.now += timedelta(minutes=minutes)


@pytest.fixture(scope="session")
def postgres_folder() -> Iterator[Path]:
    with postgres_server() as folder:
        yield folder


@pytest.fixture(scope="session")
def new_tables(postgres_folder: Path) -> str:
    """The name of a PostgreSQL database with a new store, to be copied."""
    url = new_database(postgres_folder)
    Store.open(url).close()
    return database_of(url)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a store can be made: a file, or an empty PostgreSQL database; for tests that use `store`, it is made."""
    made = "store" in request.fixturenames
    if request.param == "sqlite":
        place = tmp_path / "preferences.db"
        if made:
            shutil.copy(request.getfixturevalue("new_file"), place)
        return str(place)
    folder = request.getfixturevalue("postgres_folder")
    return new_database(folder, request.getfixturevalue("new_tables") if made else None)


@pytest.fixture
def store(address: str) -> Iterator[Store]:
    opened = Store.open(address)
    yield opened
    opened.close()


@pytest.fixture
def file_store(tmp_path: Path, new_file: Path) -> Iterator[Store]:
    """A store in a file, for what does not depend on the database."""
    opened = Store.open(shutil.copy(new_file, tmp_path / "preferences.db"))
    yield opened
    opened.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def service(store: Store, clock: Clock) -> PreferenceService:
    return PreferenceService(store, project="support", clock=clock)


@pytest.fixture
def file_service(file_store: Store, clock: Clock) -> PreferenceService:
    return PreferenceService(file_store, project="support", clock=clock)


@pytest.fixture
def accounts(store: Store, clock: Clock) -> Accounts:
    return Accounts(store, clock=clock, passwords=cheap_passwords())


@pytest.fixture
def sessions(store: Store, clock: Clock) -> LoginSessions:
    return LoginSessions(store, accounts=True, clock=clock)


class Visitor:
    """Tries passwords from one address."""

    def __init__(self, accounts: Accounts, sessions: LoginSessions) -> None:
        self.accounts, self.sessions = accounts, sessions

    def sign_in(self, name: str = "Ada", password: str = PASSWORD, address: str = HERE) -> str:
        return self.accounts.sign_in(name, password, address=address, sessions=self.sessions)[1]

    def fail(self, times: int, name: str = "Ada", address: str = HERE) -> None:
        for _ in range(times):
            with pytest.raises(WrongPassword):
                self.sign_in(name, "wrong", address)


@pytest.fixture
def visitor(accounts: Accounts, sessions: LoginSessions) -> Visitor:
    return Visitor(accounts, sessions)


def new_task(name: str, responses: int = 2, **fields: object) -> NewTask:
    """A task whose responses are `<name>: response 0`, … by policies `policy-0`, …"""
    texts = [NewResponse(f"{name}: response {number}", f"policy-{number}") for number in range(responses)]
    return NewTask([{"role": "user", "content": name}], texts, "support", **fields)  # type: ignore[arg-type]


def new_tasks(number: int, responses: int = 2) -> list[NewTask]:
    return [new_task(f"task {index}", responses) for index in range(number)]


def best_first(work: Assignment) -> dict[str, int]:
    """The ranking that puts the lowest-numbered response first."""
    ordered = sorted(work.cards, key=lambda card: card.text)
    return {card.response_id: rank for rank, card in enumerate(ordered, 1)}


def make_gold(service: PreferenceService, task: NewTask) -> str:
    """Let a lead decide a task and make a gold item of it; returns its id."""
    ranks = tuple(range(1, len(task.responses) + 1))
    service.take([NewJudgement(replace(task, origin="import:rankings"), ranks, "Lea", f"{task}", purpose=ADJUDICATION)])
    key = task_key(task.prompt, [response.text for response in task.responses])
    service.checks.make_gold(key)
    return key


def rows_of(store: Store, table: Any) -> int:
    """How many rows a table has."""
    with store.read() as connection:
        return connection.execute(select(func.count()).select_from(table)).scalar_one()


def live_counts(service: PreferenceService) -> LiveCounts:
    """The counts that stand beside the tasks, as the page has them."""
    pace = Pace(service.store, project=service.project, clock=service.clock)
    return LiveCounts(service, pace, checks=service.rules.checks is not None)


def counts_of(service: PreferenceService, who: str) -> tuple[int, int]:
    """How many tasks they judged, and how many are left for them, counted anew."""
    counts = live_counts(service).of(who)
    return counts.mine, counts.remaining
