"""What a page asks of the server: one POST route of JSON for each thing that a visitor can do.

The routes stand beside Gradio's, which queue every event: the same answer takes a fifth of the time here, and all that
decides who may do what is in one place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, get_type_hints

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.concurrency import run_in_threadpool

from annotate_ui.sessions import Sessions
from plumbline.errors import UserError
from plumbline.preferences import audit

Action = Callable[[str, Any], Mapping[str, Any]]
"""Takes the annotator's id and a `Message`; what it returns is sent as JSON."""

SIGNED_OUT = "You are signed out. Reload the page to sign in again."
NOT_YOURS = "Your account may not do this."


class Message(BaseModel):
    """What a page may send; anything else is refused."""

    model_config = ConfigDict(extra="forbid", strict=True, str_strip_whitespace=True)


def call_routes(prefix: str, actions: Iterable[Action], sessions: Sessions, *, roles: Iterable[str] = ()) -> APIRouter:
    """A route `PREFIX/NAME` for each action, named after it.

    Args:
        prefix: such as `/work`.
        actions: methods with an argument `message`, whose type says what may be sent.
        sessions: who asks; the identity never comes from the message.
        roles: who may ask; empty for everybody who is signed in.

    Faults come back as `{"error": sentence}`: with status 401 without a session, 403 with the wrong role, 422 for what
    is no such message, 503 while the database is away, so that nobody can tell who asks; with 200 where a rule of the
    service refused, because the page then goes on.
    """
    router = APIRouter(prefix=prefix)
    for action in actions:
        router.add_api_route(f"/{action.__name__}", _route(action, sessions, frozenset(roles)), methods=["POST"])
    return router


def _route(action: Action, sessions: Sessions, roles: frozenset[str]) -> Callable[..., Any]:
    message_type: type[Message] = get_type_hints(action)["message"]

    def answer(request: Request, body: bytes) -> Response:
        try:
            session = sessions.read(request)
        except UserError as fault:  # the database is away
            return _refused(503, sentence(fault))
        if session is None:
            return _refused(401, SIGNED_OUT)
        if roles and session.role not in roles:
            return _refused(403, NOT_YOURS)
        audit.ACTOR.set(session.annotator_id)  # of this request alone: each has a context of its own
        try:
            return JSONResponse(action(session.annotator_id, message_type.model_validate_json(body)))
        except UserError as fault:
            return _refused(200, sentence(fault))
        except ValidationError as fault:
            return _refused(422, f"The page sent something that cannot be stored ({_first_fault(fault)}).")

    async def handle(request: Request) -> Response:
        # Other sites' forms cannot send this type, so their visitors' cookies are of no use to them.
        if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
            return _refused(415, "This address takes JSON.")
        body = await request.body()
        return await run_in_threadpool(answer, request, body)

    return handle


def sentence(fault: UserError) -> str:
    """A fault as a sentence for a page."""
    return str(fault)[:1].upper() + str(fault)[1:]


def _refused(status: int, text: str) -> JSONResponse:
    return JSONResponse({"error": text}, status_code=status)


def _first_fault(fault: ValidationError) -> str:
    first = fault.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(map(str, first['loc'])) or 'message'}: {first['msg']}"
