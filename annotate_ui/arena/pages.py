"""The arena's routes and its page."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

import gradio as gr
from anyio import CapacityLimiter
from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool

from annotate_ui.arena.desk import ArenaDesk, BattleMessage
from annotate_ui.calls import AT_ONCE, NO_JSON, SIGNED_OUT, away, call_routes, sentence, unavailable
from annotate_ui.pages import GradioPage
from annotate_ui.render import render_part
from annotate_ui.streams import ClosedStream
from plumbline.errors import StoreUnavailable, UserError
from plumbline.preferences.account_tables import LEADS
from plumbline.preferences.source_names import MASK

if TYPE_CHECKING:
    from annotate_ui.sessions import Sessions
    from annotate_ui.setup import Setup

PATH = "/arena"
CALLS_PATH = "/arena-work"


def arena_routes(desk: ArenaDesk, sessions: Sessions, say: Callable[[str], str] = str) -> APIRouter:
    """What the page asks: plain JSON calls, the leaderboard for leads, and one stream of lines.

    `say` puts a refusal into the language of the interface.
    """
    router = APIRouter()
    limiter = CapacityLimiter(AT_ONCE)  # a vote waits until the models have stopped
    actions = (desk.state, desk.draw, desk.start, desk.consent, desk.vote, desk.go_on, desk.end)
    router.include_router(call_routes(CALLS_PATH, actions, sessions, say=say, limiter=limiter))
    router.include_router(call_routes(CALLS_PATH, (desk.board,), sessions, roles=LEADS, say=say, limiter=limiter))

    @router.post(f"{CALLS_PATH}/listen")
    async def listen(request: Request) -> Response:
        """The answers to a turn, as lines of JSON (see `Stage.answer`), until both are done or the page goes away."""
        if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
            return JSONResponse({"error": say(NO_JSON)}, status_code=415)
        body = await request.body()
        try:
            session = await run_in_threadpool(sessions.read, request)
            if session is None:
                return JSONResponse({"error": say(SIGNED_OUT)}, status_code=401)
            battle_id = BattleMessage.model_validate_json(body).battle
            duel = await run_in_threadpool(desk.arena.duel, session.annotator_id, battle_id)
        except ValidationError:
            return JSONResponse({"error": say("The page sent something that is no battle.")}, status_code=422)
        except StoreUnavailable as fault:
            return unavailable(fault, say)
        except UserError as fault:
            return JSONResponse({"error": say(sentence(fault))})
        lines = _as_lines(desk.stage.answer(session.annotator_id, battle_id, duel), say)
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        return ClosedStream(lines, media_type="application/x-ndjson", headers=headers)

    return router


def arena_page(setup: Setup, *, masks: bool) -> GradioPage:
    """The page at `/arena/`; what it shows comes from `ArenaDesk`, call by call. It tells whether names are masked."""
    with gr.Blocks(title=f"{setup.title} · plumbline", analytics_enabled=False, fill_width=True) as blocks:
        gr.HTML(render_part("arena", setup, mask=MASK if masks else None), elem_id="pl-arena", apply_default_css=False)
    return GradioPage(PATH, blocks, assets=("board.css", "arena.css", "arena.js"))


async def _as_lines(answers: AsyncIterator[Any], say: Callable[[str], str]) -> AsyncGenerator[bytes]:
    try:
        async for answer in answers:
            yield json.dumps(answer).encode() + b"\n"
    except UserError as fault:
        told = away(fault) if isinstance(fault, StoreUnavailable) else sentence(fault)
        yield json.dumps({"error": say(told)}).encode() + b"\n"
    finally:
        await answers.aclose()  # type: ignore[attr-defined]
