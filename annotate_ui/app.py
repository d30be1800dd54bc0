"""The app: a sign-in page, and behind it the Gradio page on which annotators work."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import gradio as gr
from fastapi import FastAPI, Request, Response
from fastapi.responses import FileResponse, PlainTextResponse, RedirectResponse
from fastapi.staticfiles import StaticFiles
from starlette.concurrency import run_in_threadpool

from annotate_ui.api import add_api
from annotate_ui.calls import call_routes, sentence
from annotate_ui.desk import Desk
from annotate_ui.exports import export_routes
from annotate_ui.guard import Guard, gradio_pages, own_hosts
from annotate_ui.people import people_routes
from annotate_ui.render import render_guideline, render_shell
from annotate_ui.sessions import Sessions
from annotate_ui.signin import Door, sign_in_routes
from annotate_ui.theme import plumbline_theme
from plumbline.errors import UserError
from plumbline.preferences.accounts import Accounts
from plumbline.preferences.login_sessions import LoginSessions
from plumbline.recipe_annotate import AnnotateSection

if TYPE_CHECKING:
    from plumbline.preferences.service import PreferenceService

STATIC = Path(__file__).parent / "static"
WORK_PATH = "/annotate"
CALLS_PATH = "/work"
HEAD = "".join(f'<link rel="stylesheet" href="/assets/{name}.css">' for name in ("base", "board"))
SCRIPT = '<script src="/assets/board.js"></script>'
PREVIEW_TAG = re.compile(r"""<meta\s+(?:property="og:|name="twitter:)[^>]*>\s*""")


def build_app(
    service: PreferenceService,
    *,
    title: str,
    guideline: str | None = None,
    settings: AnnotateSection | None = None,
    accounts: Accounts | None = None,
) -> FastAPI:
    """The annotation app as an ASGI application; without accounts, to be served on this machine only (see `serve`).

    Args:
        service: owns every rule and the store.
        title: what is annotated.
        guideline: Markdown for the annotators, or None.
        settings: the recipe's section `annotate`.
        accounts: who may sign in; default: the store's accounts, where the settings ask for accounts.

    Returns:
        An application with `/` (sign in), `/annotate/` (the page), `/work/…` (what it asks), `/account`, `/people`
        (with accounts) and `/assets/`.
    """
    settings = settings or AnnotateSection()
    if settings.accounts and accounts is None:
        accounts = Accounts(service.store, clock=service.clock)
    lifetime = timedelta(hours=settings.session_hours)
    login = LoginSessions(service.store, accounts=accounts is not None, lifetime=lifetime, clock=service.clock)
    sessions, desk = Sessions(login), Desk(service)
    app = FastAPI(title="plumbline", docs_url=None, redoc_url=None, openapi_url=None)
    app.mount("/assets", StaticFiles(directory=STATIC))
    app.add_api_route("/favicon.ico", favicon)
    home = f"{WORK_PATH}/"
    app.include_router(sign_in_routes(Door(service, sessions, accounts, title, home)))
    if accounts is not None:
        app.include_router(people_routes(accounts, sessions, title=title, home=home))
    _send_visitors_to_sign_in(app, sessions)
    app.add_exception_handler(UserError, _tell_in_words)
    actions = (desk.next, desk.judge, desk.skip, desk.flag, desk.undo, desk.release, desk.renew)
    app.include_router(call_routes(CALLS_PATH, actions, sessions))
    app.include_router(export_routes(service, sessions))
    add_api(app, service)
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
    app.add_middleware(Guard, hosts=own_hosts(settings), pages=gradio_pages(app))
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


def favicon() -> Response:
    """The mark, for browsers that ask for it by themselves."""
    return FileResponse(STATIC / "mark.svg", media_type="image/svg+xml")


def _send_visitors_to_sign_in(app: FastAPI, sessions: Sessions) -> None:
    @app.middleware("http")
    async def work_page(request: Request, call_next: Callable[[Request], Any]) -> Response:
        """Whoever opens the work page without a session sees the sign-in page, not Gradio's bare refusal."""
        if request.url.path.rstrip("/") != WORK_PATH or request.method != "GET":
            response: Response = await call_next(request)
            return response
        if not await run_in_threadpool(sessions.read, request):
            return RedirectResponse("/", status_code=303)
        return await _without_preview_tags(request, call_next)


async def _tell_in_words(request: Request, fault: Exception) -> Response:
    """What a page without an answer of its own says while the database is away."""
    return PlainTextResponse(sentence(cast("UserError", fault)), status_code=503)


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
