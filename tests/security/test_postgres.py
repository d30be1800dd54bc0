"""What PostgreSQL cannot store, and SQLite can or not: NUL, halves of surrogate pairs, numbers beyond 64 bits."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.postgres import new_database
from tests.security.calls import BOARD_CALLS, LEAD_CALLS, actor_of, check_law, message_of
from tests.security.conftest import CARDS, COOKIE, FORM, JSON, World, filled_world
from tests.security.made import SORTS

pytestmark = pytest.mark.postgres

HOSTILE = ("a\0b", "\0", "\udc00", "%s", "x" * 3000, 2**31, 2**63, -(2**63) - 1, 10**40, 1e308, ["\0"], {"\0": 1})


@pytest.fixture(scope="module")
def postgres_world(postgres_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = filled_world(new_database(postgres_folder), tmp_path_factory.mktemp("world"))
    yield made
    made.close()


FITTING = {"content": {"at": 1}, "vote": "tie"}
"""What fields hold that are neither texts nor ids."""

DRAFTS = ({"reason": "\0"}, {"edited": {"of": "\0", "text": "\0"}}, {"gaps": {"\0": 1}}, {"at": 2**53})


def messages_of(call: str, known: dict[str, str]) -> Iterator[dict[str, Any]]:
    """A message with ids that are known, in which one field after the other has each hostile value."""
    fields = list(message_of(call).model_fields)
    cards = {known[f"card{number}"]: number + 1 for number in range(CARDS)}
    whole = {name: FITTING.get(name, known.get(SORTS.get(name, ""), "word")) for name in fields}
    whole |= {"ranking": cards} if "ranking" in fields else {}
    yield whole
    for name in fields:
        for value in HOSTILE:
            yield {**whole, name: value}
    for draft in DRAFTS if "content" in fields else ():
        yield {**whole, "content": {"at": 1, **draft}}


@pytest.mark.parametrize("call", [*BOARD_CALLS, *LEAD_CALLS])
def test_no_message_breaks_a_call(postgres_world: World, call: str) -> None:
    actor = actor_of(call)
    for message in messages_of(call, postgres_world.known(actor)):
        reply = postgres_world.ask(call, json.dumps(message).encode(), who=actor, kind=JSON)
        check_law(reply, str(postgres_world.place.parent))


QUERIES = (b"cursor=2147483648", b"cursor=4611686018427387904", b"limit=10000", b"names=%00", b"split=a%00b")


@pytest.mark.parametrize("query", QUERIES)
@pytest.mark.parametrize("path", ["/api/v1/judgements", "/api/v1/export/csv", "/lead-work/export/a%00b"])
def test_no_query_breaks_what_is_read(postgres_world: World, path: str, query: bytes) -> None:
    bearer = (b"authorization", f"Bearer {postgres_world.tokens['api']}".encode())
    check_law(postgres_world.ask(path, method="GET", query=query, headers=[bearer], who="Lea"), "preferences.db")


@pytest.mark.parametrize("text", ["a\0b", "\0", "\ud800", "\udcff", "Bob\0"])
def test_no_form_and_no_token_breaks_the_door(postgres_world: World, text: str) -> None:
    given = quote(text, errors="surrogatepass").encode()
    reply = postgres_world.ask("/sign-in", b"name=" + given + b"&password=" + given, kind=FORM)
    assert reply.status in (401, 429)
    raw = text.encode(errors="surrogatepass")
    for header, value in ((b"cookie", COOKIE.encode() + b"=" + raw), (b"authorization", b"Bearer " + raw)):
        for path in ("/session", "/api/v1/progress"):
            assert postgres_world.ask(path, method="GET", headers=[(header, value)]).status in (200, 401)
