"""The app: a sign-in page, and behind it the Gradio page on which annotators work."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import gradio as gr
from fastapi import FastAPI, Form, Request, Response
from fastapi.responses import FileResponse, HTMLResponse, RedirectResponse
from fastapi.staticfiles import StaticFiles

from annotate_ui.calls import away, call_routes, sentence, unavailable
from annotate_ui.desk import Desk
from annotate_ui.guard import Guard
from annotate_ui.lead import LEAD_PATH, LEADS, add_lead_pages
from annotate_ui.lead.desk import LeadDesk
from annotate_ui.own_pages import OwnPages
from annotate_ui.render import render_guideline, render_shell, render_sign_in
from annotate_ui.sessions import Session, Sessions
from annotate_ui.theme import plumbline_theme
from plumbline.errors import StoreUnavailable, UserError

if TYPE_CHECKING:
    from annotate_ui.setup import Setup
    from plumbline.preferences.service import PreferenceService

STATIC = Path(__file__).parent / "static"
WORK_PATH = "/annotate"
CALLS_PATH = "/work"
NAV_SCRIPT = '<script src="/assets/nav.js"></script>'
HEAD = "".join(f'<link rel="stylesheet" href="/assets/{name}.css">' for name in ("base", "board", "answers"))
HEAD += NAV_SCRIPT + '<script type="module" src="/assets/board.js"></script>'


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
    app.mount("/assets", StaticFiles(directory=STATIC))
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
    add_lead_pages(app, LeadDesk(service, setup), sessions, setup)
    app.add_middleware(OwnPages, sessions=sessions, setup=setup, pages={WORK_PATH: (), LEAD_PATH: LEADS})
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
