"""Every route that the pages call, who may call it, and made messages sent to it.

The routes are compared with those of the app, so that a new one is attacked too; what one takes is read from its desk.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from typing import Any, get_type_hints
from urllib.parse import urlsplit

from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from annotate_ui.arena.desk import ArenaDesk, BattleMessage
from annotate_ui.desk import Desk
from annotate_ui.lead.desk import LeadDesk
from annotate_ui.people import PeopleDesk
from tests.security.conftest import INSIDE, JSON, Reply, World
from tests.security.made import MADE, bodies

DESKS: dict[str, type] = {
    "annotate-work": Desk,
    "lead-work": LeadDesk,
    "arena-work": ArenaDesk,
    "people": PeopleDesk,
}
ACTORS = {"annotate-work": "Bob", "lead-work": "Lea", "arena-work": "Bob", "people": "Ada"}
ONLY_LEADS = ("/annotate-work/decide_as_lead", "/arena-work/board")
BOARD_CALLS = [
    *(f"/annotate-work/{name}" for name in ("next", "decide", "judge", "skip", "flag", "undo", "reopen", "release")),
    *(f"/annotate-work/{name}" for name in ("renew", "draft", "history", "own", "guideline", "consent", "quiz")),
    "/annotate-work/decide_as_lead",
    *(
        f"/arena-work/{name}"
        for name in ("state", "draw", "start", "consent", "vote", "go_on", "end", "board", "listen")
    ),
]
LEAD_CALLS = [
    *(f"/lead-work/{name}" for name in ("quality", "queue", "guidelines", "exports", "decided", "take_back", "reopen")),
    *(
        f"/lead-work/{name}"
        for name in ("find", "keep_closed", "place", "pause", "resume", "quota", "set_pool", "preview")
    ),
    *(f"/lead-work/{name}" for name in ("restrict", "make_gold", "quiz_again", "quiz_let_in", "check_export")),
    "/lead-work/publish",
    *(f"/people/{name}" for name in ("create", "reset", "role", "deactivate", "activate")),
]
FORMS = {"/sign-in", "/sign-out", "/account/password", "/account/sign-out-everywhere"}


def routes_of(routes: Any) -> Iterator[Any]:
    """Every route of an app, those of included routers too."""
    for route in routes:
        inner = getattr(route, "original_router", None)
        yield from routes_of(inner.routes) if inner is not None else [route]


def message_of(call: str) -> type[BaseModel]:
    """What a route takes."""
    _, desk, action = call.split("/")
    if call == "/arena-work/listen":
        return BattleMessage
    message: type[BaseModel] = get_type_hints(getattr(DESKS[desk], action))["message"]
    return message


def actor_of(call: str) -> str:
    """Somebody whose role may call a route."""
    return "Lea" if call in ONLY_LEADS else ACTORS[call.split("/")[1]]


def filled_in(body: bytes, known: dict[str, str]) -> bytes:
    """The body with ids in the places of the words that stand for them."""
    return re.sub(rb"@(\w+)@", lambda word: known.get(word[1].decode(), "?").encode(), body)


class Watch:
    """Tells whether anybody has written to the store since it was asked last."""

    def __init__(self, world: World) -> None:
        self.connection = sqlite3.connect(world.place, check_same_thread=False)
        self.seen = self._now()

    def wrote(self) -> bool:
        before, self.seen = self.seen, self._now()
        return before != self.seen

    def _now(self) -> int:
        return int(self.connection.execute("PRAGMA data_version").fetchone()[0])


def check_law(reply: Reply, place: str) -> None:
    """No answer is a breakdown, or tells of the server's inside."""
    assert reply.status < 500, reply.text
    assert not any(word in reply.text for word in (*INSIDE, place)), reply.text
    assert urlsplit(reply.header("location")).hostname in (None, "127.0.0.1", "localhost", "::1")
    if reply.header("content-type") == JSON and reply.body:
        assert reply.json is not None


def attack_call(world: World, call: str) -> None:
    """Send 500 messages by somebody who may call a route; what is refused must have changed nothing."""
    actor = actor_of(call)
    watch = Watch(world)
    foreign = {f"other_{word}": one for word, one in world.known("Vera").items()}
    fits = 1 if call.startswith("/lead-work") else 5  # each of these renders a whole panel

    @MADE
    @given(body=bodies(message_of(call), [*world.known(actor), *foreign], fits=fits))
    def attack(body: bytes) -> None:
        watch.wrote()
        reply = world.ask(call, filled_in(body, world.known(actor) | foreign), who=actor, kind=JSON)
        check_law(reply, str(world.place.parent))
        assert not (reply.refused and watch.wrote()), f"refused, and changed something: {reply.text}"

    attack()


def attack_as_stranger(world: World, call: str) -> None:
    """Send messages without a session, and by those whose role may not call a route."""
    watch, known = Watch(world), world.known("Vera")
    strangers = [None, "Bob", *(["Lea"] if actor_of(call) == "Ada" else [])]

    @settings(MADE, max_examples=50)
    @given(body=bodies(message_of(call), [*known]), who=st.sampled_from(strangers))
    def attack(body: bytes, who: str | None) -> None:
        reply = world.ask(call, filled_in(body, known), who=who, kind=JSON)
        assert reply.status == (401 if who is None else 403)
        assert not watch.wrote()

    attack()
