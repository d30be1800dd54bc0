"""Gradio's pages as pages of ours: for those who may open them, in our language and look, without its link previews."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from annotate_ui.calls import unavailable
from annotate_ui.render import render_refused
from annotate_ui.sessions import Session
from plumbline.errors import StoreUnavailable

if TYPE_CHECKING:
    from annotate_ui.i18n import Texts
    from annotate_ui.sessions import Sessions
    from annotate_ui.setup import Setup

PREVIEW_TAG = re.compile(r"""<meta\s+(?:property="og:|name="twitter:)[^>]*>\s*""")
HTML_TAG = re.compile(r"""<html(\s+lang="[^"]*")?""")


class OwnPage(NamedTuple):
    """The roles that may open a page, none for all, and the tags of what it loads."""

    roles: Collection[str]
    head: str


class OwnPages:
    """ASGI middleware for the pages that Gradio serves.

    Visitors without a session are sent to the sign-in page, those with the wrong role get a page that says so (403),
    instead of Gradio's bare refusal. This is not what protects the pages: `auth_dependency` of each mount is.

    Args:
        app: what is behind it.
        sessions: who asks.
        setup: how the app is set.
        pages: each mounted page by its path, without a slash at the end.
    """

    def __init__(self, app: ASGIApp, sessions: Sessions, setup: Setup, pages: Mapping[str, OwnPage]) -> None:
        self.app, self.sessions, self.setup, self.pages = app, sessions, setup, dict(pages)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        asks = scope["type"] == "http" and scope["method"] == "GET"
        page = self.pages.get(scope["path"].rstrip("/")) if asks else None
        if page is None:
            await self.app(scope, receive, send)
            return
        visitor = await run_in_threadpool(self._visitor, Request(scope), page.roles)
        if isinstance(visitor, Session):
            await _send_own_page(
                self.app, scope, receive, send, lambda body: own_page(body, page, self.setup.texts, visitor)
            )
        else:
            await visitor(scope, receive, send)

    def _visitor(self, request: Request, roles: Collection[str]) -> Session | Response:
        """Who opens the page, or what those get who may not."""
        try:
            session = self.sessions.read(request)
        except StoreUnavailable as fault:
            return unavailable(fault, self.setup.texts.of_service)
        if session is None:
            return RedirectResponse("/", status_code=303)
        if roles and session.role not in roles:
            return HTMLResponse(render_refused(self.setup), status_code=403)
        return session


async def _send_own_page(
    app: ASGIApp, scope: Scope, receive: Receive, send: Send, change: Callable[[str], str]
) -> None:
    plain = [(name, value) for name, value in scope["headers"] if name != b"accept-encoding"]  # not compressed
    begin: dict[str, Any] = {}
    body = bytearray()

    async def keep(message: Message) -> None:
        if message["type"] == "http.response.start":
            begin.update(message)
        elif message["type"] == "http.response.body":
            body.extend(message.get("body", b""))
            if not message.get("more_body"):
                page = change(body.decode()).encode()
                ours = {b"content-length": str(len(page)).encode(), b"cache-control": b"no-store"}
                headers = [(name, value) for name, value in begin["headers"] if name.lower() not in ours]
                await send({**begin, "headers": [*headers, *ours.items()]})
                await send({"type": "http.response.body", "body": page})

    await app({**scope, "headers": plain}, receive, keep)


def own_page(html: str, page: OwnPage, texts: Texts, visitor: Session) -> str:
    """Gradio's page in our language and for its visitor, less what offers its own picture and text to link previews.

    What the page loads stands in its head: Gradio would have a script put it there, and what is hidden would be seen
    until the style sheets have come, one by one.
    """
    tag = f'<html lang="{texts.lang}" dir="{texts.direction}" data-badge="{visitor.badge}"'
    return HTML_TAG.sub(tag, PREVIEW_TAG.sub("", html), count=1).replace("</head>", f"{page.head}</head>", 1)
