"""What every request and every answer has to obey, as one ASGI middleware."""

from __future__ import annotations

import asyncio
import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from plumbline.recipe_annotate import LOOPBACK, AnnotateSection

EVERY_ADDRESS = ("0.0.0.0", "::")
LARGEST_FORM, LARGEST_BODY = 8 * 1024, 1024 * 1024
"""Bytes. The longest guideline, and the longest improved response with all that is said beside it, fit whatever they
are written in (a character takes up to 4)."""
SECONDS_FOR_BODY = 30
HOST_HEADER = re.compile(r"(?P<name>[\w.-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]+)?", re.ASCII)
READS = ("GET", "HEAD", "OPTIONS")
FORM_TYPES = ("application/x-www-form-urlencoded", "multipart/form-data", "text/plain", "")

# What Gradio's page asks for in a browser, below the path that it is mounted on; with event handlers also the queue.
PAGE_PARTS = re.compile(r"/?|/assets/[\w.-]+|/static/(?:js|css|img|fonts)(?:/[\w.-]+)+|/theme\.css|/config/?")
EVENT_PARTS = re.compile(r"/gradio_api/(?:queue/(?:join|data)|heartbeat/\w+|cancel|reset/?)")

# Which host it was asked for: Gradio would believe anybody. What the recipe's proxy says, uvicorn has read by now.
NOT_BELIEVED = (b"forwarded", b"x-forwarded-", b"x-gradio-")
# Gradio lets pages of every site read its own, with cookies, unless it is asked for as localhost.
NOT_SENT = b"access-control-"

OWN_POLICY = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self'",
    "connect-src": "'self'",
    "form-action": "'self'",
    "base-uri": "'none'",
    "frame-ancestors": "'none'",
}
# Gradio builds its components with inline scripts and `new Function`; everything else comes from our own address.
GRADIO_POLICY = OWN_POLICY | {
    "script-src": "'self' 'unsafe-inline' 'unsafe-eval'",
    "style-src": "'self' 'unsafe-inline'",
    "img-src": "'self' data:",
    "font-src": "'self' data:",
    "base-uri": "'self'",
}
SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    # Not "no-referrer": with it browsers send `Origin: null` with our own forms.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()",
}
HTTPS_ONLY = {"Strict-Transport-Security": "max-age=31536000"}

WRONG_HOST = "This address is not the annotation app's own: open the address that the app printed."
OTHER_SITE = "This request came from another site."
NO_PAGE = "There is no such page."
NO_ADDRESS = "This is no address."
TOO_LARGE = "This is too long to be stored: shorten it, then send it again."
TOO_SLOW = "The request took too long to arrive."

Fault = tuple[str, int]
"""Why a request is refused, and the status that says so."""


class Guard:
    """Refuses requests that were not meant for this app, and adds the security headers.

    Args:
        app: what is guarded.
        hosts: names under which the app may be asked for, besides the address that it was reached at. Any other means
            DNS rebinding.
        pages: where Gradio pages are mounted, and whether these have event handlers (`gradio_pages`). Of what Gradio
            serves only the parts that such a page needs are reached: neither files nor uploads nor its API.
        say: puts a refusal into the language of the interface (`Texts.of_service`).

    Whoever sends JSON is refused in JSON, as `{"error": sentence}`: a page can tell its visitor.
    """

    def __init__(
        self,
        app: ASGIApp,
        hosts: Iterable[str] = LOOPBACK,
        pages: Mapping[str, bool] | None = None,
        say: Callable[[str], str] = str,
    ) -> None:
        self.app, self.hosts, self.pages = app, frozenset(name.lower() for name in hosts), dict(pages or {})
        self.say = say

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = _headers_for(scope, gradio=self._page_of(scope["path"]) is not None)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = _without(NOT_SENT, message["headers"])
                MutableHeaders(scope=message).update(headers)
            await send(message)

        scope = {**scope, "headers": _without(NOT_BELIEVED, scope["headers"])}
        asked = Headers(scope=scope)
        fault = self._fault(scope, asked)
        if fault is None and scope["method"] not in READS:
            body = await _whole_body(receive, _largest(asked))
            if isinstance(body, bytes):
                receive = _replayed(body, receive)
            else:
                fault = body
        await (self.app if fault is None else self._refusal(*fault, asked))(scope, receive, send_with_headers)

    def _refusal(self, text: str, status: int, headers: Headers) -> Response:
        said = self.say(text)
        return JSONResponse({"error": said}, status) if _sends_json(headers) else PlainTextResponse(said, status)

    def _fault(self, scope: Scope, headers: Headers) -> Fault | None:
        host = headers.get("host", "")
        if not self._is_ours(_hostname(host), scope) or len(headers.getlist("host")) != 1:
            return WRONG_HOST, 403
        if scope["method"] not in READS and not _from_our_pages(headers, scope["scheme"], host):
            return OTHER_SITE, 403
        if not scope["query_string"].isascii():
            return NO_ADDRESS, 400
        page = self._page_of(scope["path"])
        if page is not None and not self._needed(page, scope["path"][len(page) :]):
            return NO_PAGE, 404
        if not _fits(headers.get("content-length", "0"), _largest(headers)):
            return TOO_LARGE, 413
        return None

    def _is_ours(self, name: str | None, scope: Scope) -> bool:
        reached_at = (scope.get("server") or ("",))[0]
        return name in self.hosts or (name == reached_at and _is_address(reached_at))

    def _page_of(self, path: str) -> str | None:
        """The Gradio page that a path belongs to."""
        return next((page for page in self.pages if path == page or path.startswith(f"{page}/")), None)

    def _needed(self, page: str, part: str) -> bool:
        if ".." in part:
            return False
        return bool(PAGE_PARTS.fullmatch(part) or (self.pages[page] and EVENT_PARTS.fullmatch(part)))


def own_hosts(settings: AnnotateSection) -> tuple[str, ...]:
    """Under which names the app may be asked for: those of this machine's loopback, and those of the recipe."""
    bound = () if settings.host in EVERY_ADDRESS else (settings.host,)
    return (*LOOPBACK, *bound, *settings.names)


def gradio_pages(app: Any) -> dict[str, bool]:
    """Where an application has Gradio pages mounted, and whether these have event handlers."""
    mounts = {route.path: route.app for route in app.routes if hasattr(getattr(route, "app", None), "get_blocks")}
    return {path: bool(mounted.get_blocks().fns) for path, mounted in mounts.items()}


def _from_our_pages(headers: Headers, scheme: str, host: str) -> bool:
    """Whether a request that changes something was sent by one of our pages, or by no browser.

    Browsers say where a form comes from. One that brings a cookie and does not say it is none of ours.
    """
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site not in (None, "same-origin", "none"):
        return False
    if origin is None:
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        sends_form = kind in FORM_TYPES and headers.get("content-length", "") != "0"
        return site is not None or "cookie" not in headers or not sends_form
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    return parts.netloc == host and (scheme != "https" or parts.scheme == "https")


def _hostname(host: str) -> str | None:
    """The name in a Host header, without its port; None where it is no such header."""
    found = HOST_HEADER.fullmatch(host)
    return found["name"].strip("[]").lower() if found else None


def _is_address(name: str) -> bool:
    try:
        return not ipaddress.ip_address(name).is_unspecified
    except ValueError:
        return False


def _largest(headers: Headers) -> int:
    """The most bytes that a request may bring: only JSON may be long."""
    return LARGEST_BODY if _sends_json(headers) else LARGEST_FORM


def _sends_json(headers: Headers) -> bool:
    return headers.get("content-type", "").startswith("application/json")


def _fits(length: str, largest: int) -> bool:
    """Whether a body may be so long; a number of very many digits is not even read."""
    return length.isdecimal() and len(length) < 20 and int(length) <= largest


async def _whole_body(receive: Receive, largest: int) -> bytes | Fault:
    """The body, read before anybody works on it; a refusal as soon as it is too long, whatever its head said."""
    body = bytearray()
    try:
        async with asyncio.timeout(SECONDS_FOR_BODY):
            while True:
                message = await receive()
                if message["type"] != "http.request":
                    return TOO_SLOW, 408  # nobody is there to read it
                body += message.get("body", b"")
                if len(body) > largest:
                    return TOO_LARGE, 413
                if not message.get("more_body", False):
                    return bytes(body)
    except TimeoutError:
        return TOO_SLOW, 408


def _replayed(body: bytes, receive: Receive) -> Receive:
    """The body once, then what else happens to the connection."""
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


def _without(prefix: bytes | tuple[bytes, ...], headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    return [(name, value) for name, value in headers if not name.lower().startswith(prefix)]


def _headers_for(scope: Scope, *, gradio: bool) -> dict[str, str]:
    return (_GRADIO_HEADERS if gradio else _OWN_HEADERS) | (HTTPS_ONLY if scope["scheme"] == "https" else {})


def _as_header(policy: Mapping[str, str]) -> str:
    return "; ".join(f"{name} {value}" for name, value in policy.items())


_OWN_HEADERS = SECURITY_HEADERS | {"Content-Security-Policy": _as_header(OWN_POLICY)}
_GRADIO_HEADERS = SECURITY_HEADERS | {"Content-Security-Policy": _as_header(GRADIO_POLICY)}
