"""The lead's pages in the app: who may open them, what they load, and the routes that they call."""

from __future__ import annotations

from typing import TYPE_CHECKING

import gradio as gr
from fastapi import APIRouter

from annotate_ui.calls import call_routes
from annotate_ui.lead.desk import LeadDesk
from annotate_ui.lead.render import render_lead
from annotate_ui.pages import GradioPage
from plumbline.preferences.account_tables import LEADS

if TYPE_CHECKING:
    from annotate_ui.sessions import Sessions
    from annotate_ui.setup import Setup

LEAD_PATH = "/lead"
CALLS_PATH = "/lead-work"  # beside the page, of whose paths the guard lets only Gradio's few pass


def lead_page(setup: Setup) -> GradioPage:
    """The page at `/lead/`: tabs whose panels come from `LeadDesk`, call by call."""
    with gr.Blocks(title=f"{setup.title} · lead · plumbline", analytics_enabled=False, fill_width=True) as blocks:
        gr.HTML(render_lead(setup), elem_id="pl-lead", apply_default_css=False)
    return GradioPage(LEAD_PATH, blocks, assets=("lead.css", "lead_forms.css", "lead.js"), roles=LEADS)


def lead_routes(desk: LeadDesk, sessions: Sessions) -> APIRouter:
    """The routes `/lead-work/…` that the page calls, for leads and admins only."""
    shown = (desk.quality, desk.queue, desk.find, desk.guidelines, desk.exports, desk.check_export, desk.decided)
    changed = (desk.take_back, desk.reopen, desk.keep_closed, desk.place, desk.pause, desk.resume, desk.quota)
    quiz = (desk.quiz_again, desk.quiz_let_in)
    actions = (*shown, *changed, *quiz, desk.set_pool, desk.restrict, desk.make_gold, desk.preview, desk.publish)
    return call_routes(CALLS_PATH, actions, sessions, roles=LEADS)
