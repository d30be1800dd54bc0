"""What the guard refuses, attacked at the ASGI interface and over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import unquote

import pytest
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st

from annotate_ui import guard
from annotate_ui.app import build_app
from annotate_ui.guard import LARGEST_BODY, LARGEST_FORM, Guard, own_hosts
from annotate_ui.setup import Setup
from plumbline.preferences.service import PreferenceService
from plumbline.recipe_annotate import AnnotateSection
from tests.annotate_ui.conftest import new_task

BASE = "http://127.0.0.1:7860"
FORM = {"content-type": "application/x-www-form-urlencoded"}
SAME = {"origin": BASE}


class Inner:
    """Stands for the app: reads the body, answers with its length."""

    def __init__(self) -> None:
        self.asked = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.asked += 1
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": str(len(body)).encode()})


@pytest.fixture
def inner() -> Inner:
    return Inner()


def run(call: Coroutine[Any, Any, None]) -> None:
    """Run it in a thread of its own: the browser tests' driver keeps a loop in this one."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, call).result()


def asked(app: Any, parts: list[bytes] | None = None, *, pause: float = 0, **scope: Any) -> tuple[int, bytes, dict]:
    """The answer to one request; its body comes in parts, without a length unless a header gives one."""
    headers = {"host": "127.0.0.1:7860", **scope.pop("headers", {})}
    whole = {
        "type": "http",
        "method": "POST",
        "path": "/annotate-work/next",
        "scheme": "http",
        "server": ("127.0.0.1", 7860),
        "query_string": b"",
        **scope,
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in headers.items()],
    }
    waiting = list(parts or [b""])
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(pause)
        body = waiting.pop(0)
        return {"type": "http.request", "body": body, "more_body": bool(waiting)}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    run(app(whole, receive, send))
    body = b"".join(message.get("body", b"") for message in sent[1:])
    return sent[0]["status"], body, {name.decode(): value.decode() for name, value in sent[0]["headers"]}


# -- bodies --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "limit"), [("application/json", LARGEST_BODY), (FORM["content-type"], LARGEST_FORM)])
def test_a_long_body_is_refused_while_it_comes_without_a_length(inner: Inner, kind: str, limit: int) -> None:
    headers = {"content-type": kind, "transfer-encoding": "chunked"}
    endless = [b"x" * 1024] * (limit // 1024 + 1000)
    status, _, _ = asked(Guard(inner), endless, headers=headers)
    assert (status, inner.asked) == (413, 0)
    status, body, _ = asked(Guard(inner), [b"x" * 1024] * (limit // 1024), headers=headers)
    assert (status, body) == (200, str(limit).encode())


@pytest.mark.parametrize("length", [str(LARGEST_BODY + 1), "99999999999999999999", "-1", "1e3", "0x10"])
def test_a_body_that_says_it_is_long_is_not_even_read(inner: Inner, length: str) -> None:
    status, _, _ = asked(Guard(inner), headers={"content-type": "application/json", "content-length": length})
    assert (status, inner.asked) == (413, 0)


def test_a_body_that_lies_about_its_length_is_refused(inner: Inner) -> None:
    headers = {"content-type": "application/json", "content-length": "2"}
    status, _, _ = asked(Guard(inner), [b"x" * (LARGEST_BODY + 1)], headers=headers)
    assert (status, inner.asked) == (413, 0)


def test_a_body_that_drips_in_ends(inner: Inner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "SECONDS_FOR_BODY", 0.05)
    headers = {"content-type": "application/json"}
    status, _, _ = asked(Guard(inner), [b"x"] * 1000, headers=headers, pause=0.01)
    assert (status, inner.asked) == (408, 0)


def test_websockets_are_closed(inner: Inner) -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    run(Guard(inner)({"type": "websocket", "path": "/"}, None, send))  # type: ignore[arg-type]
    assert (sent[0]["type"], inner.asked) == ("websocket.close", 0)


# -- who sent it ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "http://127.0.0.1:9999"}, 403),  # another app on this machine
        ({"origin": "http://127.0.0.1.evil.example:7860"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": ""}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"sec-fetch-site": "cross-site", **SAME}, 403),
        ({"cookie": "a=b", **FORM}, 403),
        ({"cookie": "a=b", "content-type": "text/plain"}, 403),
        ({"cookie": "a=b", "content-type": "Multipart/Form-Data; boundary=x"}, 403),
        ({"cookie": "a=b"}, 403),
        ({"cookie": "a=b", **FORM, **SAME}, 200),
        ({"cookie": "a=b", **FORM, "sec-fetch-site": "same-origin"}, 200),
        ({"cookie": "a=b", "content-type": "application/json"}, 200),
        (SAME, 200),
        ({}, 200),
    ],
)
def test_what_changes_something_comes_from_our_own_pages(inner: Inner, headers: dict[str, str], status: int) -> None:
    assert asked(Guard(inner), headers=headers)[0] == status
    assert inner.asked == (status == 200)


def test_over_https_a_plain_page_of_the_same_name_is_another_site(inner: Inner) -> None:
    assert asked(Guard(inner), scheme="https", headers=SAME)[0] == 403
    assert asked(Guard(inner), scheme="https", headers={"origin": "https://127.0.0.1:7860"})[0] == 200


@pytest.mark.parametrize(
    "host",
    [
        "rebound.example:7860",
        "",
        "localhost.evil.example",
        "127.0.0.1@evil.example",
        "evil@127.0.0.1",
        "evil.example#127.0.0.1",
        "[::1",
        "192.0.2.1",
        "0.0.0.0:7860",
        "127.0.0.1.nip.example",
        "127.0.0.1:7860, evil.example",
    ],
)
def test_other_host_names_are_refused(inner: Inner, host: str) -> None:
    for method in ("GET", "POST"):
        assert asked(Guard(inner), method=method, headers={"host": host})[0] == 403
    assert inner.asked == 0


def test_the_recipe_s_names_and_the_address_that_was_reached_are_ours(inner: Inner) -> None:
    settings = AnnotateSection(accounts=True, host="0.0.0.0", names=["Rank.Example.org"])
    guarded = Guard(inner, own_hosts(settings))
    for host in ("rank.example.org", "RANK.example.org:443", "localhost:7860", "[::1]:7860", "192.0.2.1:7860"):
        assert asked(guarded, server=("192.0.2.1", 7860), headers={"host": host})[0] == 200
    for host in ("0.0.0.0:7860", "192.0.2.2", "example.org"):
        assert asked(guarded, server=("192.0.2.1", 7860), headers={"host": host})[0] == 403


@given(st.text(st.characters(max_codepoint=255, exclude_categories=["Cc"]), max_size=40))
def test_no_host_name_breaks_the_guard(host: str) -> None:
    status, _, _ = asked(Guard(Inner()), method="GET", path="/", headers={"host": host})
    assert status in (200, 403)


# -- Gradio's own routes -------------------------------------------------------------------------------------------


@pytest.fixture
def client(service: PreferenceService) -> Iterator[TestClient]:
    service.add_tasks([new_task("first")])
    with TestClient(build_app(service, Setup("Support")), base_url=BASE) as client:
        client.post("/sign-in", data={"name": "Ada"})
        assert client.get("/annotate/").status_code == 200
        yield client


GRADIO_ROUTES = [
    "gradio_api/queue/join",
    "gradio_api/queue/data",
    "gradio_api/queue/status",
    "gradio_api/upload",
    "gradio_api/upload_progress",
    "gradio_api/info",
    "gradio_api/run/predict",
    "gradio_api/call/predict",
    "gradio_api/api/predict",
    "gradio_api/component_server",
    "gradio_api/heartbeat/abc",
    "gradio_api/startup-events",
    "gradio_api/reset",
    "gradio_api/runs",
    "gradio_api/deep_link",
    "gradio_api/file=/etc/passwd",
    "gradio_api/proxy=http://169.254.169.254/",
    "gradio_api/stream/a/b/c/playlist.m3u8",
    "file=/etc/passwd",
    "file/etc/passwd",
    "proxy=http://169.254.169.254/",
    "upload",
    "queue/join",
    "login",
    "logout",
    "openapi.json",
    "docs",
    "monitoring",
    "monitoring/summary",
    "pwa_icon",
    "manifest.json",
    "svelte/svelte.js",
    "token",
    "app_id",
]


@pytest.mark.parametrize("route", GRADIO_ROUTES)
def test_gradio_s_own_routes_are_closed(client: TestClient, route: str) -> None:
    for answer in (client.get(f"/annotate/{route}"), client.post(f"/annotate/{route}", json={})):
        assert answer.status_code == 404
        assert guard.NO_PAGE in answer.text


@pytest.mark.parametrize(
    "path",
    [
        "/annotate/assets/../../../../etc/passwd",
        "/annotate/assets/%2e%2e/%2e%2e/etc/passwd",
        "/annotate/assets/..%2f..%2fetc%2fpasswd",
        "/annotate/assets/%252e%252e/etc/passwd",
        "/annotate/assets//etc/passwd",
        "/annotate/assets/..\\..\\etc\\passwd",
        "/annotate/static/../../routes.py",
        "/annotate/static/js/../../../routes.py",
        "/annotate/static//etc/passwd",
        "/annotate/./gradio_api/info",
        "/annotate//gradio_api/info",
        "/annotate/assets/../gradio_api/info",
        "/annotate/gradio_api/file%3d/etc/passwd",
        "/annotate/GRADIO_API/info",
        "/assets/../app.py",
        "/assets/%2e%2e/app.py",
        "/assets/..%2fapp.py",
        "/assets//etc/passwd",
    ],
)
def test_no_path_leads_to_a_file(client: TestClient, path: str) -> None:
    # At the app's own interface, for an HTTP client would tidy the path up.
    cookie = "; ".join(f"{name}={value}" for name, value in client.cookies.items())
    scope = {"method": "GET", "path": unquote(path), "raw_path": path.encode(), "headers": {"cookie": cookie}}
    status, body, _ = asked(client.app, **scope)
    assert status == 404
    assert b"root:" not in body
    assert b"import" not in body


def test_the_queue_is_there_for_a_page_with_event_handlers(inner: Inner) -> None:
    pages = {"/annotate": False, "/lead": True}
    for path, status in (
        ("/lead/gradio_api/queue/join", 200),
        ("/lead/gradio_api/queue/data", 200),
        ("/lead/gradio_api/heartbeat/abc", 200),
        ("/lead/gradio_api/upload", 404),
        ("/lead/gradio_api/info", 404),
        ("/lead/gradio_api/queue/join/../../upload", 404),
        ("/annotate/gradio_api/queue/join", 404),
        ("/annotated", 200),
    ):
        assert asked(Guard(inner, pages=pages), path=path)[0] == status, path


# -- headers -------------------------------------------------------------------------------------------------------


def test_every_answer_carries_the_headers_refusals_too(client: TestClient) -> None:
    for path, host in (("/", "127.0.0.1"), ("/annotate/", "127.0.0.1"), ("/", "evil.example"), ("/none", "127.0.0.1")):
        headers = client.get(path, headers={"host": f"{host}:7860"}).headers
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "camera=()" in headers["permissions-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert "strict-transport-security" not in headers


def test_own_pages_allow_no_inline_scripts_and_none_names_another_site(client: TestClient) -> None:
    own, gradio = (client.get(path).headers["content-security-policy"] for path in ("/account", "/annotate/"))
    assert "unsafe" not in own
    assert "unsafe-eval" in gradio
    assert "http" not in own + gradio


def test_https_is_asked_for_only_over_https(inner: Inner) -> None:
    _, _, headers = asked(Guard(inner), scheme="https")
    assert headers["strict-transport-security"].startswith("max-age=")
