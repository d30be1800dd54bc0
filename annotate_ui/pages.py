"""Pages of the app: a Gradio page each, mounted the same way, and opened to whoever is signed in and may see it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gradio as gr
from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from starlette.concurrency import run_in_threadpool
from starlette.middleware.base import BaseHTTPMiddleware

from annotate_ui.calls import unavailable
from annotate_ui.render import render_refused
from annotate_ui.sessions import Session, Sessions
from annotate_ui.theme import plumbline_theme
from plumbline.errors import StoreUnavailable

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from annotate_ui.i18n import Texts
    from annotate_ui.setup import Setup

PREVIEW_TAG = re.compile(r"""<meta\s+(?:property="og:|name="twitter:)[^>]*>\s*""")
HTML_TAG = re.compile(r"""<html(\s+lang="[^"]*")?""")


@dataclass(frozen=True)
class GradioPage:
    """A page of the app.

    Attributes:
        path: such as `/annotate`.
        blocks: what is on it.
        assets: style sheets and scripts (modules) in `static/` that it loads, beside `base.css` and `nav.js`.
        roles: who may open it; empty for everybody who is signed in.
    """

    path: str
    blocks: gr.Blocks
    assets: tuple[str, ...] = ()
    roles: frozenset[str] = frozenset()

    def admits(self, session: Session | None) -> bool:
        """Whether a visitor may open the page."""
        return session is not None and (not self.roles or session.role in self.roles)

    @property
    def head(self) -> str:
        """What the page loads, as tags."""
        names = ("base.css", *self.assets)
        sheets = [f'<link rel="stylesheet" href="/assets/{name}">' for name in names if name.endswith(".css")]
        scripts = [f'<script type="module" src="/assets/{name}"></script>' for name in names if name.endswith(".js")]
        return "".join([*sheets, '<script src="/assets/nav.js"></script>', *scripts])


def add_pages(app: FastAPI, pages: Sequence[GradioPage], sessions: Sessions, setup: Setup) -> None:
    """Mount the pages. Visitors without a session are sent to sign in; those with the wrong role are told so."""
    for page in pages:
        gr.mount_gradio_app(
            app,
            page.blocks,
            path=page.path,
            auth_dependency=_name_of_visitor(page, sessions),
            theme=plumbline_theme(),
            head=page.head,
            allowed_paths=[],
            show_error=False,
            run_history=False,
            footer_links=[],
            enable_monitoring=False,
            mcp_server=False,
            pwa=False,
            ssr_mode=False,
            max_file_size="1kb",
        )
    app.add_middleware(FrontDoor, pages={page.path: page for page in pages}, sessions=sessions, setup=setup)


class FrontDoor(BaseHTTPMiddleware):
    """Before each page: the sign-in page or a sentence, not Gradio's bare refusal; and Gradio's page made ours."""

    def __init__(self, app: ASGIApp, pages: dict[str, GradioPage], sessions: Sessions, setup: Setup) -> None:
        super().__init__(app)
        self.pages, self.sessions, self.setup = pages, sessions, setup

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection; all but the pages themselves goes past, because a wrapped answer costs time."""
        of_page = scope["type"] == "http" and scope["method"] == "GET" and scope["path"].rstrip("/") in self.pages
        await (super().__call__ if of_page else self.app)(scope, receive, send)

    async def dispatch(self, request: Request, call_next: Callable[[Request], Any]) -> Response:
        """Answer a request for a page."""
        try:
            session = await run_in_threadpool(self.sessions.read, request)
        except StoreUnavailable as fault:
            return unavailable(fault)
        if session is None:
            return RedirectResponse("/", status_code=303)
        if not self.pages[request.url.path.rstrip("/")].admits(session):
            return HTMLResponse(render_refused(self.setup), status_code=403)
        return await own_page(request, call_next, self.setup.texts)


async def own_page(request: Request, call_next: Callable[[Request], Any], texts: Texts) -> Response:
    """Gradio's page in our language, less the tags that offer its own picture and text to link previews."""
    plain = [(name, value) for name, value in request.scope["headers"] if name != b"accept-encoding"]
    request.scope["headers"] = plain  # so that the page is not compressed
    answer = await call_next(request)
    page = PREVIEW_TAG.sub("", b"".join([part async for part in answer.body_iterator]).decode())
    page = HTML_TAG.sub(f'<html lang="{texts.lang}" dir="{texts.direction}"', page, count=1)
    kept = Response(page, status_code=answer.status_code)
    # As a list, for a header may be there several times, as set-cookie.
    kept.raw_headers += [(name, value) for name, value in answer.headers.raw if name != b"content-length"]
    return kept


def _name_of_visitor(page: GradioPage, sessions: Sessions) -> Callable[[Request], str | None]:
    def name(request: Request) -> str | None:
        session = sessions.read(request)
        return session.name if session and page.admits(session) else None

    return name
