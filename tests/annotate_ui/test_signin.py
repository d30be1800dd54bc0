"""Signing in over HTTP, with and without accounts; attacks on sessions and accounts."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fastapi.testclient import TestClient

from annotate_ui.app import build_app
from annotate_ui.calls import NOT_YOURS
from annotate_ui.setup import Setup
from plumbline.errors import StoreUnavailable
from plumbline.preferences.accounts import ADMIN, ANNOTATOR, LEAD, Accounts
from plumbline.preferences.login_sessions import LoginSessions
from plumbline.preferences.service import PreferenceService
from plumbline.preferences.store import Store
from plumbline.recipe_annotate import AnnotateSection
from tests.annotate_ui.conftest import new_task
from tests.cheap_passwords import PASSWORD, cheap_passwords

BASE = "http://127.0.0.1:7860"
SAME = {"origin": BASE}
COOKIE = "plumbline_session_7860"
OTHER = "nine green lanterns"

Open = Callable[..., TestClient]


class Clock:
    """A clock that stands still until a test moves it ahead."""

    def __init__(self) -> None:
        self.start, self.ahead = datetime(2026, 3, 1, 9, 0, tzinfo=UTC), timedelta(0)

    def __call__(self) -> datetime:
        return self.start + self.ahead


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def service(store: Store, clock: Clock) -> PreferenceService:
    service = PreferenceService(store, project="support", clock=clock)
    service.add_tasks([new_task("first"), new_task("second")])
    return service


@pytest.fixture
def accounts(service: PreferenceService, clock: Clock) -> Accounts:
    made = Accounts(service.store, clock=clock, passwords=cheap_passwords())
    for name, role in (("Ada", ADMIN), ("Lea", LEAD), ("Bob", ANNOTATOR)):
        made.create(name, role, password=PASSWORD)
    return made


@pytest.fixture
def app(service: PreferenceService, accounts: Accounts) -> Any:
    return build_app(service, Setup("Support"), settings=AnnotateSection(accounts=True), accounts=accounts)


@pytest.fixture
def open_client(app: Any) -> Iterator[Open]:
    """Browsers of their own, signed in where a name is given."""
    clients: list[TestClient] = []

    def open_as(name: str | None = None, password: str = PASSWORD, **options: Any) -> TestClient:
        client = TestClient(app, **{"base_url": BASE, "headers": SAME, **options})
        clients.append(client)
        if name:
            client.post("/sign-in", data={"name": name, "password": password})
        return client

    yield open_as
    for client in clients:
        client.close()


def who(client: TestClient) -> str | None:
    return client.get("/session").json()["name"]


def id_of(accounts: Accounts, name: str) -> str:
    return accounts.named(name).annotator_id


# -- in and out ----------------------------------------------------------------------------------------------------


def test_name_and_password_lead_to_the_work(open_client: Open) -> None:
    client = open_client()
    assert 'type="password"' in client.get("/").text
    answer = client.post("/sign-in", data={"name": "Bob", "password": PASSWORD}, follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/annotate/")
    assert client.get("/session").json() == {"name": "Bob", "role": "annotator"}
    assert "html" in client.post("/annotate-work/next", json={}).json()


@pytest.mark.parametrize("name", ["Lea", "Ada"])
def test_leads_and_admins_come_to_their_own_page_and_take_no_task(
    open_client: Open, service: PreferenceService, name: str
) -> None:
    client = open_client()
    answer = client.post("/sign-in", data={"name": name, "password": PASSWORD}, follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/lead/")
    assert client.get("/", follow_redirects=False).headers["location"] == "/lead/"
    assert client.get("/lead/").status_code == 200
    assert not service.control.held()


def test_a_wrong_password_says_so_and_keeps_the_name(open_client: Open) -> None:
    client = open_client()
    answer = client.post("/sign-in", data={"name": "Bob", "password": "wrong"})
    assert answer.status_code == 401
    assert "Name or password is wrong." in answer.text
    assert 'value="Bob"' in answer.text
    assert "wrong" not in re.sub(r"is wrong\.", "", answer.text)  # what was typed as password is not sent back
    assert answer.headers["cache-control"] == "no-store"
    assert who(client) is None


def test_400_wrong_passwords_get_429_and_the_right_one_waits_too(open_client: Open, clock: Clock) -> None:
    client = open_client()
    found = [client.post("/sign-in", data={"name": "Bob", "password": f"guess {n}"}).status_code for n in range(400)]
    assert found == [401] * 5 + [429] * 395
    answer = client.post("/sign-in", data={"name": "Bob", "password": PASSWORD})
    assert answer.status_code == 429
    assert 1 <= int(answer.headers["retry-after"]) <= 5
    assert "Too many wrong passwords: wait" in answer.text
    clock.ahead += timedelta(seconds=6)
    client.post("/sign-in", data={"name": "Bob", "password": PASSWORD})
    assert who(client) == "Bob"


def test_names_are_shown_as_text(open_client: Open) -> None:
    attack = '"><script>alert(1)</script>'
    answer = open_client().post("/sign-in", data={"name": attack, "password": "x"})
    assert "<script>" not in answer.text


def test_signing_out_ends_the_session_for_whoever_has_the_cookie(open_client: Open) -> None:
    client = open_client("Bob")
    stolen = client.cookies[COOKIE]
    client.post("/sign-out")
    thief = open_client()
    thief.cookies.set(COOKIE, stolen)
    assert who(thief) is None
    assert thief.post("/annotate-work/next", json={}).status_code == 401


def test_forged_cookies_are_no_sessions(open_client: Open) -> None:
    value = open_client("Bob").cookies[COOKIE]
    for forged in (value[:-1], value + "x", value.lower(), "", ".", "…", "' OR 1=1 --", "x" * 4000):
        answer = open_client().get("/session", headers={"cookie": f"{COOKIE}={forged}".encode()})
        assert answer.json() == {"name": None, "role": None}


def test_a_session_id_set_beforehand_is_never_taken_over(open_client: Open) -> None:
    """Session fixation: neither a made-up value nor the attacker's own session becomes the victim's."""
    attacker = open_client("Bob")
    planted = attacker.cookies[COOKIE]
    for value in (planted, "made-up"):
        victim = open_client()
        victim.cookies.set(COOKIE, value, domain="127.0.0.1", path="/")
        victim.post("/sign-in", data={"name": "Lea", "password": PASSWORD})
        fresh = [cookie.value for cookie in victim.cookies.jar if cookie.name == COOKIE]
        assert value not in fresh
        knows = open_client()
        knows.cookies.set(COOKIE, value)
        assert who(knows) != "Lea"


def test_the_cookie_is_out_of_reach_for_scripts_and_other_sites(open_client: Open) -> None:
    data = {"name": "Bob", "password": PASSWORD}
    plain = open_client().post("/sign-in", data=data, follow_redirects=False).headers["set-cookie"]
    assert re.fullmatch(rf"{COOKIE}=[\w-]{{43}}; HttpOnly; Path=/; SameSite=lax", plain)
    https = open_client(base_url="https://localhost:7860", headers={"origin": "https://localhost:7860"})
    secure = https.post("/sign-in", data=data, follow_redirects=False).headers["set-cookie"]
    assert secure.startswith(f"__Host-{COOKIE}=")
    assert "; Secure" in secure
    assert "Domain" not in secure


def test_sessions_survive_a_restart(open_client: Open, service: PreferenceService, accounts: Accounts) -> None:
    client = open_client("Bob")
    again = build_app(service, Setup("Support"), settings=AnnotateSection(accounts=True), accounts=accounts)
    restarted = TestClient(again, base_url=BASE)
    restarted.cookies.update(client.cookies)
    assert who(restarted) == "Bob"


def test_sessions_end_after_session_hours(service: PreferenceService, accounts: Accounts, clock: Clock) -> None:
    settings = AnnotateSection(accounts=True, session_hours=0.5)
    app = build_app(service, Setup("Support"), settings=settings, accounts=accounts)
    client = TestClient(app, base_url=BASE, headers=SAME)
    client.post("/sign-in", data={"name": "Bob", "password": PASSWORD})
    clock.ahead = timedelta(minutes=29)
    assert who(client) == "Bob"
    clock.ahead = timedelta(minutes=31)
    assert who(client) is None


def test_a_deactivated_account_is_out_with_its_next_call(open_client: Open, accounts: Accounts) -> None:
    client = open_client("Bob")
    lease = re.search(r'data-lease="([^"]+)"', client.post("/annotate-work/next", json={}).json()["html"])
    assert lease
    accounts.deactivate(id_of(accounts, "Bob"))
    answer = client.post("/annotate-work/skip", json={"lease_id": lease[1], "key": "k", "reason": "x"})
    assert answer.status_code == 401
    assert client.get("/annotate/", follow_redirects=False).headers["location"] == "/"
    assert client.post("/sign-in", data={"name": "Bob", "password": PASSWORD}).status_code == 401


# -- without accounts ----------------------------------------------------------------------------------------------


def test_without_accounts_a_name_is_enough_and_everybody_is_lead(service: PreferenceService) -> None:
    app = build_app(service, Setup("Support"))
    client = TestClient(app, base_url=BASE, headers=SAME)
    assert 'type="password"' not in client.get("/").text
    client.post("/sign-in", data={"name": "Ada"})
    assert client.get("/session").json() == {"name": "Ada", "role": "lead"}
    assert client.post("/sign-in", data={"name": "  "}).status_code == 400
    assert client.get("/people").status_code == 404
    assert "password" not in client.get("/account").text.lower().replace("passwords", "")
    restarted = TestClient(build_app(service, Setup("Support")), base_url=BASE)
    restarted.cookies.update(client.cookies)
    assert who(restarted) == "Ada"


def test_a_session_by_name_is_none_where_passwords_are_asked_for(service: PreferenceService, open_client: Open) -> None:
    by_name = TestClient(build_app(service, Setup("Support")), base_url=BASE)
    by_name.post("/sign-in", data={"name": "Ada"})
    client = open_client()
    client.cookies.update(by_name.cookies)
    assert who(by_name) == "Ada"
    assert who(client) is None


# -- one's own account -----------------------------------------------------------------------------------------------


def test_a_one_time_password_opens_nothing_but_the_choice_of_another(open_client: Open, accounts: Accounts) -> None:
    given = accounts.issue_password(id_of(accounts, "Lea"))
    client = open_client("Lea", given)
    assert "choose one that only you know" in client.get("/").text
    assert who(client) is None
    assert client.post("/annotate-work/next", json={}).status_code == 401
    assert client.get("/annotate/config").status_code == 401
    for path in ("/annotate/", "/people", "/account"):
        assert client.get(path, follow_redirects=False).headers["location"] == "/"
    answer = client.post("/account/password", data={"new": OTHER, "again": "another one"})
    assert "differ" in answer.text
    assert who(client) is None
    client.post("/account/password", data={"new": OTHER, "again": OTHER})
    assert who(client) == "Lea"
    assert who(open_client("Lea", OTHER)) == "Lea"


def test_changing_the_password_keeps_this_browser_and_ends_the_others(open_client: Open) -> None:
    here, there = open_client("Bob"), open_client("Bob")
    before = here.cookies[COOKIE]
    wrong = {"current": "wrong", "new": OTHER, "again": OTHER}
    assert "present password is wrong" in here.post("/account/password", data=wrong).text
    weak = {"current": PASSWORD, "new": "Bob-1234567", "again": "Bob-1234567"}
    assert "is the name" in here.post("/account/password", data=weak).text
    assert who(there) == "Bob"
    answer = here.post("/account/password", data={"current": PASSWORD, "new": OTHER, "again": OTHER})
    assert "Your password is changed" in answer.text
    assert (who(here), who(there)) == ("Bob", None)
    assert here.cookies[COOKIE] != before


def test_signing_out_everywhere(open_client: Open) -> None:
    here, there, other = open_client("Bob"), open_client("Bob"), open_client("Lea")
    here.post("/account/sign-out-everywhere")
    assert [who(client) for client in (here, there, other)] == [None, None, "Lea"]


# -- other sites -----------------------------------------------------------------------------------------------------

FORMS = [
    ("/sign-in", {"name": "Ada", "password": PASSWORD}),
    ("/sign-out", {"x": "y"}),
    ("/account/password", {"current": PASSWORD, "new": OTHER, "again": OTHER}),
    ("/account/sign-out-everywhere", {"x": "y"}),
]
CALLS = [
    "/annotate-work/next",
    "/annotate-work/judge",
    "/people/create",
    "/people/deactivate",
    "/people/role",
    "/people/reset",
]


@pytest.mark.parametrize("headers", [{"origin": "http://evil.example"}, {"sec-fetch-site": "cross-site"}, {}])
def test_another_site_s_forms_change_nothing(open_client: Open, accounts: Accounts, headers: dict[str, str]) -> None:
    cookie = f"{COOKIE}={open_client('Ada').cookies[COOKIE]}"
    foreign = open_client(headers={**headers, "cookie": cookie})
    before = accounts.all()
    for path, data in FORMS:
        assert foreign.post(path, data=data).status_code == 403
    for path in CALLS:
        # A form can send JSON as text; no foreign page can send it under its own type.
        body = '{"name": "Eve", "role": "admin", "annotator_id": "' + id_of(accounts, "Bob") + '"}'
        for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
            assert foreign.post(path, content=body, headers={"content-type": kind}).status_code in (403, 415)
    assert accounts.all() == before
    assert who(foreign) == "Ada"
    accounts.sign_in("Ada", PASSWORD, address="192.0.2.1", sessions=LoginSessions(accounts.store, accounts=True))


def test_json_calls_take_no_form_type_even_from_our_own_pages(open_client: Open) -> None:
    client = open_client("Ada")
    for path in CALLS:
        for kind in ("text/plain", "application/x-www-form-urlencoded", "application/jsonx", ""):
            assert client.post(path, content="{}", headers={"content-type": kind}).status_code == 415


def test_oversized_and_odd_forms_are_refused_not_hashed(open_client: Open, monkeypatch: Any) -> None:
    client = open_client()
    assert client.post("/sign-in", data={"name": "Ada", "password": "x" * 10_000}).status_code == 413
    assert client.post("/sign-in", data={"name": "Ada", "password": "é" * 1025}).status_code == 401
    chunks = (b"name=" + b"x" * 1000 for _ in range(100))
    headers = {"content-type": "application/x-www-form-urlencoded"}
    assert client.post("/sign-in", content=chunks, headers=headers).status_code == 413
    for data in ({}, {"name": ""}, {"password": PASSWORD}, {"name": "a\0b", "password": "\0"}):
        assert client.post("/sign-in", data=data).status_code in (401, 429)


# -- the page of accounts --------------------------------------------------------------------------------------------


def admin_calls(accounts: Accounts) -> dict[str, dict[str, str]]:
    bob = {"annotator_id": id_of(accounts, "Bob")}
    return {
        "create": {"name": "Eve", "role": "admin"},
        "reset": bob,
        "role": {**bob, "role": "admin"},
        "deactivate": bob,
        "activate": bob,
    }


@pytest.mark.parametrize(("name", "status"), [("Bob", 403), ("Lea", 403), (None, 401)])
def test_only_admins_change_accounts(open_client: Open, accounts: Accounts, name: str | None, status: int) -> None:
    client, before = open_client(name), accounts.all()
    for action, message in admin_calls(accounts).items():
        answer = client.post(f"/people/{action}", json=message)
        assert answer.status_code == status
        assert answer.json()["error"] == NOT_YOURS or status == 401
        forged = client.post(f"/people/{action}", json={**message, "role": "admin", "by": id_of(accounts, "Ada")})
        assert forged.status_code == status
    assert accounts.all() == before


def test_who_sees_the_page(open_client: Open) -> None:
    assert open_client("Bob").get("/people", follow_redirects=False).headers["location"] == "/annotate/"
    assert open_client().get("/people", follow_redirects=False).headers["location"] == "/"
    lead, admin = open_client("Lea").get("/people").text, open_client("Ada").get("/people").text
    assert all(name in page for name in ("Ada", "Lea", "Bob") for page in (lead, admin))
    assert "data-do" not in lead
    assert "<select" not in lead
    assert "data-do" in admin
    assert "argon2" not in lead + admin


def test_an_admin_makes_an_account_whose_password_holds_once(open_client: Open) -> None:
    reply = open_client("Ada").post("/people/create", json={"name": "<b>Eve</b>", "role": "annotator"}).json()
    assert (reply["name"], reply["notice"]) == ("<b>Eve</b>", "<b>Eve</b> has an account.")
    assert reply["password"] not in reply["html"]
    assert "<b>" not in reply["html"]
    client = open_client("<b>Eve</b>", reply["password"])
    assert "choose one that only you know" in client.get("/").text


def test_an_admin_changes_roles_resets_closes_and_opens(open_client: Open, accounts: Accounts) -> None:
    admin, bob = open_client("Ada"), open_client("Bob")
    message = {"annotator_id": id_of(accounts, "Bob")}
    assert "a lead now" in admin.post("/people/role", json={**message, "role": "lead"}).json()["notice"]
    assert bob.get("/session").json()["role"] == "lead"
    reset = admin.post("/people/reset", json=message).json()
    assert who(bob) is None
    assert "choose one" in open_client("Bob", reset["password"]).get("/").text
    assert "closed" in admin.post("/people/deactivate", json=message).json()["html"]
    assert open_client().post("/sign-in", data={"name": "Bob", "password": reset["password"]}).status_code == 401
    assert "Open again" not in admin.post("/people/activate", json=message).json()["html"]


def test_the_only_admin_cannot_leave(open_client: Open, accounts: Accounts) -> None:
    admin, message = open_client("Ada"), {"annotator_id": id_of(accounts, "Ada")}
    for action, more in (("deactivate", {}), ("role", {"role": "lead"})):
        assert "only active admin" in admin.post(f"/people/{action}", json={**message, **more}).json()["error"]
    assert "your account" in admin.post("/people/reset", json=message).json()["error"]
    assert who(admin) == "Ada"


def test_malformed_calls_are_refused(open_client: Open, accounts: Accounts) -> None:
    admin, before = open_client("Ada"), accounts.all()
    for action, message in (
        ("role", {"annotator_id": id_of(accounts, "Bob"), "role": "owner"}),
        ("deactivate", {"annotator_id": "\0"}),
        ("deactivate", {"annotator_id": ["x"]}),
        ("deactivate", {}),
        ("create", {"name": "x" * 201}),
        ("create", {"name": "Eve", "password": PASSWORD}),
    ):
        assert admin.post(f"/people/{action}", json=message).status_code == 422
    unknown = admin.post("/people/deactivate", json={"annotator_id": "0" * 32})
    assert unknown.json()["error"] == "There is no such account."
    assert accounts.all() == before


def test_while_the_database_is_away_nobody_is_taken_for_signed_out(open_client: Open, monkeypatch: Any) -> None:
    client = open_client("Bob")

    def away(*_: Any) -> Any:
        raise StoreUnavailable("the database cannot be reached.", "the database cannot be reached")

    monkeypatch.setattr("plumbline.preferences.login_sessions.LoginSessions.read", away)
    answer = client.post("/annotate-work/next", json={})
    assert answer.status_code == 503 and "the database cannot be reached" in answer.json()["error"]
    assert client.get("/account").status_code == 503
