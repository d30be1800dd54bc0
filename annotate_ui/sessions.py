"""Who is signed in: a cookie signed with a secret that lives as long as the server."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response


@dataclass(frozen=True)
class Session:
    """The signed-in annotator, as the service knows them; `role` is annotator, lead or admin."""

    annotator_id: str
    name: str
    role: str = "annotator"


class Sessions:
    """Issues and reads session cookies.

    The secret is made at start and kept in memory: a restart signs everybody out, and nothing secret is on disk.
    """

    def __init__(self, secret: bytes | None = None) -> None:
        self._secret = secret or secrets.token_bytes(32)

    def start(self, request: Request, response: Response, session: Session) -> None:
        """Set the session's cookie; scripts cannot read it and other sites cannot send it along with a form."""
        payload = _encode(json.dumps([session.annotator_id, session.name]).encode())
        response.set_cookie(
            _cookie_name(request), f"{payload}.{self._signature(payload)}", httponly=True, samesite="lax", path="/"
        )

    def end(self, request: Request, response: Response) -> None:
        """Forget the session."""
        response.delete_cookie(_cookie_name(request), httponly=True, samesite="lax", path="/")

    def read(self, request: Request) -> Session | None:
        """The session of a request, or None where the cookie is missing or was not signed by this server."""
        payload, _, signature = request.cookies.get(_cookie_name(request), "").partition(".")
        if not payload or not hmac.compare_digest(signature.encode(), self._signature(payload).encode()):
            return None
        annotator_id, name = json.loads(base64.urlsafe_b64decode(payload))
        return Session(annotator_id, name)

    def _signature(self, payload: str) -> str:
        return _encode(hmac.new(self._secret, payload.encode(), hashlib.sha256).digest())


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode()


def _cookie_name(request: Request) -> str:
    # Browsers do not keep cookies of two ports apart, and two apps may run side by side.
    return f"plumbline_session_{request.url.port or 'default'}"
