"""The page of accounts: leads see who there is, admins change it."""

from __future__ import annotations

from typing import Annotated, Literal, TypedDict

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from pydantic import Field

from annotate_ui.calls import Message, call_routes
from annotate_ui.render import render_accounts, render_people
from annotate_ui.sessions import Sessions
from annotate_ui.setup import Setup
from plumbline.errors import StoreError
from plumbline.preferences.account_tables import LEADS
from plumbline.preferences.accounts import ADMIN, Account, Accounts

Role = Literal["annotator", "lead", "admin"]
PEOPLE_PATH = "/people"


class NewAccountMessage(Message):
    """An account to be made."""

    name: Annotated[str, Field(min_length=1, max_length=200)]
    role: Role = "annotator"


class AccountMessage(Message):
    """Names an account."""

    annotator_id: Annotated[str, Field(pattern="^[0-9a-f]{32}$")]


class RoleMessage(AccountMessage):
    """A role for an account."""

    role: Role


class PeopleReply(TypedDict, total=False):
    """What the page gets back: the list, a sentence, and a one-time password with whose it is, told this once."""

    html: str
    notice: str
    name: str
    password: str


class PeopleDesk:
    """What an admin can do with accounts, one method for each."""

    def __init__(self, accounts: Accounts, setup: Setup) -> None:
        self.accounts, self.setup = accounts, setup

    def create(self, by: str, message: NewAccountMessage) -> PeopleReply:
        """Make an account with a one-time password."""
        account = self.accounts.create(message.name, message.role, by=by)
        password = self.accounts.issue_password(account.annotator_id, by=by)
        return {**self._list(by, f"{account.name} has an account."), "name": account.name, "password": password}

    def reset(self, by: str, message: AccountMessage) -> PeopleReply:
        """Give an account a one-time password in place of its own."""
        if by == message.annotator_id:
            raise StoreError("your own password is changed on the page of your account.")
        account = self._account(message)
        password = self.accounts.issue_password(account.annotator_id, by=by)
        return {**self._list(by, f"{account.name} is signed out."), "name": account.name, "password": password}

    def role(self, by: str, message: RoleMessage) -> PeopleReply:
        """Change an account's role."""
        self.accounts.set_role(message.annotator_id, message.role, by=by)
        return self._list(by, f"{self._account(message).name} is {_with_article(message.role)} now.")

    def deactivate(self, by: str, message: AccountMessage) -> PeopleReply:
        """Close an account."""
        self.accounts.deactivate(message.annotator_id, by=by)
        return self._list(by, f"The account of {self._account(message).name} is closed.")

    def activate(self, by: str, message: AccountMessage) -> PeopleReply:
        """Open a closed account again."""
        self.accounts.activate(message.annotator_id, by=by)
        return self._list(by, f"The account of {self._account(message).name} is open again.")

    def _account(self, message: AccountMessage) -> Account:
        found = next((one for one in self.accounts.all() if one.annotator_id == message.annotator_id), None)
        if found is None:
            raise StoreError("there is no such account any more: load the page again.")
        return found

    def _list(self, by: str, notice: str) -> PeopleReply:
        return {"html": render_accounts(self.setup, self.accounts.all(), own=by, may_change=True), "notice": notice}


def people_routes(accounts: Accounts, sessions: Sessions, setup: Setup, *, home: str) -> APIRouter:
    """`/people` for leads and admins, and `/people/…`, what its buttons ask, for admins."""
    router, desk = APIRouter(), PeopleDesk(accounts, setup)
    actions = (desk.create, desk.reset, desk.role, desk.deactivate, desk.activate)
    router.include_router(call_routes(PEOPLE_PATH, actions, sessions, roles=(ADMIN,)))

    @router.get(PEOPLE_PATH)
    def people(request: Request) -> Response:
        session = sessions.read(request)
        if session is None or session.role not in LEADS:
            return RedirectResponse(home if session else "/", status_code=303)
        page = render_people(setup, accounts.all(), session, may_change=session.role == ADMIN)
        return HTMLResponse(page, headers={"Cache-Control": "no-store"})

    return router


def _with_article(role: str) -> str:
    return f"{'an' if role[0] in 'aeiou' else 'a'} {role}"
