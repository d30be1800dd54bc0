"""Requests from other sites, to other names, too large or too deep; what every answer carries; where it may lead."""

from __future__ import annotations

import csv
import gzip
import io
import json
from typing import Any
from urllib.parse import quote

import pytest

from annotate_ui.guard import LARGEST_BODY, LARGEST_FORM
from plumbline.preferences.exporters import EXPORTERS
from plumbline.preferences.exporters.csv import FORMULA_STARTS
from plumbline.preferences.records import Assignment, NewResponse, NewTask
from tests.security.calls import BOARD_CALLS, FORMS, LEAD_CALLS, Watch, message_of
from tests.security.conftest import FORM, HOST, JSON, Reply, World
from tests.security.payloads import EVERYTHING, SHORT

CALLS = [*BOARD_CALLS, *LEAD_CALLS]
POSTS = [*CALLS, *sorted(FORMS)]
FOREIGN: dict[str, list[tuple[bytes, bytes]]] = {
    "another site": [(b"origin", b"https://attacker.example")],
    "a sandboxed frame": [(b"origin", b"null")],
    "another port": [(b"origin", b"http://127.0.0.1:9999")],
    "a name that begins alike": [(b"origin", b"http://127.0.0.1:7860.attacker.example")],
    "with a user name": [(b"origin", b"http://127.0.0.1:7860@attacker.example")],
    "no address": [(b"origin", b"http://[")],
    "by fetch metadata": [(b"sec-fetch-site", b"cross-site"), (b"origin", b"http://127.0.0.1:7860")],
    "a neighbour": [(b"sec-fetch-site", b"same-site"), (b"origin", b"http://127.0.0.1:7860")],
}
HEADS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


# -- other sites (FastChat and Label Studio had none of this; research 3b, consequence 4) ----------------------------


@pytest.mark.parametrize("origin", FOREIGN)
@pytest.mark.parametrize("path", POSTS)
def test_another_site_changes_nothing(world: World, path: str, origin: str) -> None:
    watch = Watch(world)
    for kind in (JSON, FORM, "text/plain", "multipart/form-data; boundary=b"):
        assert world.ask(path, b'{"name": "Eve"}', who="Ada", kind=kind, headers=FOREIGN[origin]).status == 403
    assert not watch.wrote()


@pytest.mark.parametrize("path", POSTS)
def test_a_form_with_a_cookie_that_says_not_where_it_comes_from_changes_nothing(world: World, path: str) -> None:
    watch = Watch(world)
    unsaid = [(b"origin", b""), (b"x-origin", b"http://127.0.0.1:7860")]
    for kind in (FORM, "TEXT/plain;charset=utf-8", "multipart/form-data; boundary=b", ""):
        assert world.ask(path, b"name=Eve", who="Ada", kind=kind, headers=unsaid).status == 403
    assert not watch.wrote()


@pytest.mark.parametrize("path", CALLS)
def test_json_under_another_type_is_not_read(world: World, path: str) -> None:
    for kind in ("text/plain", FORM, "application/jsonp", "application/x-json", "application/json5", "json", ""):
        assert world.ask(path, b"{}", who="Ada", kind=kind).status == 415


@pytest.mark.parametrize("path", POSTS)
def test_reading_changes_nothing_and_other_methods_are_none(world: World, path: str) -> None:
    watch = Watch(world)
    for method in ("GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"):
        assert world.ask(path, b"", who="Ada", method=method, kind=JSON).status in (404, 405), method
    assert not watch.wrote()


def test_no_other_site_may_read_an_answer(world: World) -> None:
    """No CORS headers, whatever is asked; and nothing is answered for a page of another site to use as a script."""
    asked = [(b"origin", b"https://attacker.example"), (b"access-control-request-method", b"POST")]
    for path in ("/session", "/api/v1/progress", "/people", "/annotate/", "/annotate/config", "/assets/nav.js"):
        for method in ("GET", "OPTIONS"):
            reply = world.ask(path, method=method, who="Ada", headers=asked)
            assert not [name for name, _ in reply.headers if name.startswith("access-control")]
            assert reply.header("cross-origin-resource-policy") == "same-origin"


# -- hosts and redirects (Gradio CVE-2026-59806, CVE-2026-28415, FastChat CVE-2024-10908) ----------------------------


@pytest.mark.parametrize(
    "host", ["attacker.example", "127.0.0.1.attacker.example:7860", "localhost@attacker.example", ""]
)
@pytest.mark.parametrize("path", ["/", "/annotate/", "/people", "/api/v1/progress", "/assets/nav.js", "/nothing"])
def test_the_app_answers_to_no_other_name(world: World, path: str, host: str) -> None:
    reply = world.ask(path, method="GET", who="Ada", headers=[(b"host", host.encode())])
    assert reply.status == 403
    twice = [(b"host", HOST.encode()), (b"host", host.encode())]
    assert world.ask(path, method="GET", who="Ada", headers=twice).status == 403


def test_headers_that_name_another_host_are_not_believed(world: World) -> None:
    names = [
        before + name for before in (b"x-forwarded-", b"x-gradio-", b"x-") for name in (b"host", b"server", b"proto")
    ]
    for value in (b"attacker.example", b"https://attacker.example/x", b"[", b"\xff"):
        headers = [(name, value) for name in (*names, b"forwarded", b"x-original-url", b"x-rewrite-url")]
        for path in ("/annotate", "/annotate/", "/people", "/account", "/lead", "/"):
            for who in (None, "Bob", "Lea"):
                reply = world.ask(path, method="GET", who=who, headers=headers)
                assert reply.status < 500
                assert "attacker.example" not in reply.text
                assert _own(reply)


@pytest.mark.parametrize(
    "target", ["//attacker.example", "https://attacker.example", "/\\attacker.example", "\r\nx: y"]
)
def test_no_redirect_leads_away(world: World, target: str) -> None:
    for name in ("next", "to", "url", "redirect", "_target_url", "return"):
        query = f"{name}={quote(target)}".encode()
        for path in ("/", "/account", "/people", "/annotate", "/lead", "/arena"):
            for who in (None, "Bob"):
                assert _own(world.ask(path, method="GET", who=who, query=query))
        fields = {"name": "Bob", "password": "wrong", name: target}
        assert _own(world.form("/sign-in", fields=fields, query=query, client="192.0.2.99"))
        assert _own(world.form("/account/password", "Bob", fields=fields, query=query))
    for path in (f"/{target}", f"{target}/annotate", f"/{target}/..", f"/annotate/{target}", f"/assets/{target}"):
        assert _own(world.ask(quote(path, safe="/:\\"), method="GET", who="Bob"))


def _own(reply: Reply) -> bool:
    """Whether an answer leads nowhere, or to a place of the app's own."""
    to = reply.header("location").removeprefix(f"http://{HOST}")
    return not to or (
        to.startswith("/") and not to.startswith(("//", "/\\")) and "attacker" not in to.partition("?")[0]
    )


# -- bodies (FastChat CVE-2024-10907, CVE-2024-10912) -----------------------------------------------------------------


@pytest.mark.parametrize("path", POSTS)
def test_a_large_body_is_refused_before_it_is_read(world: World, path: str) -> None:
    watch = Watch(world)
    for kind, largest in (
        (JSON, LARGEST_BODY),
        (FORM, LARGEST_FORM),
        ("multipart/form-data; boundary=b", LARGEST_FORM),
    ):
        assert world.ask(path, b"x" * (largest + 1), who="Ada", kind=kind).status == 413
        said = [(b"content-length", b"9" * 5000)]
        assert world.ask(path, b"x", who="Ada", kind=kind, headers=said).status == 413
        lied = [(b"content-length", b"2")]
        assert world.ask(path, b"x" * (largest + 1), who="Ada", kind=kind, headers=lied).status == 413
    assert not watch.wrote()


@pytest.mark.parametrize("path", CALLS)
def test_a_compressed_or_bottomless_body_is_no_message(world: World, path: str) -> None:
    bomb = gzip.compress(b"[" * 50_000_000)[:LARGEST_BODY]
    for encoding in (b"gzip", b"deflate", b"br"):
        reply = world.ask(path, bomb, who="Ada", kind=JSON, headers=[(b"content-encoding", encoding)])
        assert reply.status in (403, 422)
    for body in (b"[" * LARGEST_BODY, b'{"a":' * 50_000, b'"' + b"\\u0000" * 40_000 + b'"', b"1" * LARGEST_BODY):
        assert world.ask(path, body, who="Ada", kind=JSON).status in (403, 422)


def test_no_upload_is_kept(world: World) -> None:
    """There is no place for a file (Label Studio CVE-2023-47115 served avatars as HTML)."""
    part = b'--b\r\ncontent-disposition: form-data; name="name"; filename="x.html"\r\ncontent-type: text/html\r\n\r\n'
    body = part + b"<script>alert(1)</script>\r\n--b--\r\n"
    before = world.contents(without=("audit", "throttles"))
    for path in ("/sign-in", "/account/password", "/annotate/gradio_api/upload", "/upload", "/people/create"):
        reply = world.ask(path, body, who="Bob", kind="multipart/form-data; boundary=b")
        assert reply.status in (303, 400, 401, 404, 415, 422, 429)
        assert "<script>alert" not in reply.text or reply.header("content-type") == JSON
    assert world.contents(without=("audit", "throttles")) == before


# -- answers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("who", [None, "Bob", "Lea"])
def test_every_answer_has_its_headers(world: World, who: str | None) -> None:
    for path in ("/", "/session", "/account", "/people", "/annotate/", "/lead/", "/arena/", "/favicon.ico", "/nothing"):
        for reply in (
            world.ask(path, method="GET", who=who),
            world.ask(path, b"x", who=who),
            world.ask(path, method="GET", who=who, headers=[(b"host", b"attacker.example")]),
        ):
            policy = reply.header("content-security-policy")
            assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
            assert "http" not in policy and "*" not in policy
            assert {name: reply.header(name) for name in HEADS} == HEADS
            assert "server" not in dict(reply.headers)


def test_who_is_signed_in_is_kept_by_no_browser(world: World) -> None:
    for path in ("/session", "/account", "/people"):
        assert world.ask(path, method="GET", who="Ada").header("cache-control") == "no-store"


@pytest.mark.parametrize("payload", [*SHORT, "javascript:alert(1)", "'\"><script>alert(1)</script>"])
def test_nothing_of_an_address_is_shown_as_html(world: World, payload: str) -> None:
    """Label Studio CVE-2025-47783, and its front end's errors that showed the address."""
    given = quote(payload, safe="")
    for path in (
        f"/{given}",
        f"/lead-work/export/{given}",
        f"/api/v1/{given}",
        f"/annotate/{given}",
        f"/assets/{given}",
    ):
        for query in (b"", f"split={given}&names={given}&title={given}&config={given}&error={given}".encode()):
            reply = world.ask(path, method="GET", who="Lea", query=query)
            assert payload not in reply.text or not reply.header("content-type").startswith("text/html")


# -- exports ----------------------------------------------------------------------------------------------------------

FORMULAS = (
    "=cmd|' /C calc'!A0",
    "+1+1",
    "-2+3",
    "@SUM(A1)",
    "\t=5",
    "\r=6",
    "＝1+1",
    '=HYPERLINK("//attacker.example")',
)


def test_no_cell_of_an_exported_table_is_a_formula(fresh: World) -> None:
    """Names, prompts and responses, by the page and by the API, with names and without."""
    tables = [name for name, exporter in EXPORTERS.items() if exporter.SUFFIX == "csv"]
    assert tables == ["csv"]
    texts = [NewResponse(formula, formula) for formula in FORMULAS]
    fresh.service.add_tasks([NewTask([{"role": "user", "content": one}], texts, "support") for one in FORMULAS])
    for name in FORMULAS:
        if not name.isprintable() or ":" in name:
            continue
        who = fresh.service.sign_in(name).annotator_id
        fresh.service.guidelines.consent(who, 1)
        work: Any = fresh.service.lease_next(who)
        while isinstance(work, Assignment):
            ranking = {card.response_id: place for place, card in enumerate(work.cards, 1)}
            fresh.service.judge(work.lease_id, who, ranking, idempotency_key=work.lease_id, reason=name)
            work = fresh.service.lease_next(who)
    bearer = [(b"authorization", f"Bearer {fresh.tokens['api']}".encode())]
    replies = [
        fresh.ask("/lead-work/export/csv", method="GET", who="Lea", query=query) for query in (b"", b"pseudonyms=1")
    ]
    replies.append(fresh.ask("/api/v1/export/csv", method="GET", query=b"names=true", headers=bearer))
    for reply in replies:
        rows = list(csv.reader(io.StringIO(reply.text)))
        assert len(rows) > 50
        assert not [cell for row in rows for cell in row if cell.startswith(FORMULA_STARTS) and not _number(cell)]
        assert reply.header("content-type").startswith("text/csv")
        assert reply.header("content-disposition").startswith("attachment")
    assert any("'=cmd" in reply.text for reply in replies)


def _number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("format", EXPORTERS)
def test_a_download_is_never_shown_as_a_page(world: World, format: str) -> None:
    reply = world.ask(f"/lead-work/export/{format}", method="GET", who="Lea")
    if reply.status == 200:
        assert reply.header("content-disposition").startswith('attachment; filename="support.')
        assert "html" not in reply.header("content-type")
    assert reply.header("x-content-type-options") == "nosniff"


def test_filters_that_reach_into_other_tables_are_none(world: World) -> None:
    """Label Studio GHSA-6hjj-gq77-j4qw: a filter over a related table told password hashes, letter by letter."""
    bearer = [(b"authorization", f"Bearer {world.tokens['api']}".encode())]
    plain = world.ask("/api/v1/judgements", method="GET", headers=bearer).body
    for name in ("annotator__account__password__startswith", "order_by", "filter", "fields", "where", "select"):
        query = f"{name}=$argon2id".encode()
        assert world.ask("/api/v1/judgements", method="GET", query=query, headers=bearer).body == plain
    assert b"argon2" not in plain


# -- what no message can say ----------------------------------------------------------------------------------------


def test_no_message_takes_an_address_a_path_a_model_or_a_command() -> None:
    """FastChat CVE-2024-10044, LLaMA-Factory CVE-2024-52803 and CVE-2026-58116: these come from the recipe alone."""
    fields = {name for call in CALLS for name in message_of(call).model_fields}
    assert fields.isdisjoint({"url", "path", "file", "folder", "model", "policy", "endpoint", "host"})


def test_no_call_opens_a_connection(fresh: World) -> None:
    """Whatever is sent, the server asks nobody (SSRF): only webhooks of the recipe are told anything."""
    addresses = (
        "http://169.254.169.254/latest/",
        "//attacker.example/x",
        "file:///etc/passwd",
        "gopher://127.0.0.1:6379",
    )
    for call in CALLS:
        for field in message_of(call).model_fields:
            for address in addresses:
                fresh.ask(call, json.dumps({field: address}).encode(), who="Ada", kind=JSON)
    fresh.call(
        "/annotate-work/draft", "Bob", lease_id=fresh.known("Bob")["lease"], content={"at": 1, "reason": EVERYTHING}
    )
    fresh.call("/lead-work/preview", "Lea", text=EVERYTHING)
    assert fresh.connected == []
