"""What belongs to another person, attacked with their ids, sessions and roles; events of Gradio's that are forged."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from annotate_ui.guard import gradio_pages
from plumbline.preferences.login_sessions import LoginSessions
from plumbline.preferences.service import PreferenceService
from tests.annotate_ui.conftest import new_task
from tests.security.calls import BOARD_CALLS, LEAD_CALLS, Watch, actor_of, message_of
from tests.security.conftest import COOKIE, JSON, World

PAGES = ("annotate", "lead", "arena")


def with_ids_of(world: World, name: str) -> dict[str, dict[str, Any]]:
    """For each call that names something, a message that would be right if it came from that person."""
    known = world.known(name)
    lease = {"lease_id": known["lease"]}
    answer = {**lease, "key": "k"}
    ranking = {known[f"card{number}"]: number + 1 for number in range(3)}
    return {
        "/annotate-work/judge": {**answer, "ranking": ranking},
        "/annotate-work/skip": {**answer, "reason": "taken over"},
        "/annotate-work/flag": {**answer, "kind": "other", "note": "taken over"},
        "/annotate-work/renew": lease,
        "/annotate-work/release": lease,
        "/annotate-work/draft": {**lease, "content": {"at": 9, "reason": "taken over"}},
        "/annotate-work/reopen": {"answer_id": known["answer"]},
        "/annotate-work/history": {"before": known["answer"]},
        "/arena-work/vote": {"battle": known["battle"], "vote": "left"},
        "/arena-work/go_on": {"battle": known["battle"], "prompt": "And then?"},
        "/arena-work/end": {"battle": known["battle"]},
        "/arena-work/listen": {"battle": known["battle"]},
    }


ATTACKED = [
    *(f"/annotate-work/{name}" for name in ("judge", "skip", "flag", "renew", "release", "draft", "reopen", "history")),
    *(f"/arena-work/{name}" for name in ("vote", "go_on", "end", "listen")),
]


@pytest.mark.parametrize("who", ["Bob", "Lea", "Ada"])
def test_the_ids_of_another_person_are_of_no_use(fresh: World, who: str) -> None:
    """Not even to a lead, on the annotators' page."""
    before = fresh.contents()
    assert list(with_ids_of(fresh, "Vera")) == ATTACKED
    for call, message in with_ids_of(fresh, "Vera").items():
        reply = fresh.call(call, who, **message)
        assert reply.refused, call
        assert "of Vera" not in reply.text
        assert fresh.contents() == before, call


def test_a_task_that_was_taken_back_keeps_its_draft_for_whoever_wrote_it(fresh: World) -> None:
    lost = {"lease_id": fresh.known("Vera")["lease"]}
    draft = {**lost, "content": {"at": 9, "reason": "words of Vera"}}
    assert not fresh.call("/lead-work/take_back", "Lea", **lost).refused
    assert "zurückgenommen" in fresh.call("/annotate-work/draft", "Vera", **draft).json["lost"]
    before = fresh.contents()
    for who in ("Bob", "Lea"):
        assert fresh.call("/annotate-work/draft", who, **{**draft, "content": {"at": 10, "reason": "mine"}}).refused
    assert fresh.call("/annotate-work/renew", "Vera", **lost).refused
    assert fresh.contents() == before
    assert "words of Vera" not in fresh.call("/annotate-work/next", "Lea").text


NEED_MORE = {"/arena-work/go_on", "/arena-work/listen"}
"""Need a vote first, or a turn that nobody answered yet."""


@pytest.mark.parametrize("call", sorted(set(ATTACKED) - NEED_MORE))
def test_the_same_message_is_right_for_its_owner(fresh: World, call: str) -> None:
    """So that the test above attacks what can be done."""
    assert not fresh.call(call, "Vera", **with_ids_of(fresh, "Vera")[call]).refused


@pytest.mark.parametrize("call", [*BOARD_CALLS, *LEAD_CALLS])
@pytest.mark.parametrize("forged", ["annotator_id", "annotator", "by", "lead", "role", "session_hash", "project"])
def test_who_asks_is_never_taken_from_the_message(world: World, call: str, forged: str) -> None:
    if forged in message_of(call).model_fields:
        return
    watch = Watch(world)
    reply = world.call(call, actor_of(call), **{forged: world.id_of("Vera")})
    assert reply.status == 422
    assert not watch.wrote()


def test_who_asks_is_never_taken_from_a_header(fresh: World) -> None:
    bearer = b"Bearer " + fresh.tokens["Ada"].encode()
    headers = [(name, b"Ada") for name in (b"x-user", b"x-forwarded-user", b"remote-user", b"x-role")]
    for given in ([], [(b"authorization", bearer)], [(b"authorization", b"Basic QWRhOmE=")]):
        assert fresh.ask("/session", method="GET", headers=[*headers, *given]).json == {"name": None, "role": None}
        assert fresh.ask("/people/create", b"{}", kind=JSON, headers=[*headers, *given]).status == 401
    api = [(b"cookie", f"{COOKIE}={fresh.tokens['api']}".encode())]
    assert fresh.ask("/annotate-work/next", b"{}", kind=JSON, headers=api).status == 401
    session = [(b"authorization", b"Bearer " + fresh.tokens["Ada"].encode())]
    assert fresh.ask("/api/v1/progress", method="GET", headers=session).status == 401


def test_a_role_that_was_taken_away_is_gone_with_the_next_call(fresh: World) -> None:
    assert fresh.call("/lead-work/queue", "Lea").status == 200
    fresh.accounts.set_role(fresh.id_of("Lea"), "annotator")
    assert fresh.call("/lead-work/queue", "Lea").status == 403
    assert fresh.ask("/lead-work/export/csv", method="GET", who="Lea").status == 403
    assert fresh.ask("/lead/config", method="GET", who="Lea").status == 401


def test_sessions_that_ended_are_none(fresh: World) -> None:
    sessions = LoginSessions(fresh.service.store, accounts=True)
    old = fresh.tokens["Bob"]
    sessions.end(old)
    assert fresh.call("/annotate-work/next", "Bob").status == 401
    fresh.sign_in("Bob")
    assert fresh.tokens["Bob"] != old
    assert fresh.call("/annotate-work/next", "Bob").status == 200
    fresh.accounts.deactivate(fresh.id_of("Bob"))
    assert fresh.call("/annotate-work/next", "Bob").status == 401


def test_what_is_of_another_project_is_out_of_reach(fresh: World) -> None:
    """Bob's own task and answer there, named in the app of this project."""
    other = PreferenceService(fresh.service.store, project="other")
    other.add_tasks([replace(new_task("elsewhere", 2), project="other"), replace(new_task("too", 2), project="other")])
    work: Any = other.lease_next(fresh.id_of("Bob"))
    ranking = {card.response_id: 1 for card in work.cards}
    answer = other.judge(work.lease_id, fresh.id_of("Bob"), ranking, idempotency_key="k")
    lease: Any = other.lease_next(fresh.id_of("Bob"))
    before = fresh.contents()
    for action in ("renew", "release"):
        assert fresh.call(f"/annotate-work/{action}", "Bob", lease_id=lease.lease_id).refused
    assert fresh.call("/annotate-work/reopen", "Bob", answer_id=answer).refused
    assert fresh.call("/lead-work/take_back", "Lea", lease_id=lease.lease_id).refused
    for action in ("reopen", "keep_closed", "make_gold", "restrict"):
        assert fresh.call(f"/lead-work/{action}", "Lea", task_id=work.task_id).refused
    for change in ({"priority": 1}, {"pool": "experts"}, {"everybody": True}, {"priority": 1, "everybody": True}):
        assert fresh.call("/lead-work/place", "Lea", task_id=work.task_id, **change).refused
    assert fresh.contents() == before


# -- Gradio's own routes, where State, hidden components and private handlers could be forged -----------------------

FORGED = (
    "queue/join",
    "queue/join/",
    "queue/data",
    "queue/data?session_hash=abc",
    "queue/status",
    "run/predict",
    "run/0",
    "api/predict",
    "api/predict/",
    "call/predict",
    "call/v2/predict",
    "component_server",
    "upload",
    "reset",
    "cancel",
    "stream/abc/0/0/playlist.m3u8",
    "heartbeat/abc",
    "info",
    "startup-events",
    "app_id",
    "dev/reload",
    "vibe-editor/",
    "mcp/sse",
)
EVENT = {
    "fn_index": 0,
    "data": ["forged", {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}],
    "session_hash": "of-vera",
    "event_id": "1",
    "trigger_id": 1,
    "username": "Ada",
}


@pytest.mark.parametrize("who", [None, "Bob", "Lea", "Ada"])
@pytest.mark.parametrize("page", PAGES)
def test_forged_events_reach_no_handler(world: World, page: str, who: str | None) -> None:
    """Whoever asks: no page has an event handler, and where there is none the guard lets none of these through."""
    for route in FORGED:
        path, _, query = route.partition("?")
        between = ("/gradio_api/", "//gradio_api/", "/./gradio_api/", "/")
        for prefix in (*(f"/{page}{one}" for one in between), "/gradio_api/"):
            for index in (0, -1, "next"):
                event = json.dumps({**EVENT, "fn_index": index}).encode()
                reply = world.ask(f"{prefix}{path}", event, who=who, kind=JSON, query=query.encode())
                assert reply.status in (404, 405), (prefix, route)


def test_no_page_has_handlers_state_or_hidden_parts(world: World) -> None:
    assert gradio_pages(world.app) == dict.fromkeys((f"/{page}" for page in PAGES), False)
    for page in PAGES:
        config = world.ask(f"/{page}/config", method="GET", who="Lea").json
        assert config["dependencies"] == []
        assert {part["type"] for part in config["components"]} <= {"html", "sidebar"}
        assert all(part["props"].get("visible", True) for part in config["components"])
        assert not {"Bob", "Vera", "Ada"} & set(str(config).replace('"', " ").replace("'", " ").split())
        assert not any(name in str(config) for name in ("policy-", "sft", "dpo"))


@pytest.mark.parametrize("page", PAGES)
def test_a_page_s_description_is_for_those_who_may_open_it(world: World, page: str) -> None:
    statuses = {who: world.ask(f"/{page}/config", method="GET", who=who).status for who in (None, "Bob", "Lea")}
    assert statuses == {None: 401, "Bob": 401 if page == "lead" else 200, "Lea": 200}


def test_what_others_said_is_in_no_answer_to_an_annotator(world: World) -> None:
    """Neither names, nor sources, nor purposes, nor what others judged."""
    read = ("next", "history", "guideline", "state", "draw")
    told = [world.call(call, "Bob").text for call in BOARD_CALLS if call.rpartition("/")[2] in read]
    told += [world.ask(f"/{page}/config", method="GET", who="Bob").text for page in ("annotate", "arena")]
    assert any("question" in text for text in told)
    for text in (one.replace("no_reason_adjudication", "") for one in told):  # words that every page has
        assert not any(secret in text for secret in ("Vera", "policy-", "gold", "repeat", "adjudication", "sft", "dpo"))
