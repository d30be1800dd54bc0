"""The app: a sign-in page, and behind it the Gradio pages on which annotators and their lead work."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, cast

import gradio as gr
from fastapi import FastAPI, Response
from fastapi.responses import FileResponse

from annotate_ui.api import add_api
from annotate_ui.arena.desk import ArenaDesk
from annotate_ui.arena.pages import arena_page, arena_routes
from annotate_ui.assets import Assets
from annotate_ui.calls import annotators_threads, call_routes, unavailable
from annotate_ui.desk import Desk
from annotate_ui.exports import export_routes
from annotate_ui.guard import Guard, gradio_pages, own_hosts
from annotate_ui.lead import lead_page, lead_routes
from annotate_ui.lead.desk import LeadDesk
from annotate_ui.lead.pages import LEAD_PATH
from annotate_ui.pages import GradioPage, add_pages
from annotate_ui.people import people_routes
from annotate_ui.render import render_guideline, render_shell
from annotate_ui.sessions import Sessions
from annotate_ui.signin import Door, sign_in_routes
from plumbline.errors import StoreUnavailable
from plumbline.preferences.account_tables import LEADS
from plumbline.preferences.accounts import Accounts
from plumbline.preferences.login_sessions import LoginSessions
from plumbline.recipe_annotate import AnnotateSection

if TYPE_CHECKING:
    from annotate_ui.arena import ArenaSetup
    from annotate_ui.setup import Setup
    from plumbline.preferences.service import PreferenceService

STATIC = Path(__file__).parent / "static"
WORK_PATH = "/annotate"
CALLS_PATH = "/annotate-work"


def build_app(
    service: PreferenceService,
    setup: Setup,
    settings: AnnotateSection | None = None,
    *,
    accounts: Accounts | None = None,
    arena: ArenaSetup | None = None,
) -> FastAPI:
    """The annotation app as an ASGI application; without accounts, to be served on this machine only (see `serve`).

    Args:
        service: owns every rule and the store.
        setup: how the pages are set.
        settings: the recipe's section `annotate`: accounts, sessions, host names.
        accounts: who may sign in; default: the store's accounts, where the settings ask for accounts.
        arena: the models of the arena, where there is one.

    Returns:
        An application with `/` (sign in), `/annotate/` (the annotators' page) and `/annotate-work/…` (what it asks),
        `/lead/` for leads, `/arena/` where there is one, `/account`, `/people` (with accounts) and `/assets/`.

    Raises:
        UserError: `setup.language` is no language.
    """
    settings = settings or AnnotateSection()
    if settings.accounts and accounts is None:
        accounts = Accounts(service.store, clock=service.clock)
    lifetime = timedelta(hours=settings.session_hours)
    login = LoginSessions(service.store, accounts=settings.accounts, lifetime=lifetime, clock=service.clock)
    there = {"annotate": True, "arena": arena is not None, "lead": True, "people": settings.accounts}
    setup = replace(setup, pages=tuple(page for page, is_there in there.items() if is_there))
    sessions, desk = Sessions(login), Desk(service, setup)
    if setup.guideline:
        service.guidelines.publish(setup.guideline, from_file=True)
    app = FastAPI(title="plumbline", docs_url=None, redoc_url=None, openapi_url=None)
    app.mount("/assets", Assets(directory=STATIC))
    app.add_api_route("/favicon.ico", favicon)
    say = setup.texts.of_service
    app.add_exception_handler(
        StoreUnavailable, lambda request, fault: unavailable(cast("StoreUnavailable", fault), say)
    )
    home = f"{WORK_PATH}/"
    app.include_router(sign_in_routes(Door(service, sessions, accounts, setup, home, f"{LEAD_PATH}/")))
    if accounts is not None:
        app.include_router(people_routes(accounts, sessions, setup, home=home))
    threads = annotators_threads(service.store)
    app.include_router(call_routes(CALLS_PATH, desk.actions, sessions, say=say, limiter=threads))
    app.include_router(call_routes(CALLS_PATH, (desk.decide_as_lead,), sessions, roles=LEADS, say=say, limiter=threads))
    lead = LeadDesk(service, setup)
    app.include_router(lead_routes(lead, sessions))
    app.include_router(export_routes(service, sessions, setup.export_defaults))
    add_api(app, service, defaults=setup.export_defaults, quality=lead.summary)
    pages = [board_page(setup), lead_page(setup)]
    if arena is not None:
        app.include_router(arena_routes(ArenaDesk(setup, arena), sessions, say))
        pages.append(arena_page(setup, masks=arena.arena.rules.mask))
    add_pages(app, pages, sessions, setup)
    app.add_middleware(Guard, hosts=own_hosts(settings), pages=gradio_pages(app), say=say)
    return app


def board_page(setup: Setup) -> GradioPage:
    """The page at `/annotate/`: the guideline at the side, and the board, which `Desk` fills call by call."""
    with gr.Blocks(title=f"{setup.title} · plumbline", analytics_enabled=False, fill_width=True) as blocks:
        with gr.Sidebar(label=setup.texts("board.guideline"), open=False, width=360, elem_id="pl-sidebar"):
            gr.HTML(render_guideline(setup, None), apply_default_css=False)
        gr.HTML(render_shell(setup), elem_id="pl-board", apply_default_css=False)
    return GradioPage(WORK_PATH, blocks, assets=("board.css", "answers.css", "quiz.css", "board.js"))


def favicon() -> Response:
    """The mark, for browsers that ask for it by themselves."""
    return FileResponse(STATIC / "mark.svg", media_type="image/svg+xml")
