"""Signing in and out, and the account page: plain forms, which work without scripts."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from annotate_ui.calls import away, sentence
from annotate_ui.render import render_account, render_first_password, render_sign_in
from annotate_ui.sessions import Session, Sessions
from plumbline.errors import StoreError, StoreUnavailable, UserError
from plumbline.preferences.account_tables import LEADS
from plumbline.preferences.accounts import Accounts, WrongPassword
from plumbline.preferences.passwords import AT_ONCE
from plumbline.preferences.throttle import TooManyAttempts

if TYPE_CHECKING:
    from annotate_ui.setup import Setup
    from plumbline.preferences.service import PreferenceService

NOT_THE_SAME = "the two new passwords differ: enter the same one twice."
FormText = Annotated[str, Form()]


@dataclass(frozen=True)
class Door:
    """How visitors come in and go, and what they can change of their own account.

    Attributes:
        service: enrols those who sign in by name.
        sessions: who is in.
        accounts: checks passwords; None where everybody signs in by name.
        setup: how the pages are set.
        home: where annotators go after signing in.
        leads_home: where those go who have a lead's or an admin's account: a task is taken by opening the annotators'
            page, and they may not want one.
    """

    service: PreferenceService
    sessions: Sessions
    accounts: Accounts | None
    setup: Setup
    home: str
    leads_home: str

    def front(self, request: Request) -> Response:
        """The sign-in page; for those who are in already, the way on."""
        if newcomer := self.sessions.newcomer(request):
            return _page(render_first_password(self.setup, name=newcomer.name))
        found = self.sessions.read(request)
        return _to(self._home_of(found.role)) if found else _page(self._sign_in_page())

    def sign_in(self, request: Request, name: str, password: str) -> Response:
        """Start a session, by name and password or by name alone."""
        try:
            token, where = self._admit(request, name, password)
        except UserError as fault:
            return _refused(fault, self._sign_in_page(name, _told(fault)))
        response = _to(where)
        self.sessions.carry(request, response, token)
        return response

    def sign_out(self, request: Request) -> Response:
        """End this session; what they hold goes back first, so that others need not wait until its time is over."""
        response = _to("/")
        if found := self.sessions.read(request):
            with suppress(StoreError):  # nobody is kept in by a task
                self.service.release(None, found.annotator_id, aside=True)
        self.sessions.end(request, response)
        return response

    def sign_out_everywhere(self, request: Request) -> Response:
        """End all sessions of whoever asks."""
        found = self.sessions.read(request)
        response = self.sign_out(request)
        if found:
            self.sessions.login.end_all(found.annotator_id)
        return response

    def account(self, request: Request, *, changed: bool) -> Response:
        """The account page; `changed` says that the password was just changed."""
        found = self.sessions.read(request)
        return _page(self._account_page(found, changed=changed)) if found else _to("/")

    def change_password(self, request: Request, new: str, again: str, current: str) -> Response:
        """Choose another password; whoever came with a one-time password need not give that again."""
        newcomer = self.sessions.newcomer(request)
        found = newcomer or self.sessions.read(request)
        if self.accounts is None or found is None:
            return _to("/")
        try:
            if new != again:
                raise UserError(NOT_THE_SAME)
            token = self.accounts.change_password(
                found.annotator_id,
                new,
                current=None if newcomer else current,
                address=client_of(request),
                sessions=self.sessions.login,
            )
        except UserError as fault:
            error = _told(fault)
            if newcomer:
                return _refused(fault, render_first_password(self.setup, name=found.name, error=error))
            return _refused(fault, self._account_page(found, error=error))
        response = _to(self._home_of(found.role) if newcomer else "/account?changed=true")
        self.sessions.carry(request, response, token)
        return response

    def _admit(self, request: Request, name: str, password: str) -> tuple[str, str]:
        """The new session's token, and where to go with it."""
        if self.accounts is None:
            annotator = self.service.sign_in(name.strip())
            return self.sessions.login.start(annotator.annotator_id), self.home
        account, token = self.accounts.sign_in(name, password, address=client_of(request), sessions=self.sessions.login)
        return token, self._home_of(account.role) if account.password == "own" else "/"

    def _home_of(self, role: str) -> str:
        return self.leads_home if self.accounts is not None and role in LEADS else self.home

    def _sign_in_page(self, name: str = "", error: str | None = None) -> str:
        return render_sign_in(self.setup, name=name, error=error, passwords=self.accounts is not None)

    def _account_page(self, found: Session, *, changed: bool = False, error: str | None = None) -> str:
        passwords = self.accounts is not None
        return render_account(self.setup, found, passwords=passwords, changed=changed, error=error)


def sign_in_routes(door: Door) -> APIRouter:
    """`/` (sign in), `/sign-in`, `/sign-out`, `/session` and `/account`."""
    router = APIRouter()
    hashing = CapacityLimiter(AT_ONCE)  # who guesses passwords waits here, not in the threads that answer annotators

    @router.get("/")
    def front(request: Request) -> Response:
        return door.front(request)

    @router.post("/sign-in")
    async def sign_in(request: Request, name: FormText = "", password: FormText = "") -> Response:
        return await to_thread.run_sync(lambda: door.sign_in(request, name, password), limiter=hashing)

    @router.post("/sign-out")
    def sign_out(request: Request) -> Response:
        return door.sign_out(request)

    @router.get("/session")
    def session(request: Request, response: Response) -> dict[str, str | None]:
        found = door.sessions.read(request)
        response.headers["Cache-Control"] = "no-store"
        return {"name": found.name if found else None, "role": found.role if found else None}

    @router.get("/account")
    def account(request: Request, changed: bool = False) -> Response:
        return door.account(request, changed=changed)

    @router.post("/account/password")
    async def change_password(
        request: Request, new: FormText = "", again: FormText = "", current: FormText = ""
    ) -> Response:
        return await to_thread.run_sync(lambda: door.change_password(request, new, again, current), limiter=hashing)

    @router.post("/account/sign-out-everywhere")
    def sign_out_everywhere(request: Request) -> Response:
        return door.sign_out_everywhere(request)

    return router


def client_of(request: Request) -> str:
    """The client's address; behind the proxy that the recipe names, the one that this says."""
    return request.client.host if request.client else "unknown"


def _to(where: str) -> Response:
    return RedirectResponse(where, status_code=303)


def _page(html: str, status: int = 200) -> Response:
    # Not kept by the browser: on a shared machine the next person could go back to it.
    return HTMLResponse(html, status_code=status, headers={"Cache-Control": "no-store"})


def _refused(fault: UserError, html: str) -> Response:
    if isinstance(fault, TooManyAttempts):
        response = _page(html, 429)
        response.headers["Retry-After"] = str(math.ceil(fault.wait.total_seconds()))
        return response
    statuses = {WrongPassword: 401, StoreUnavailable: 503}
    return _page(html, next((status for kind, status in statuses.items() if isinstance(fault, kind)), 400))


def _told(fault: UserError) -> str:
    """A fault as a sentence for a page; of a store that is away, without files and addresses."""
    return away(fault) if isinstance(fault, StoreUnavailable) else sentence(fault)
