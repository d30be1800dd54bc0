"""The whole app with accounts, people of every role and work of theirs, asked at its ASGI interface."""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlencode

import pytest

from annotate_ui.app import build_app
from annotate_ui.arena import ArenaSetup
from annotate_ui.setup import Setup
from plumbline.preferences.accounts import ADMIN, ANNOTATOR, LEAD, Accounts
from plumbline.preferences.arena import Arena, Said
from plumbline.preferences.arena_rules import ArenaRules, Contender
from plumbline.preferences.login_sessions import LoginSessions
from plumbline.preferences.records import Assignment
from plumbline.preferences.rules import Rules
from plumbline.preferences.service import PreferenceService
from plumbline.preferences.store import Store
from plumbline.preferences.tokens import Tokens
from plumbline.recipe_annotate import AnnotateSection, RubricAxis
from tests.annotate_ui.conftest import new_task, served  # noqa: F401  # fixtures and builders of the app
from tests.annotate_ui.test_arena.conftest import StandIn
from tests.cheap_passwords import PASSWORD, cheap_passwords
from tests.preferences.conftest import postgres_folder  # noqa: F401

HOST = "127.0.0.1:7860"
BASE = f"http://{HOST}"
COOKIE = "plumbline_session_7860"
JSON, FORM = "application/json", "application/x-www-form-urlencoded"
ROLES = {"Ada": ADMIN, "Lea": LEAD, "Bob": ANNOTATOR, "Vera": ANNOTATOR}
"""Who has an account; Bob attacks, Vera has what he is after."""

RUBRIC = (RubricAxis(name="helpful", question="Is it helpful?"),)
LONGEST_ANSWER = 30.0
"""Seconds; an answer that takes longer is one with which somebody could stop the app."""

INSIDE = ("Traceback", 'File "', "sqlalchemy", "sqlite3", "psycopg", "site-packages")
"""What no answer may tell of the server."""


@dataclass(frozen=True)
class Reply:
    """What a request was answered with."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode(errors="replace")

    @property
    def json(self) -> Any:
        """The body as strict JSON."""
        return json.loads(self.body, parse_constant=_no_number)

    @property
    def refused(self) -> bool:
        """Whether it says that nothing was done."""
        return self.status >= 400 or (self.header("content-type") == JSON and "error" in self.json)

    def header(self, name: str) -> str:
        """The value of a header, or nothing."""
        return next((value for key, value in self.headers if key == name), "")


@dataclass
class World:
    """The app, and everything that an attacker could know of it.

    Attributes:
        tokens: the session of each person, and `api` for programs.
        connected: addresses to which anything in this process opened a connection.
    """

    service: PreferenceService
    accounts: Accounts
    app: Any
    place: Path
    tokens: dict[str, str] = field(default_factory=dict)
    connected: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        self._ports = itertools.count(1)
        self._store = sqlite3.connect(self.place, check_same_thread=False)

    def close(self) -> None:
        """End the thread that asks, and close the store."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._store.close()
        self.service.store.close()

    def id_of(self, name: str) -> str:
        """The annotator id of a person."""
        return self.accounts.named(name).annotator_id

    def ask(
        self,
        path: str | bytes,
        body: bytes = b"",
        *,
        who: str | None = None,
        method: str = "POST",
        kind: str | None = None,
        query: bytes = b"",
        headers: Iterable[tuple[bytes, bytes]] = (),
        client: str = "192.0.2.1",
        scheme: str = "http",
    ) -> Reply:
        """The answer to a request, whose parts are sent as they are; an exception counts as status 500.

        Raises:
            TimeoutError: there was none in `LONGEST_ANSWER` seconds.
        """
        raw = path if isinstance(path, bytes) else path.encode()
        given = [*headers]
        named = {name.lower() for name, _ in given}
        usual = {b"host": HOST.encode(), b"content-type": None if kind is None else kind.encode()}
        if who is not None:
            usual[b"cookie"] = f"{COOKIE}={self.tokens[who]}".encode()
        if method == "POST":
            usual |= {b"content-length": str(len(body)).encode(), b"origin": BASE.encode()}
        given += [(name, value) for name, value in usual.items() if value is not None and name not in named]
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": method,
            "scheme": scheme,
            "server": ("127.0.0.1", 7860),
            "client": (client, next(self._ports)),
            "root_path": "",
            "path": unquote(raw.decode("latin-1")),
            "raw_path": raw,
            "query_string": query,
            "headers": given,
        }
        return asyncio.run_coroutine_threadsafe(_asked(self.app, scope, body), self._loop).result(LONGEST_ANSWER)

    def call(self, path: str, who: str | None, **message: Any) -> Reply:
        """What a page's call is answered with."""
        return self.ask(path, json.dumps(message).encode(), who=who, kind=JSON)

    def form(self, path: str, who: str | None = None, **more: Any) -> Reply:
        """What a form is answered with; `fields` are its fields."""
        return self.ask(path, urlencode(more.pop("fields", {})).encode(), who=who, kind=FORM, **more)

    def sign_in(self, name: str) -> None:
        """Give a person a new session."""
        sessions = LoginSessions(self.service.store, accounts=True)
        self.tokens[name] = sessions.start(self.id_of(name))

    def table(self, query: str) -> list[tuple[Any, ...]]:
        """Rows of the store, past the app."""
        if self.service.store.is_sqlite:
            return self._store.execute(query).fetchall()
        with self.service.store.engine.connect() as connection:
            return [tuple(row) for row in connection.exec_driver_sql(query)]

    def contents(self, *, without: Iterable[str] = ()) -> dict[str, list[tuple[Any, ...]]]:
        """Everything in the store."""
        names = [name for (name,) in self.table("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {name: self.table(f"SELECT * FROM {name} ORDER BY rowid") for name in names if name not in without}

    def of_person(self, name: str) -> dict[str, list[tuple[Any, ...]]]:
        """All rows of the store that belong to a person."""
        ((row,),) = self.table(f"SELECT id FROM annotators WHERE name = '{name}'")
        tables = ("answers", "leases", "drafts", "battles", "tallies", "consents", "accounts", "login_sessions")
        return {table: self.table(f"SELECT * FROM {table} WHERE annotator_id = {row}") for table in tables}

    def known(self, name: str) -> dict[str, str]:
        """Ids that a person has or has seen at present, by the words that stand for them in made messages."""
        me = f"(SELECT id FROM annotators WHERE name = '{name}')"
        found = {
            "lease": f"SELECT lease_id FROM leases WHERE annotator_id = {me} ORDER BY state = 'open', id",
            "answer": f"SELECT answer_id FROM answers WHERE annotator_id = {me} ORDER BY id",
            "battle": f"SELECT battle_id FROM battles WHERE annotator_id = {me} ORDER BY id",
            "person": f"SELECT annotator_id FROM annotators WHERE id = {me}",
            "task": f"SELECT key FROM tasks WHERE id = (SELECT task_id FROM leases WHERE annotator_id = {me} "
            "ORDER BY state = 'open' DESC, id DESC LIMIT 1)",
        }
        known = {word: next((row[0] for row in reversed(self.table(query))), "0" * 32) for word, query in found.items()}
        cards = self.table(f"SELECT responses FROM tasks WHERE key = '{known['task']}'")
        known |= {f"card{number}": "0" * 16 for number in range(CARDS)}
        shown = cards[0][0] if cards else []
        shown = json.loads(shown) if isinstance(shown, str) else shown  # SQLite keeps JSON as text
        known |= {f"card{number}": one["id"] for number, one in enumerate(shown)}
        return known


CARDS = 3


def filled_world(place: str, folder: Path, *, language: str = "de") -> World:
    """An app with accounts, an arena, a guideline, and work of Bob and Vera under way. `place` is the store's."""
    service = PreferenceService(
        Store.open(place), project="support", rules=Rules(rubric=RUBRIC, require_reason=("all_bad",))
    )
    service.set_overlap(2)
    service.add_tasks([new_task(f"question {number}", CARDS) for number in range(12)])
    accounts = Accounts(service.store, passwords=cheap_passwords())
    for name, role in ROLES.items():
        accounts.create(name, role, password=PASSWORD)
    setup = Setup("Support", guideline="# Rank\n\nBest first.", rubric=RUBRIC, strength=True, language=language)
    prompt = [{"role": "user", "content": "Where is it?"}]
    rules = ArenaRules((Contender("sft"), Contender("dpo")), "sft", prompts=(prompt,), turns=3)  # type: ignore[arg-type]
    arena = Arena(service.store, project="support", rules=rules)
    speakers = StandIn()
    speakers.step = 10_000
    settings = AnnotateSection(accounts=True)
    app = build_app(service, setup, settings, accounts=accounts, arena=ArenaSetup(arena, speakers))
    world = World(service, accounts, app, folder / "preferences.db")
    for name in ROLES:
        world.sign_in(name)
    for name in ("Bob", "Vera"):
        _work(world, arena, name)
    world.tokens["api"] = Tokens(service.store, project="support").add("programs", names=True)
    return world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("world")
    connected: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        for name in ("connect", "connect_ex"):
            patch.setattr(socket.socket, name, lambda self, address: connected.append(address) or 1)
        made = filled_world(str(folder / "preferences.db"), folder)
        made.connected = connected
        yield made
        made.close()
    assert connected == []


@pytest.fixture
def fresh(world: World) -> Iterator[World]:
    """The world, whose store is as it was before once the test is over."""
    with sqlite3.connect(":memory:") as kept, sqlite3.connect(world.place) as live:
        live.backup(kept)
        tokens = dict(world.tokens)
        yield world
        kept.backup(live)
        world.tokens = tokens


def _work(world: World, arena: Arena, name: str) -> None:
    """Answers, a flag, a held task with a draft, and a battle."""
    service, who = world.service, world.id_of(name)
    service.sign_in(name)
    service.guidelines.consent(who, 1)
    for number in range(3):
        work = service.lease_next(who)
        assert isinstance(work, Assignment)
        ranking = {card.response_id: card.position + 1 for card in work.cards}
        if number:
            service.judge(work.lease_id, who, ranking, idempotency_key=f"{number}", reason=f"secret of {name}")
        else:
            service.flag(work.lease_id, who, kind="broken", note=f"note of {name}", idempotency_key="flag")
    work = service.lease_next(who)
    assert isinstance(work, Assignment)
    service.save_draft(work.lease_id, who, {"at": 1, "reason": f"draft of {name}"})
    battle = arena.start(who, [{"role": "user", "content": f"prompt of {name}"}]).battle_id
    arena.said(battle, Said("one", True), Said("two", True))


async def _asked(app: Any, scope: Mapping[str, Any], body: bytes) -> Reply:
    sent: list[Any] = []
    given = False

    async def receive() -> Any:
        nonlocal given
        if given:
            await asyncio.Event().wait()  # the page stays
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    fault = b""
    try:
        await app(scope, receive, send)
    except Exception as error:
        fault = f"{type(error).__name__}: {error}".encode()
    if fault or not sent:
        return Reply(500, [], fault)
    headers = [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in sent[0]["headers"]]
    return Reply(sent[0]["status"], headers, b"".join(message.get("body", b"") for message in sent[1:]))


def _no_number(constant: str) -> Any:
    raise AssertionError(f"{constant} is no JSON")
