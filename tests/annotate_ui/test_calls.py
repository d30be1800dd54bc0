"""The JSON routes of the pages: what they answer while the store is away, and that small answers leave at once."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from annotate_ui.app import build_app
from annotate_ui.calls import BADGE, CONFLICTS, Message, call_routes
from annotate_ui.server import open_listener
from annotate_ui.sessions import Session
from annotate_ui.setup import Setup
from plumbline.errors import StoreConflict, StoreUnavailable
from plumbline.preferences.service import PreferenceService

BASE = "http://127.0.0.1:7860"


class Signed:
    """Everybody is signed in, or the store of sessions is away."""

    def __init__(self, fault: Exception | None = None) -> None:
        self.fault = fault

    def read(self, request: Any) -> Session:
        if self.fault is not None:
            raise self.fault
        return Session("ada", "Ada")


def client_of(act: Any, sessions: Any = None) -> TestClient:
    def work(annotator_id: str, message: Message) -> dict[str, Any]:
        return dict(act())

    app = FastAPI()
    app.include_router(call_routes("/annotate-work", [work], sessions or Signed()))
    return TestClient(app, base_url=BASE)


def failing(*faults: Exception) -> Any:
    """Raises one fault after the other, then answers."""
    left = list(faults)

    def act() -> dict[str, str]:
        if left:
            raise left.pop(0)
        return {"notice": "Saved."}

    return act


def test_while_the_store_is_away_a_call_may_be_sent_again() -> None:
    client = client_of(failing(StoreUnavailable("/srv/preferences.db: free some space.", "the disk is full")))
    answer = client.post("/annotate-work/work", json={})
    assert answer.status_code == 503
    assert "the disk is full" in answer.json()["error"] and "/srv" not in answer.text
    assert int(answer.headers["retry-after"]) > 0
    assert client.post("/annotate-work/work", json={}).json() == {"notice": "Saved."}


def test_what_a_page_of_somebody_else_sends_is_refused_and_no_answer_is_kept_by_the_browser() -> None:
    done: list[str] = []
    client = client_of(lambda: {"notice": str(done.append("work"))})
    refused = client.post("/annotate-work/work", json={}, headers={BADGE: Session("bob", "Bob").badge})
    assert (refused.status_code, done) == (409, [])
    assert refused.json()["error"].startswith("Somebody else has signed in")
    answer = client.post("/annotate-work/work", json={}, headers={BADGE: Session("ada", "Ada").badge})
    assert (answer.status_code, done) == (200, ["work"])
    assert {one.headers["cache-control"] for one in (refused, answer)} == {"no-store"}


def test_sessions_that_cannot_be_read_are_no_fault_of_the_visitor() -> None:
    client = client_of(failing(), Signed(StoreUnavailable("the database cannot be reached.")))
    assert client.post("/annotate-work/work", json={}).status_code == 503


def test_a_call_that_got_in_anothers_way_is_repeated() -> None:
    conflicts = [StoreConflict("two changes got in each other's way")] * CONFLICTS
    assert client_of(failing(*conflicts[1:])).post("/annotate-work/work", json={}).json() == {"notice": "Saved."}
    assert client_of(failing(*conflicts)).post("/annotate-work/work", json={}).status_code == 503


@pytest.mark.parametrize(("method", "path"), [("POST", "/sign-in"), ("GET", "/annotate/")])
def test_a_page_says_that_the_store_is_away(
    service: PreferenceService, monkeypatch: pytest.MonkeyPatch, method: str, path: str
) -> None:
    def away(*given: Any, **named: Any) -> Any:
        raise StoreUnavailable("/srv/preferences.db: free some space.", "the disk is full")

    with TestClient(build_app(service, Setup("Support")), base_url=BASE, follow_redirects=False) as client:
        client.post("/sign-in", data={"name": "Ada"})
        monkeypatch.setattr(service, "sign_in", away)
        monkeypatch.setattr("annotate_ui.sessions.Sessions.read", away)
        sent = {"data": {"name": "Ada"}, "headers": {"origin": BASE}} if method == "POST" else {}
        answer = client.request(method, path, **sent)
    assert answer.status_code == 503
    assert "the disk is full" in answer.text and "/srv" not in answer.text


def test_an_accepted_connection_sends_small_answers_at_once() -> None:
    """asyncio turns Nagle's algorithm off only for sockets that name TCP; else each answer waits for 40 ms."""
    with open_listener("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()):
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.proto == socket.IPPROTO_TCP
