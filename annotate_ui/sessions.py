"""Who is signed in: a random token in a cookie, looked up in the database with every request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from plumbline.preferences.validation import digest

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from plumbline.preferences.login_sessions import LoginSessions, SignedIn


@dataclass(frozen=True)
class Session:
    """The signed-in annotator, as the service knows them; `role` is annotator, lead or admin."""

    annotator_id: str
    name: str
    role: str = "annotator"

    @property
    def badge(self) -> str:
        """What tells a page's visitor from others, without their id: a page may outlive the session it was sent to."""
        return digest("badge", self.annotator_id)


class Sessions:
    """Carries sessions in cookies. Nothing is kept in this process, so that any server process knows them all."""

    def __init__(self, login: LoginSessions) -> None:
        self.login = login

    def carry(self, request: Request, response: Response, token: str) -> None:
        """Give the browser a session's token; the session that it came with ends.

        Scripts cannot read the cookie, other sites cannot send it along with a form, and over https no other host
        can set it.
        """
        if before := request.cookies.get(_cookie_name(request)):
            self.login.end(before)
        response.set_cookie(_cookie_name(request), token, **_attributes(request))

    def end(self, request: Request, response: Response) -> None:
        """End the session, in the database and in the browser."""
        if token := request.cookies.get(_cookie_name(request)):
            self.login.end(token)
        response.delete_cookie(_cookie_name(request), **_attributes(request))

    def read(self, request: Request) -> Session | None:
        """The session of a request, with the role that its account has now; None where there is none.

        Raises:
            StoreError: the database cannot be reached.
        """
        found = self._signed_in(request)
        return None if found is None or found.one_time else Session(found.annotator_id, found.name, found.role)

    def newcomer(self, request: Request) -> Session | None:
        """Who signed in with a one-time password and has to choose another before anything else."""
        found = self._signed_in(request)
        return Session(found.annotator_id, found.name, found.role) if found is not None and found.one_time else None

    def _signed_in(self, request: Request) -> SignedIn | None:
        token = request.cookies.get(_cookie_name(request))
        return self.login.read(token) if token else None


def _cookie_name(request: Request) -> str:
    # Browsers do not keep cookies of two ports apart, and two apps may run side by side.
    name = f"plumbline_session_{request.url.port or 'default'}"
    return f"__Host-{name}" if request.url.scheme == "https" else name


def _attributes(request: Request) -> dict[str, Any]:
    return {"httponly": True, "samesite": "lax", "path": "/", "secure": request.url.scheme == "https"}
