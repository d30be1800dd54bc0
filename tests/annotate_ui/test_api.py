"""The token API and the leads' downloads: who gets what, and that nobody else gets anything."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import select

from annotate_ui.api import BURST, Limiter, add_api
from annotate_ui.app import build_app
from annotate_ui.setup import Setup
from plumbline.errors import StoreError
from plumbline.preferences.account_tables import ApiToken, AuditEntry
from plumbline.preferences.accounts import Accounts
from plumbline.preferences.exporters import EXPORTERS
from plumbline.preferences.records import NewJudgement
from plumbline.preferences.service import PreferenceService
from plumbline.preferences.store import Store
from plumbline.preferences.tokens import Tokens
from plumbline.recipe_annotate import AnnotateSection
from tests.annotate_ui.conftest import new_task
from tests.cheap_passwords import cheap_passwords
from tests.postgres import new_database, postgres_server

BASE = "http://127.0.0.1:7860"
PASSWORD = "a long pass phrase"


class Clock:
    def __init__(self) -> None:
        self.now = datetime(2026, 3, 1, 9, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def filled(service: PreferenceService, clock: Clock) -> PreferenceService:
    service = PreferenceService(service.store, project="support", clock=clock)
    service.add_tasks([new_task(f"question {number}") for number in range(5)])
    for name in ("Ada", "Bob"):
        who = service.sign_in(name).annotator_id
        for _ in range(2):
            work: Any = service.lease_next(who)
            ranking = {card.response_id: card.position + 1 for card in work.cards}
            service.judge(work.lease_id, who, ranking, idempotency_key=work.lease_id, reason="because")
    return service


@pytest.fixture
def client(filled: PreferenceService) -> Iterator[TestClient]:
    app = build_app(filled, Setup("Support"))
    with TestClient(app, base_url=BASE) as one:
        yield one


@pytest.fixture
def bearer(filled: PreferenceService, clock: Clock) -> dict[str, str]:
    token = Tokens(filled.store, project="support", clock=clock).add("dashboard", days=30)
    return {"Authorization": f"Bearer {token}"}


def lines(response: Any) -> list[Any]:
    assert response.status_code == 200, response.text
    return [json.loads(line) for line in response.text.splitlines()]


def test_progress_names_nobody(client: TestClient, bearer: dict[str, str]) -> None:
    said = client.get("/api/v1/progress", headers=bearer).json()
    assert (said["project"], said["done"], said["required"]) == ("support", 4, 5)
    assert list(said["by_annotator"].values()) == [2, 2]
    assert not {"Ada", "Bob"} & set(said["by_annotator"])


def test_judgements_come_in_pages_without_gaps(client: TestClient, bearer: dict[str, str], filled: Any) -> None:
    first = lines(client.get("/api/v1/judgements?limit=3", headers=bearer))
    rest = lines(client.get(f"/api/v1/judgements?cursor={first[-1]['cursor']}", headers=bearer))
    assert [len(first), len(rest)] == [3, 1]
    assert {row["judgement_id"] for row in first + rest} == {one.judgement_id for one in filled.judgements()}
    assert all(row["annotator"].startswith("annotator-") for row in first + rest)
    assert lines(client.get(f"/api/v1/judgements?cursor={rest[-1]['cursor']}", headers=bearer)) == []
    assert lines(client.get("/api/v1/judgements?cursor=3", headers=bearer)) == rest  # as cursors were once


def test_a_judgement_that_became_a_skip_is_withdrawn(client: TestClient, bearer: Any, filled: Any) -> None:
    *_, last = lines(client.get("/api/v1/judgements", headers=bearer))
    bob = filled.sign_in("Bob").annotator_id
    again = filled.reopen_last(bob)
    filled.skip(again.lease_id, bob, reason="cannot-judge", idempotency_key="skip")
    again = filled.reopen_last(bob)
    ranking = {card.response_id: card.position + 1 for card in again.cards}
    now = filled.judge(again.lease_id, bob, ranking, idempotency_key="judged after all", reason="because")
    withdrawn, judged = lines(client.get(f"/api/v1/judgements?cursor={last['cursor']}", headers=bearer))
    assert withdrawn == {"cursor": withdrawn["cursor"], "withdrawn": True, "supersedes": last["judgement_id"]}
    assert (judged["judgement_id"], judged["supersedes"]) == (now, last["judgement_id"])
    assert lines(client.get(f"/api/v1/judgements?cursor={withdrawn['cursor']}", headers=bearer)) == [judged]


def test_a_judgement_keeps_its_own_origin_where_its_task_was_sampled(client: Any, bearer: Any, filled: Any) -> None:
    filled.take([NewJudgement(replace(new_task("question 0"), origin="import:hh"), (1, 2, 3, 4), "hh", key="k")])
    by_api = lines(client.get("/api/v1/judgements", headers=bearer))
    exported = lines(client.get("/api/v1/export/rankings", headers=bearer))
    origins = {row["judgement_id"]: row["origin"] for row in by_api}
    assert sorted(origins.values()) == ["import:hh", *["sample"] * 4]
    assert {row["judgement_id"]: row["origin"] for row in exported} == origins


@pytest.mark.parametrize("format", sorted(set(EXPORTERS) - {"flags", "demonstrations"}))
def test_every_format_can_be_downloaded(client: TestClient, bearer: dict[str, str], format: str, filled: Any) -> None:
    response = client.get(f"/api/v1/export/{format}", headers=bearer)
    assert response.status_code == 200
    assert response.headers["content-disposition"].startswith(f'attachment; filename="support.{format}.')
    assert response.headers["x-content-type-options"] == "nosniff"
    assert "Ada" not in response.text
    with filled.store.read() as connection:
        entry = connection.execute(select(AuditEntry.__table__).where(AuditEntry.action == "export")).one()
    assert (entry.details["format"], entry.actor) == (format, "token:1")


@pytest.mark.parametrize("path", ["/api/v1/progress", "/api/v1/judgements", "/api/v1/export/trl", "/api/v1/nothing"])
def test_without_a_token_there_is_nothing(client: TestClient, path: str) -> None:
    client.post("/sign-in", data={"name": "Ada"})  # a session is no token
    for headers in (
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Basic YTpi"},
        {"Authorization": "Bearer"},
    ):
        refused = client.get(path, headers=headers)
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"] == "Bearer"
        assert set(refused.json()) == {"error"}


def test_tokens_of_others_expired_and_revoked_ones(client: TestClient, filled: Any, clock: Clock) -> None:
    other = Tokens(filled.store, project="other", clock=clock).add("x")
    mine = Tokens(filled.store, project="support", clock=clock)
    short, gone = mine.add("short", days=1), mine.add("gone")
    mine.revoke("gone")
    clock.now += timedelta(days=2)

    def asked(token: str) -> tuple[int, str]:
        response = client.get("/api/v1/progress", headers={"Authorization": f"Bearer {token}"})
        return response.status_code, response.json()["error"]

    assert asked(other) == (403, "this token is for another project.")
    assert asked(short) == (401, "this token is expired.")
    assert asked(gone) == (401, "this token is revoked.")
    assert [token.state for token in mine.all()] == ["expired", "revoked"]
    with pytest.raises(StoreError, match="no active token 'gone'"):
        mine.revoke("gone")


def test_only_a_digest_is_kept_and_its_use_is_noted_once_a_minute(client: Any, filled: Any, clock: Clock) -> None:
    tokens = Tokens(filled.store, project="support", clock=clock)
    token = tokens.add("dashboard")
    with pytest.raises(StoreError, match="active token 'dashboard'"):
        tokens.add("dashboard")
    with filled.store.read() as connection:
        row = connection.execute(select(ApiToken.__table__)).one()
        log = str(connection.execute(select(AuditEntry.__table__)).all())
    assert token not in str(row)
    assert len(row.token_digest) == 64
    assert token not in log
    assert row.token_digest not in log
    used = []
    for seconds in (0, 30, 31):
        clock.now += timedelta(seconds=seconds)
        client.get("/api/v1/progress", headers={"Authorization": f"Bearer {token}"})
        used.append(tokens.all()[0].used_at)
    assert used[0] == used[1]
    assert used[2] == clock.now


def test_unknown_addresses_and_other_methods(client: TestClient, bearer: dict[str, str]) -> None:
    missing = client.get("/api/v1/judgments", headers=bearer)
    assert (missing.status_code, set(missing.json())) == (404, {"error"})
    assert client.get("/api/v1/export/xml", headers=bearer).status_code == 404
    for method in ("post", "put", "delete", "patch"):
        assert getattr(client, method)("/api/v1/progress", headers=bearer).status_code in (403, 404, 405)
    answered = client.get("/api/v1/progress", headers={**bearer, "Origin": "https://elsewhere.example"})
    assert not [name for name in answered.headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("judgements?cursor=-1", 422, "send that of the last line as it was"),
        ("judgements?limit=99999999", 422, "limit: "),
        ("export/trl?split=foo", 422, "split: "),
        ("export/demonstrations", 404, "nothing to export"),
    ],
)
def test_errors_are_json_of_one_shape(client: TestClient, bearer: Any, path: str, status: int, said: str) -> None:
    refused = client.get(f"/api/v1/{path}", headers=bearer)
    assert (refused.status_code, set(refused.json())) == (status, {"error"})
    assert said in refused.json()["error"]
    posted = client.post("/api/v1/progress", headers=bearer)
    assert (posted.status_code, posted.json()) == (405, {"error": "Method Not Allowed."})
    assert "detail" in client.post("/favicon.ico").json()  # which is none of the API's


def test_the_figures_of_quality_name_nobody(client: TestClient, bearer: dict[str, str]) -> None:
    answer = client.get("/api/v1/quality", headers=bearer)
    assert [person["judged"] for person in answer.json()["people"]] == [2, 2]
    assert "Ada" not in answer.text and "Bob" not in answer.text


@pytest.mark.parametrize("path", ["judgements", "export/rankings", "quality"])
def test_names_are_a_right_of_the_token(
    client: TestClient, bearer: dict[str, str], filled: PreferenceService, clock: Clock, path: str
) -> None:
    refused = client.get(f"/api/v1/{path}?names=true", headers=bearer)
    assert refused.status_code == 403
    assert "plumbline tokens add … --names" in refused.json()["error"]
    token = Tokens(filled.store, project="support", clock=clock).add("payroll", names=True)
    named = {"Authorization": f"Bearer {token}"}
    for headers, query, told in ((bearer, "", False), (named, "", False), (named, "?names=true", True)):
        answer = client.get(f"/api/v1/{path}{query}", headers=headers)
        assert answer.status_code == 200
        assert ("Ada" in answer.text, "Bob" in answer.text) == (told, told)


def test_why_somebody_is_paused_is_for_those_who_may_read_names(
    client: TestClient, bearer: dict[str, str], filled: PreferenceService, clock: Clock
) -> None:
    ada = filled.sign_in("Ada").annotator_id
    filled.control.pause(ada, "Ask Lea about your absence.")
    answer = client.get("/api/v1/quality", headers=bearer)
    assert "absence" not in answer.text
    (person,) = (one for one in answer.json()["people"] if one["paused"])
    assert (person["paused"], person["notes"][0]) == ("paused", "paused")
    token = Tokens(filled.store, project="support", clock=clock).add("payroll", names=True)
    named = client.get("/api/v1/quality?names=true", headers={"Authorization": f"Bearer {token}"})
    assert "Ask Lea about your absence." in named.text


def test_quality_is_what_the_app_gives(filled: PreferenceService, bearer: dict[str, str]) -> None:
    app = FastAPI()
    add_api(app, filled, quality=lambda names: {"agreement": None})
    assert TestClient(app).get("/api/v1/quality", headers=bearer).json() == {"agreement": None}


def test_a_token_that_asks_too_often_has_to_wait(client: TestClient, bearer: dict[str, str]) -> None:
    answers = (client.get("/api/v1/nothing", headers=bearer) for _ in range(10 * BURST))
    refused = next(one for one in answers if one.status_code != 404)
    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) >= 1


@pytest.mark.postgres
def test_several_processes_on_postgresql_have_one_limit(clock: Clock) -> None:
    with postgres_server() as folder:
        address = new_database(folder)
        stores = [Store.open(address) for _ in range(2)]
        PreferenceService(stores[0], project="support", clock=clock).add_tasks([new_task("a question")])
        token = Tokens(stores[0], project="support", clock=clock).add("dashboard")
        clients = []
        for store in stores:
            app = FastAPI()
            add_api(app, PreferenceService(store, project="support", clock=clock))
            clients.append(TestClient(app, headers={"Authorization": f"Bearer {token}"}))
        answers = [clients[number % 2].get("/api/v1/nothing") for number in range(2 * BURST)]
        for store in stores:
            store.close()
    assert [one.status_code for one in answers] == [404] * BURST + [429] * BURST
    assert int(answers[-1].headers["retry-after"]) == 1


def test_the_limit_lets_through_so_many_a_minute() -> None:
    now = [0.0]
    limiter = Limiter(60, 3, clock=lambda: now[0])
    assert [limiter.wait(1) for _ in range(4)] == [0, 0, 0, 1]
    assert limiter.wait(2) == 0
    now[0] = 1.0
    assert [limiter.wait(1), limiter.wait(1)] == [0, 1]


def test_a_download_that_is_broken_off_is_in_the_log_with_what_was_sent(
    filled: PreferenceService, bearer: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("plumbline.preferences.exporters.stream.CHUNK", 1)  # a chunk for each row
    app = FastAPI()
    add_api(app, filled)
    whole = TestClient(app).get("/api/v1/export/rankings", headers=bearer).content.splitlines(keepends=True)
    asyncio_apart(lambda: leave_after(app, "/api/v1/export/rankings", bearer, chunks=2))
    with filled.store.read() as connection:
        entries = connection.execute(select(AuditEntry.__table__).order_by(AuditEntry.id)).all()
    ended, left = (entry for entry in entries if entry.action.startswith("export"))
    assert (ended.action, ended.details["rows"], len(whole)) == ("export", 4, 4)
    assert (left.action, left.actor) == ("export broken off", "token:1")
    assert (left.details["rows"], left.details["bytes"]) == (2, len(b"".join(whole[:2])))


async def leave_after(app: FastAPI, path: str, headers: dict[str, str], *, chunks: int) -> None:
    """Ask for a page and go away when so many chunks have come."""
    gone = asyncio.Event()
    came = 0

    async def receive() -> dict[str, Any]:
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        nonlocal came
        came += bool(message.get("body"))
        if came == chunks:
            gone.set()
            await asyncio.sleep(60)  # what is sent now arrives nowhere

    scope = {
        "type": "http",
        "method": "GET",
        "path": path,
        "query_string": b"",
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
    }
    await app(scope, receive, send)


def asyncio_apart(call: Any) -> None:
    """Run a coroutine in a thread of its own: Playwright's loop may run in this one."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, call()).result()


def test_leads_download_and_annotators_do_not(filled: PreferenceService, clock: Clock) -> None:
    accounts = Accounts(filled.store, clock=clock, passwords=cheap_passwords())
    for name, role in (("Lea", "lead"), ("Ada", "annotator"), ("Root", "admin")):
        accounts.create(name, role, password=PASSWORD)
    settings = AnnotateSection(accounts=True)
    app = build_app(filled, Setup("Support"), settings=settings, accounts=accounts)
    statuses = {}
    for name in ("nobody", "Ada", "Lea", "Root"):
        with TestClient(app, base_url=BASE) as browser:
            if name != "nobody":
                browser.post("/sign-in", data={"name": name, "password": PASSWORD})
            answers = [
                browser.get(f"/lead-work/export/{path}") for path in ("trl", "label_studio/setup", "trl/setup", "xml")
            ]
            statuses[name] = [one.status_code for one in answers]
    assert statuses == {
        "nobody": [401] * 4,
        "Ada": [403] * 4,
        "Lea": [200, 200, 404, 404],
        "Root": [200, 200, 404, 404],
    }
    assert answers[0].headers["content-disposition"] == 'attachment; filename="support.trl.jsonl"'
    assert answers[0].headers["cache-control"] == "no-store"
    assert len(answers[0].text.splitlines()) == 4 * 6
    assert '<Ranker name="rank"' in answers[1].text


def test_a_download_of_nothing_says_so(service: PreferenceService) -> None:
    with TestClient(build_app(service, Setup("Support")), base_url=BASE) as browser:
        browser.post("/sign-in", data={"name": "Lea"})
        refused = browser.get("/lead-work/export/trl?people_only=true")
        assert refused.status_code == 404
        assert "nothing to export" in refused.text
