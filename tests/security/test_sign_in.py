"""Guessing passwords and names, planted and forged sessions, as somebody does it from outside.

What the throttle counts is in `tests/preferences/test_accounts.py`, the cookie's flags in `test_signin.py`.
"""

from __future__ import annotations

import re
from urllib.parse import quote

import pytest

from plumbline.preferences.login_sessions import LoginSessions, digest_of
from tests.cheap_passwords import PASSWORD
from tests.security.conftest import BASE, COOKIE, FORM, Reply, World


def try_in(world: World, name: str, password: str, client: str, **more: object) -> Reply:
    """A sign-in from an address."""
    return world.form("/sign-in", fields={"name": name, "password": password}, client=client, **more)


def test_many_passwords_of_one_name_are_throttled_wherever_they_come_from(fresh: World) -> None:
    """Gradio checks 200 wrong passwords in 0.3 s (research 3b)."""
    found = [try_in(fresh, "Ada", f"guess {number}", f"198.51.{number}.7").status for number in range(60)]
    assert found == [401] * 5 + [429] * 55
    assert try_in(fresh, "Ada", PASSWORD, "198.51.99.7").status == 429  # else the right one would tell itself
    assert try_in(fresh, "Vera", PASSWORD, "198.51.99.7").status == 303


@pytest.mark.parametrize("hidden", ["\0", "\ud800", " ", "\t", "\u00a0", "\u200b", "\ufeff", "\u0301"])
def test_signs_that_nobody_sees_in_a_name_are_no_way_around_the_throttle(fresh: World, hidden: str) -> None:
    """A name with them is another name, or counts as the same."""
    places = [f"{'Ada'[:place]}{hidden * (1 + number)}{'Ada'[place:]}" for number in range(5) for place in range(4)]
    opened = []
    for number, name in enumerate(places):
        given = quote(name, errors="surrogatepass").encode()
        body = b"name=" + given + b"&password=" + (b"wrong" if number < 12 else quote(PASSWORD).encode())
        reply = fresh.ask("/sign-in", body, kind=FORM, client=f"198.51.101.{number}")
        opened += [name] if reply.status == 303 else []
    assert opened == []


def test_many_names_from_one_address_are_throttled(fresh: World) -> None:
    found = [try_in(fresh, f"name {number}", "password1234", "198.51.100.9").status for number in range(60)]
    assert found[:20] == [401] * 20 and set(found[20:]) == {429}
    assert try_in(fresh, "Vera", PASSWORD, "198.51.100.9").status == 429
    assert try_in(fresh, "Vera", PASSWORD, "198.51.100.10").status == 303


@pytest.mark.parametrize("header", ["x-forwarded-for", "forwarded", "x-real-ip", "client-ip", "cf-connecting-ip"])
def test_an_address_cannot_be_made_up(fresh: World, header: str) -> None:
    """Without a proxy in the recipe no header names a client; `server_config` is tested in `test_workers.py`."""
    found = []
    for number in range(30):
        made_up = [(header.encode(), f"for=10.0.0.{number}, 10.1.0.{number}".encode())]
        found.append(try_in(fresh, f"name {number}", "wrong", "198.51.100.11", headers=made_up).status)
    assert found[20:] == [429] * 10


def test_the_answer_tells_not_which_names_there_are(fresh: World) -> None:
    fresh.accounts.create("Nora")  # has no password yet
    fresh.accounts.create("Carl", password=PASSWORD)
    fresh.accounts.deactivate(fresh.id_of("Carl"))
    told = set()
    for place, (name, password) in enumerate(
        [
            ("Bob", "wrong"),
            ("Nobody", "wrong"),
            ("Carl", PASSWORD),
            ("Nora", ""),
            ("Bob\0", PASSWORD),
            ("B ob", PASSWORD),
        ]
    ):
        reply = try_in(fresh, name, password, f"198.51.100.{50 + place}")
        headers = [header for header in reply.headers if header[0] != "content-length"]
        told.add((reply.status, str(headers), re.sub(r'value="[^"]*"', "", reply.text)))
    assert len(told) == 1


def test_wrong_passwords_of_one_s_own_account_are_throttled_too(fresh: World) -> None:
    """Whoever found an open browser cannot try out its owner's password."""
    fields = {"current": "wrong", "new": "nine green lanterns", "again": "nine green lanterns"}
    found = [fresh.form("/account/password", "Bob", fields=fields, client="198.51.100.70").status for _ in range(12)]
    assert found == [400] * 5 + [429] * 7


def test_signing_in_takes_no_session_that_was_planted(fresh: World) -> None:
    for planted in (fresh.tokens["Bob"], "a" * 43, "", "…"):
        cookie = [(b"cookie", f"{COOKIE}={planted}".encode())]
        reply = try_in(fresh, "Vera", PASSWORD, "198.51.100.80", headers=cookie)
        given = re.fullmatch(rf"{COOKIE}=([\w-]{{43}}); HttpOnly; Path=/; SameSite=lax", reply.header("set-cookie"))
        assert given and given[1] != planted
        fresh.tokens["given"] = given[1]
        assert fresh.ask("/session", method="GET", who="given").json["name"] == "Vera"
        assert fresh.ask("/session", method="GET", headers=cookie).json["name"] is None  # whoever planted it is nobody


def test_cookies_of_another_scheme_port_or_name_are_no_session(fresh: World) -> None:
    token = fresh.tokens["Ada"]
    for name in (
        f"__Host-{COOKIE}",
        "plumbline_session_7861",
        "plumbline_session_default",
        COOKIE.upper(),
        "access-token",
    ):
        cookie = [(b"cookie", f"{name}={token}".encode())]
        assert fresh.ask("/session", method="GET", headers=cookie).json["name"] is None
    plain = [(b"cookie", f"{COOKIE}={token}".encode())]
    assert fresh.ask("/session", method="GET", headers=plain, scheme="https").json["name"] is None


def test_what_the_store_keeps_of_a_session_opens_nothing(fresh: World) -> None:
    """Whoever reads the database has no session: digests are none, nor are those of the other kind."""
    ((kept,),) = fresh.table("SELECT token_digest FROM login_sessions ORDER BY id LIMIT 1")
    by_name = LoginSessions(fresh.service.store, accounts=False).start(fresh.id_of("Ada"))
    password = fresh.table("SELECT password FROM accounts LIMIT 1")[0][0]
    for forged in (kept, by_name, digest_of(fresh.tokens["Ada"], accounts=True), password, "' OR 1=1 --"):
        cookie = [(b"cookie", f"{COOKIE}={forged}".encode())]
        assert fresh.ask("/session", method="GET", headers=cookie).json["name"] is None
    assert password.startswith("$argon2id$") and PASSWORD not in str(fresh.contents())
    assert fresh.tokens["Ada"] not in str(fresh.contents())


def test_the_cookie_is_secure_over_https(fresh: World) -> None:
    origin = [(b"origin", BASE.replace("http", "https").encode())]
    reply = try_in(fresh, "Vera", PASSWORD, "198.51.100.90", headers=origin, scheme="https")
    assert re.fullmatch(
        rf"__Host-{COOKIE}=[\w-]{{43}}; HttpOnly; Path=/; SameSite=lax; Secure", reply.header("set-cookie")
    )
    assert reply.header("strict-transport-security").startswith("max-age=")
