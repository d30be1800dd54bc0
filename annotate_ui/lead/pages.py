"""The lead's pages in the app: who may open them, what they load, and the routes that they call."""

from __future__ import annotations

from typing import TYPE_CHECKING

import gradio as gr
from fastapi import Request

from annotate_ui.calls import call_routes
from annotate_ui.lead.desk import LeadDesk
from annotate_ui.lead.render import render_lead
from annotate_ui.theme import plumbline_theme

if TYPE_CHECKING:
    from fastapi import FastAPI

    from annotate_ui.sessions import Sessions
    from annotate_ui.setup import Setup

LEAD_PATH = "/lead"
LEADS = ("lead", "admin")
SHEETS = "".join(f'<link rel="stylesheet" href="/assets/{name}.css">' for name in ("base", "lead", "lead_forms"))
HEAD = f'{SHEETS}<script src="/assets/nav.js"></script><script src="/assets/lead.js"></script>'


def add_lead_pages(app: FastAPI, desk: LeadDesk, sessions: Sessions, setup: Setup) -> None:
    """Mount `/lead/` and the routes `/lead/…` that it calls, all for leads and admins only."""
    shown = (desk.quality, desk.queue, desk.guidelines, desk.exports, desk.decided)
    changed = (desk.take_back, desk.reopen, desk.keep_closed, desk.place, desk.pause, desk.resume, desk.quota)
    actions = (*shown, *changed, desk.set_pool, desk.preview, desk.publish)
    app.include_router(call_routes(LEAD_PATH, actions, sessions, roles=LEADS))

    def lead_name(request: Request) -> str | None:
        session = sessions.read(request)
        return session.name if session and session.role in LEADS else None

    gr.mount_gradio_app(
        app,
        build_blocks(setup),
        path=LEAD_PATH,
        auth_dependency=lead_name,
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


def build_blocks(setup: Setup) -> gr.Blocks:
    """The view: tabs whose panels come from `LeadDesk`, call by call."""
    with gr.Blocks(title=f"{setup.title} · lead · plumbline", analytics_enabled=False, fill_width=True) as blocks:
        gr.HTML(render_lead(setup), elem_id="pl-lead", apply_default_css=False)
    return blocks
