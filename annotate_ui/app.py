"""The app: a sign-in page, and behind it the Gradio page on which annotators work."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import gradio as gr
from fastapi import FastAPI, Form, Request, Response
from fastapi.responses import FileResponse, HTMLResponse, RedirectResponse
from fastapi.staticfiles import StaticFiles

from annotate_ui.calls import call_routes, sentence
from annotate_ui.desk import Desk
from annotate_ui.guard import Guard
from annotate_ui.render import render_guideline, render_shell, render_sign_in
from annotate_ui.sessions import Session, Sessions
from annotate_ui.theme import plumbline_theme
from plumbline.errors import UserError

if TYPE_CHECKING:
    from plumbline.preferences.service import PreferenceService

STATIC = Path(__file__).parent / "static"
WORK_PATH = "/annotate"
CALLS_PATH = "/work"
HEAD = "".join(f'<link rel="stylesheet" href="/assets/{name}.css">' for name in ("base", "board"))
SCRIPT = '<script src="/assets/board.js"></script>'
PREVIEW_TAG = re.compile(r"""<meta\s+(?:property="og:|name="twitter:)[^>]*>\s*""")


def build_app(service: PreferenceService, *, title: str, guideline: str | None = None) -> FastAPI:
    """The annotation app as an ASGI application, to be served on this machine only (see `serve`).

    Args:
        service: owns every rule and the store.
        title: what is annotated.
        guideline: Markdown for the annotators, or None.

    Returns:
        An application with `/` (sign in), `/annotate/` (the page), `/work/…` (what it asks) and `/assets/`.
    """
    sessions, desk = Sessions(), Desk(service)
    app = FastAPI(title="plumbline", docs_url=None, redoc_url=None, openapi_url=None)
    app.mount("/assets", StaticFiles(directory=STATIC))
    _add_sign_in(app, service, sessions, title)
    actions = (desk.next, desk.judge, desk.skip, desk.flag, desk.undo, desk.release, desk.renew)
    app.include_router(call_routes(CALLS_PATH, actions, sessions))
    gr.mount_gradio_app(
        app,
        build_blocks(title=title, guideline=guideline),
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
    app.add_middleware(Guard)
    return app


def build_blocks(*, title: str, guideline: str | None) -> gr.Blocks:
    """The view: the guideline at the side, the board in the middle. What it shows comes from `Desk`, call by call."""
    with gr.Blocks(title=f"{title} · plumbline", analytics_enabled=False, fill_width=True) as blocks:
        if guideline:
            with gr.Sidebar(label="Guideline", open=False, width=360, elem_id="pl-sidebar"):
                gr.HTML(render_guideline(guideline), apply_default_css=False)
        gr.HTML(
            render_shell(title, guideline=bool(guideline)),
            elem_id="pl-board",
            apply_default_css=False,
            head=SCRIPT,
            js_on_load="plumbline.openBoard(element);",
        )
    return blocks


def _add_sign_in(app: FastAPI, service: PreferenceService, sessions: Sessions, title: str) -> None:
    """Routes to sign in by name, to sign out, and to ask whether the session still stands."""

    @app.get("/")
    def sign_in_page(request: Request) -> Response:
        if sessions.read(request):
            return RedirectResponse(f"{WORK_PATH}/", status_code=303)
        return HTMLResponse(render_sign_in(title))

    @app.post("/sign-in")
    def sign_in(request: Request, name: Annotated[str, Form()] = "") -> Response:
        try:
            annotator = service.sign_in(name.strip())
        except UserError as fault:
            return HTMLResponse(render_sign_in(title, name=name, error=sentence(fault)), status_code=400)
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
        return {"name": found.name if found else None}

    @app.middleware("http")
    async def work_page(request: Request, call_next: Callable[[Request], Any]) -> Response:
        """Whoever opens the work page without a session sees the sign-in page, not Gradio's bare refusal."""
        if request.url.path.rstrip("/") != WORK_PATH or request.method != "GET":
            response: Response = await call_next(request)
            return response
        if not sessions.read(request):
            return RedirectResponse("/", status_code=303)
        return await _without_preview_tags(request, call_next)


async def _without_preview_tags(request: Request, call_next: Callable[[Request], Any]) -> Response:
    """Gradio's page less the tags that offer its own picture and text to other sites' link previews."""
    plain = [(name, value) for name, value in request.scope["headers"] if name != b"accept-encoding"]
    request.scope["headers"] = plain  # so that the page is not compressed
    answer = await call_next(request)
    page = b"".join([part async for part in answer.body_iterator]).decode()
    kept = Response(PREVIEW_TAG.sub("", page), status_code=answer.status_code)
    # As a list, for a header may be there several times, as set-cookie.
    kept.raw_headers += [(name, value) for name, value in answer.headers.raw if name != b"content-length"]
    return kept
