"""Made forms, queries, headers and paths: the app answers, tells nothing of itself, and nothing changes."""

from __future__ import annotations

import itertools
from typing import Any
from urllib.parse import quote_from_bytes, urlencode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotate_ui.api import Limiter
from plumbline.preferences.exporters import EXPORTERS
from plumbline.preferences.login_sessions import LoginSessions
from tests.cheap_passwords import PASSWORD
from tests.security.calls import FORMS, Watch, check_law, routes_of
from tests.security.conftest import COOKIE, FORM, JSON, World
from tests.security.made import HOSTILE, MADE, UNJSON

ALWAYS_WRITTEN = ("audit", "throttles", "api_tokens")
"""What refused sign-ins and reading leave behind: counts of failures, entries of the log, when a token was used."""

MULTIPART = "multipart/form-data; boundary=b"
PARTS = (
    b"",
    b"--b--",
    b"--b\r\n",
    b'--b\r\ncontent-disposition: form-data; name="name"\r\n\r\nBob\r\n--b--\r\n',
    b'--b\r\ncontent-disposition: form-data; name="name"; filename="x.html"\r\n\r\n<script>\r\n--b--\r\n',
    b'--b\r\ncontent-disposition: form-data; name="\xff"\r\ncontent-type: text/html; charset=x\r\n\r\n\xff\r\n--b--',
    b'--b\r\ncontent-disposition: form-data; name="new"\r\ncontent-transfer-encoding: zip\r\n\r\n\0\r\n--b--\r\n',
    b"".join(b'--b\r\ncontent-disposition: form-data; name="f%d"\r\n\r\nx\r\n' % n for n in range(140)) + b"--b--\r\n",
    b"&".join(b"f%d=x" % n for n in range(1500)),
    b"name=%ff%fe&password=%00&name=again&=&&&=%",
    b"name=" + b"%e2%80%ae" * 500,
)
KINDS = (FORM, MULTIPART, "multipart/form-data", f"{FORM}; charset=utf-7", "text/plain", JSON, "", "\xff", "a" * 3000)
VALUES = st.one_of(
    st.sampled_from([one.encode(errors="surrogatepass") for one in HOSTILE]),
    st.sampled_from([b"Bob", b"Ada", b"Nobody", b"false", b"1"]),
    st.binary(max_size=20),
)
FIELDS = st.sampled_from([b"name", b"password", b"new", b"again", b"current", b"next", b"x"])
FORM_BODIES = st.one_of(
    st.dictionaries(FIELDS, VALUES, max_size=5).map(lambda fields: urlencode(fields).encode()),
    st.dictionaries(FIELDS, VALUES, min_size=2, max_size=5).map(lambda fields: urlencode(fields).encode()),
    st.sampled_from(PARTS),
    st.sampled_from(UNJSON),
    st.binary(max_size=60),
)
FORM_KINDS = st.one_of(st.just(FORM), st.sampled_from(KINDS))

HEADERS = (
    *(b"host", b"origin", b"referer", b"sec-fetch-site", b"content-type", b"content-length", b"cookie"),
    *(b"authorization", b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"forwarded", b"range"),
    *(b"accept", b"accept-encoding", b"accept-language", b"if-none-match", b"if-modified-since", b"expect"),
    *(b"content-encoding", b"transfer-encoding", b"connection", b"upgrade", b"x-http-method-override", b"x-y"),
)
LONG = b"9" * 5000
ODD = {
    b"host": (b"127.0.0.1:99999", b"127.0.0.1:" + LONG, b"127.0.0.1:-1", b"[::1", b"[::1]:70000", b"::", "٣".encode()),
    b"origin": (b"http://[", b"http://]", b"http://[::1", b"http://127.0.0.1:99999", b"//", b"http://\xff", b"null"),
    b"content-length": (LONG, b"-0", b"1_0", b"\xb2", b"0, 0", b""),
    b"content-type": (b"application/json; charset=utf-16", b"multipart/form-data", b"\xff/\x00", b";" * 3000),
    b"cookie": (COOKIE.encode() + b"=" + LONG, COOKIE.encode() + b"=\xff\x00", b"=;=;=", b'a="\\'),
    b"authorization": (b"Bearer \xff", b"Bearer " + LONG, b"Basic Og==", b"Bearer", b"\x00"),
    b"range": (b"bytes=0-0,-1,5-2,9999999999999999999-", b"bytes=" + b"0-0," * 300, b"bytes=" + LONG + b"-", b"\xff"),
    b"accept-encoding": (b"identity;q=nan", b"gzip;q=0, *;q=0", b"br;q=" + LONG),
    b"if-none-match": (b"W/", b'"', b"*", b"\xff"),
    b"if-modified-since": (b"Thu, 99 Foo 99999 99:99:99 GMT", b"Thu, 01 Jan 0000 00:00:00 GMT", LONG),
    b"x-forwarded-host": (b"[", b"attacker.example:" + LONG, b"\xff"),
    b"x-gradio-server": (b"[", b"http://[::", b"\xff"),
    b"forwarded": (b"for=unknown;host=attacker.example", b";" * 3000),
}
"""Values that were made to break whoever reads such a header."""

HEADER = st.one_of(
    st.sampled_from([(name, value) for name, values in ODD.items() for value in values]),
    st.tuples(st.sampled_from(HEADERS), st.binary(max_size=20)),
)
MADE_HEADERS = st.one_of(st.lists(HEADER, min_size=1, max_size=1), st.lists(HEADER, max_size=4))
METHODS = ("GET", "POST", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH", "TRACE", "CONNECT", "BREW", "get", "")

QUERIES = st.one_of(
    st.dictionaries(
        st.sampled_from(
            ["cursor", "limit", "names", "people_only", "pseudonyms", "split", "changed", "next", "format", "rest"]
        ),
        st.one_of(
            st.sampled_from([*HOSTILE, "true", "train", "test", "0", "5", "9" * 30, "-1", "1e3", "9" * 5000]),
            st.integers(-5, 2**70).map(str),
        ),
        max_size=4,
    ).map(lambda given: urlencode(given, errors="surrogatepass").encode()),
    st.binary(max_size=40),
    st.sampled_from([b"&" * 2000, b"cursor=1&cursor=2&limit", b"%", b"%ff=%ff", b"names=tru%00e", b"split=%F0%9F"]),
)
PATHS = (
    "/",
    "/session",
    "/account",
    "/people",
    "/favicon.ico",
    *(f"/api/v1/{name}" for name in ("progress", "judgements", "quality", "nothing", "export/xml", "export/%00")),
    *(f"/api/v1/export/{name}" for name in EXPORTERS),
    *(f"/lead-work/export/{name}" for name in (*EXPORTERS, "xml", "%00", "label_studio/setup", "xml/setup")),
    *(f"/lead-work/export/{name}/zip" for name in ("trl", "xml")),
)
WITH_PARAMETERS = (
    "/account",
    "/api/v1/judgements",
    "/api/v1/export/demonstrations",
    "/lead-work/export/demonstrations",
)
"""One of each sort; of the exports the one with nothing in it."""

FILE_ROUTES = (
    *("/", "", "/assets/", "/annotate/", "/annotate/assets/", "/annotate/static/", "/lead/", "/arena/static/js/"),
    *("/annotate/gradio_api/", "/annotate/gradio_api/file=", "/api/v1/export/", "/lead-work/export/"),
)
STEPS = (
    *(b"..", b"../", b"%2e%2e%2f", b"%252e%252e%252f", b"..%5c", b"..\\", b"%00", b"\0", b"/", b"//", b"./", b"%"),
    *(b"etc/passwd", b"app.py", b"board.js", b"board/", b"preferences.db", b"%c0%ae%c0%ae/", b"C:\\", b"x" * 300),
)


@pytest.fixture
def watched(fresh: World, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Checks an answer by the law, and that what must stay in the store has stayed."""
    monkeypatch.setattr(Limiter, "wait", lambda self, key: 0.0)  # else most requests were not looked at
    watch, before = Watch(fresh), fresh.contents(without=ALWAYS_WRITTEN)

    def check(reply: Any) -> None:
        check_law(reply, str(fresh.place.parent))
        if watch.wrote():
            assert fresh.contents(without=ALWAYS_WRITTEN) == before
            watch.wrote()

    return check


@pytest.mark.parametrize("path", sorted(FORMS))
def test_no_form_breaks_the_door_or_opens_it(fresh: World, watched: Any, path: str) -> None:
    clients = (f"203.0.{number // 250}.{number % 250}" for number in itertools.count())  # each guesses anew
    signed_in = path == "/account/password"  # the others would end the session, and rightly

    @MADE
    @given(body=FORM_BODIES, kind=FORM_KINDS, headers=st.sampled_from([(), ((b"cookie", b"\xff=\xff; a"),)]))
    def attack(body: bytes, kind: str, headers: Any) -> None:
        who = "Bob" if signed_in else None
        given = [*headers, (b"content-type", kind.encode("latin-1"))]
        watched(fresh.ask(path, body, who=who, headers=given, client=next(clients)))

    attack()


def test_a_newcomer_can_do_nothing_but_choose_a_password(fresh: World) -> None:
    """Whoever has a one-time password, and sends anything, has changed no account but their own."""
    newcomer = fresh.accounts.create("Nora")
    others = [fresh.of_person(name) for name in ("Ada", "Lea", "Bob", "Vera")]

    def let_in() -> None:
        once = fresh.accounts.issue_password(newcomer.annotator_id)
        sessions = LoginSessions(fresh.service.store, accounts=True)
        fresh.tokens["Nora"] = fresh.accounts.sign_in("Nora", once, address="192.0.2.7", sessions=sessions)[1]

    fields = st.fixed_dictionaries({"new": st.sampled_from([*HOSTILE[7:], PASSWORD]), "again": st.none()})
    same = fields.map(lambda one: urlencode({**one, "again": one["new"]}, errors="surrogatepass").encode())
    let_in()

    @MADE
    @given(body=st.one_of(FORM_BODIES, same), kind=FORM_KINDS)
    def attack(body: bytes, kind: str) -> None:
        reply = fresh.ask("/account/password", body, who="Nora", headers=[(b"content-type", kind.encode("latin-1"))])
        check_law(reply, str(fresh.place.parent))
        if reply.header("location") == "/annotate/":
            let_in()
        assert fresh.call("/annotate-work/next", "Nora").status == 401

    attack()
    assert [fresh.of_person(name) for name in ("Ada", "Lea", "Bob", "Vera")] == others


@pytest.mark.parametrize("path", PATHS)
def test_no_query_breaks_what_is_read(fresh: World, watched: Any, path: str) -> None:
    bearer = (b"authorization", f"Bearer {fresh.tokens['api']}".encode())

    @settings(MADE, max_examples=500 if path in WITH_PARAMETERS else 40)
    @given(query=QUERIES)
    def attack(query: bytes) -> None:
        watched(fresh.ask(path, method="GET", who="Lea", query=query, headers=[bearer]))

    attack()


def test_every_address_that_is_read_is_attacked(world: World) -> None:
    gets = {route.path for route in routes_of(world.app.routes) if "GET" in (getattr(route, "methods", None) or ())}
    forms = {path.replace("nothing", "{rest:path}").replace("trl", "{format}") for path in PATHS}
    assert gets == {path.replace("label_studio/setup", "{format}/setup") for path in forms} & gets


@pytest.mark.parametrize(
    ("path", "kind"), [("/session", None), ("/annotate-work/guideline", JSON), ("/assets/nav.js", None)]
)
def test_no_header_breaks_the_guard(fresh: World, watched: Any, path: str, kind: str | None) -> None:
    @MADE
    @given(headers=MADE_HEADERS, method=st.sampled_from([*METHODS[:2] * 8, *METHODS]), https=st.booleans())
    def attack(headers: Any, method: str, https: bool) -> None:
        who = None if any(name == b"cookie" for name, _ in headers) else "Bob"
        scheme = "https" if https else "http"
        watched(fresh.ask(path, b"{}", who=who, method=method, kind=kind, headers=headers, scheme=scheme))

    attack()


def test_no_path_breaks_the_app_or_leads_to_a_file(fresh: World, watched: Any) -> None:
    secrets = (b"root:", b"from __future__", b"SQLite format", *(token.encode() for token in fresh.tokens.values()))

    @MADE
    @given(
        start=st.sampled_from(FILE_ROUTES),
        steps=st.lists(st.one_of(st.sampled_from(STEPS), st.binary(max_size=4)), max_size=6),
        quoted=st.booleans(),
    )
    def attack(start: str, steps: list[bytes], quoted: bool) -> None:
        rest = b"".join(steps)
        path = start.encode() + (quote_from_bytes(rest).encode() if quoted else rest)
        reply = fresh.ask(path, method="GET", who="Lea")
        watched(reply)
        assert not any(secret in reply.body for secret in secrets)

    attack()
