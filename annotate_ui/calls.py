"""What a page asks of the server: one POST route of JSON for each thing that a visitor can do.

The routes stand beside Gradio's, which queue every event: the same answer takes a fifth of the time here, and all that
decides who may do what is in one place.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any, get_type_hints

import anyio.to_thread
from anyio import CapacityLimiter
from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, ValidationError

from annotate_ui.sessions import Sessions
from plumbline.errors import StoreConflict, StoreUnavailable, UserError
from plumbline.preferences import audit
from plumbline.preferences.store import Store

Action = Callable[[str, Any], Mapping[str, Any]]
"""Takes the annotator's id and a `Message`; what it returns is sent as JSON."""

SIGNED_OUT = "You are signed out. Reload the page to sign in again."
SOMEBODY_ELSE = "Somebody else has signed in in this browser since. Reload the page to go on under their name."
BADGE = "x-plumbline-badge"
"""With this header a page says whose it is (`Session.badge`): what it sends for them is never taken as another's."""
NOT_YOURS = "Your account may not do this."
NO_JSON = "This address takes JSON."
TRY_AGAIN = {"Retry-After": "2"}
"""Seconds after which a page may send the same again."""

CONFLICTS = 3
"""Times that a call is tried whose change got in the way of another one."""

AT_ONCE = 8
"""Calls of a page that are answered at once, in threads of its own; the others wait in the order in which they came."""

AT_ONCE_ON_SQLITE = 2
"""Annotators' calls that are answered at once where one may write at a time: one of them waits for the disk or for the
store while the other renders. A third would only take the interpreter from whoever holds the store (measured with 64
annotators: 210 judgements/s with 2 threads, 120 with 8, 190 with 1)."""


class Message(BaseModel):
    """What a page may send; anything else is refused."""

    model_config = ConfigDict(extra="forbid", strict=True, str_strip_whitespace=True)


class Nothing(Message):
    """A question that needs no words."""


def call_routes(
    prefix: str,
    actions: Iterable[Action],
    sessions: Sessions,
    *,
    roles: Iterable[str] = (),
    say: Callable[[str], str] = str,
    limiter: CapacityLimiter | None = None,
) -> APIRouter:
    """A route `PREFIX/NAME` for each action, named after it.

    Args:
        prefix: such as `/work`.
        actions: methods with an argument `message`, whose type says what may be sent.
        sessions: who asks; the identity never comes from the message.
        roles: who may ask; empty for everybody who is signed in.
        say: puts a refusal into the language of the interface (`Texts.of_service`).
        limiter: threads in which the calls are answered, where several routers share them; by default `AT_ONCE`, so
            that no page waits for another one's calls.

    Faults come back as `{"error": sentence}`: with status 401 without a session, 409 where the page is another
    person's, 403 with the wrong role, 422 for what is no such message, 503 with `Retry-After` while the store cannot
    be read or written (the same call may be sent again); with 200 where a rule of the service refused, because the page
    then goes on.
    """
    router = APIRouter(prefix=prefix)
    limiter = limiter or CapacityLimiter(AT_ONCE)
    for action in actions:
        route = _route(action, sessions, frozenset(roles), say, limiter)
        router.add_api_route(f"/{action.__name__}", route, methods=["POST"])
    return router


def annotators_threads(store: Store) -> CapacityLimiter:
    """The threads in which annotators' calls are answered."""
    return CapacityLimiter(AT_ONCE_ON_SQLITE if store.is_sqlite else AT_ONCE)


def _route(
    action: Action,
    sessions: Sessions,
    roles: frozenset[str],
    say: Callable[[str], str],
    limiter: CapacityLimiter,
) -> Callable[..., Any]:
    message_type: type[Message] = get_type_hints(action)["message"]

    def answer(request: Request, body: bytes) -> Response:
        try:
            session = sessions.read(request)
            if session is None:
                return _refused(401, say(SIGNED_OUT))
            if (badge := request.headers.get(BADGE)) and badge != session.badge:
                return _refused(409, say(SOMEBODY_ELSE))
            if roles and session.role not in roles:
                return _refused(403, say(NOT_YOURS))
            audit.ACTOR.set(session.annotator_id)  # of this request alone: each has a context of its own
            message = message_type.model_validate_json(body)
            return JSONResponse(_without_conflict(lambda: action(session.annotator_id, message)))
        except StoreUnavailable as fault:
            return unavailable(fault, say)
        except UserError as fault:
            return _refused(200, say(sentence(fault)))
        except ValidationError as fault:
            return _refused(422, say(f"The page sent something that cannot be stored ({_first_fault(fault)})."))

    async def handle(request: Request) -> Response:
        # Other sites' forms cannot send this type, so their visitors' cookies are of no use to them.
        if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
            return _refused(415, say(NO_JSON))
        body = await request.body()
        response = await anyio.to_thread.run_sync(answer, request, body, limiter=limiter)
        response.headers.setdefault("Cache-Control", "no-store")  # nor may a page come back that shows it
        return response

    return handle


def sentence(fault: UserError) -> str:
    """A fault as a sentence for a page."""
    return str(fault)[:1].upper() + str(fault)[1:]


def unavailable(fault: StoreUnavailable, say: Callable[[str], str] = str) -> Response:
    """The answer while the store cannot be read or written; who runs the server finds the details in its output."""
    logging.getLogger(__name__).warning("%s", fault)
    return _refused(503, say(away(fault)), TRY_AGAIN)


def away(fault: StoreUnavailable) -> str:
    """A store that is away as a sentence for a page: no files, no addresses."""
    return f"Nothing can be saved just now: {fault.why}. What you entered stays on this page."


def _without_conflict(act: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any]:
    """Do it, again where it was undone in favour of another change: each action is one transaction, or repeatable."""
    for _ in range(CONFLICTS - 1):
        with contextlib.suppress(StoreConflict):
            return act()
    return act()


def _refused(status: int, text: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"error": text}, status_code=status, headers=headers)


def _first_fault(fault: ValidationError) -> str:
    first = fault.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(map(str, first['loc'])) or 'message'}: {first['msg']}"
