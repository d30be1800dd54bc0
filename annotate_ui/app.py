"""The app: a sign-in page, and behind it the Gradio page on which annotators work."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import gradio as gr
from fastapi import FastAPI, Form, Request, Response
from fastapi.responses import FileResponse, HTMLResponse, RedirectResponse
from starlette.concurrency import run_in_threadpool
from starlette.middleware.base import BaseHTTPMiddleware

from annotate_ui.assets import Assets
from annotate_ui.calls import away, call_routes, sentence, unavailable
from annotate_ui.desk import Desk
from annotate_ui.guard import Guard
from annotate_ui.render import render_guideline, render_shell, render_sign_in
from annotate_ui.sessions import Session, Sessions
from annotate_ui.theme import plumbline_theme
from plumbline.errors import StoreUnavailable, UserError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from annotate_ui.i18n import Texts
    from annotate_ui.setup import Setup
    from plumbline.preferences.service import PreferenceService

STATIC = Path(__file__).parent / "static"
WORK_PATH = "/annotate"
CALLS_PATH = "/work"
NAV_SCRIPT = '<script src="/assets/nav.js"></script>'
HEAD = "".join(f'<link rel="stylesheet" href="/assets/{name}.css">' for name in ("base", "board", "answers"))
HEAD += NAV_SCRIPT + '<script type="module" src="/assets/board.js"></script>'
PREVIEW_TAG = re.compile(r"""<meta\s+(?:property="og:|name="twitter:)[^>]*>\s*""")
HTML_TAG = re.compile(r"""<html(\s+lang="[^"]*")?""")


def build_app(service: PreferenceService, setup: Setup) -> FastAPI:
    """The annotation app as an ASGI application, to be served on this machine only (see `serve`).

    Args:
        service: owns every rule and the store.
        setup: how the app is set.

    Returns:
        An application with `/` (sign in), `/annotate/` (the page), `/work/…` (what it asks) and `/assets/`.

    Raises:
        UserError: `setup.language` is no language.
    """
    sessions, desk = Sessions(), Desk(service, setup)
    if setup.guideline:
        service.guidelines.publish(setup.guideline, from_file=True)
    app = FastAPI(title="plumbline", docs_url=None, redoc_url=None, openapi_url=None)
    app.mount("/assets", Assets(directory=STATIC))
    _add_sign_in(app, service, sessions, setup)
    app.include_router(call_routes(CALLS_PATH, desk.actions, sessions, say=setup.texts.of_service))
    gr.mount_gradio_app(
        app,
        build_blocks(setup),
        path=WORK_PATH,
        auth_dependency=lambda request: session.name if (session := sessions.read(request)) else None,
        theme=plumbline_theme(),
        head=HEAD,
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
    app.add_middleware(WorkPage, sessions=sessions, texts=setup.texts)
    app.add_middleware(Guard)
    return app


def build_blocks(setup: Setup) -> gr.Blocks:
    """The view: the guideline at the side, the board in the middle. What it shows comes from `Desk`, call by call."""
    with gr.Blocks(title=f"{setup.title} · plumbline", analytics_enabled=False, fill_width=True) as blocks:
        with gr.Sidebar(label=setup.texts("board.guideline"), open=False, width=360, elem_id="pl-sidebar"):
            gr.HTML(render_guideline(setup, None), apply_default_css=False)
        gr.HTML(
            render_shell(setup),
            elem_id="pl-board",
            apply_default_css=False,
        )
    return blocks


def _add_sign_in(app: FastAPI, service: PreferenceService, sessions: Sessions, setup: Setup) -> None:
    """Routes to sign in by name, to sign out, and to ask whether the session still stands."""

    @app.get("/")
    def sign_in_page(request: Request) -> Response:
        if sessions.read(request):
            return RedirectResponse(f"{WORK_PATH}/", status_code=303)
        return HTMLResponse(render_sign_in(setup))

    @app.post("/sign-in")
    def sign_in(request: Request, name: Annotated[str, Form()] = "") -> Response:
        try:
            annotator = service.sign_in(name.strip())
        except StoreUnavailable as fault:
            return HTMLResponse(render_sign_in(setup, name=name, error=away(fault)), status_code=503)
        except UserError as fault:
            return HTMLResponse(render_sign_in(setup, name=name, error=sentence(fault)), status_code=400)
        response = RedirectResponse(f"{WORK_PATH}/", status_code=303)
        sessions.start(request, response, Session(annotator.annotator_id, annotator.name))
        return response

    @app.post("/sign-out")
    def sign_out(request: Request) -> Response:
        response = RedirectResponse("/", status_code=303)
        sessions.end(request, response)
        return response

    @app.get("/favicon.ico")
    def favicon() -> Response:
        return FileResponse(STATIC / "mark.svg", media_type="image/svg+xml")

    @app.get("/session")
    def session(request: Request) -> dict[str, str | None]:
        found = sessions.read(request)
        return {"name": found.name, "role": found.role} if found else {"name": None, "role": None}

    @app.exception_handler(StoreUnavailable)
    def store_unavailable(request: Request, fault: StoreUnavailable) -> Response:
        return unavailable(fault)


class WorkPage(BaseHTTPMiddleware):
    """Whoever opens the work page without a session sees the sign-in page, not Gradio's bare refusal."""

    def __init__(self, app: ASGIApp, sessions: Sessions, texts: Texts) -> None:
        super().__init__(app)
        self.sessions, self.texts = sessions, texts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection; all but the page itself goes past, because a wrapped answer costs time."""
        of_page = scope["type"] == "http" and scope["method"] == "GET" and scope["path"].rstrip("/") == WORK_PATH
        await (super().__call__ if of_page else self.app)(scope, receive, send)

    async def dispatch(self, request: Request, call_next: Callable[[Request], Any]) -> Response:
        """Answer a request for the page."""
        try:
            session = await run_in_threadpool(self.sessions.read, request)
        except StoreUnavailable as fault:
            return unavailable(fault)
        if not session:
            return RedirectResponse("/", status_code=303)
        return await _own_page(request, call_next, self.texts)


async def _own_page(request: Request, call_next: Callable[[Request], Any], texts: Texts) -> Response:
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
