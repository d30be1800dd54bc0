"""The parts of the page as HTML: Jinja escapes every value, and texts pass through `safe_html`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from string import ascii_uppercase
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from annotate_ui.markdown import safe_html

if TYPE_CHECKING:
    from annotate_ui.sessions import Session
    from plumbline.preferences.accounts import Account
    from plumbline.preferences.records import Assignment

SKIP_REASONS = (
    "I do not know this topic well enough",
    "The prompt is unclear",
    "It would take too long",
)
FLAG_KINDS = {
    "personal-data": "Personal data of a real person",
    "harmful": "Harmful or offensive",
    "broken": "Broken, cut off or not readable",
    "source-named": "A response says which model wrote it",
    "other": "Something else",
}
SPEAKERS = {"system": "Instructions to the assistant", "user": "User", "assistant": "Assistant"}


def render_task(assignment: Assignment, earlier: Mapping[str, int], counts: Mapping[str, int]) -> str:
    """A task: the conversation, and the responses as cards A, B, C, … in the order that the service recorded.

    Args:
        assignment: what to show; nothing in it names a response's source.
        earlier: response id to rank, where a ranking is being corrected.
        counts: see `render_empty`.
    """
    cards = [
        {"letter": letter, "id": card.response_id, "text": card.text, "rank": earlier.get(card.response_id)}
        for letter, card in zip(ascii_uppercase, assignment.cards, strict=False)
    ]
    return _template("task").render(assignment=assignment, cards=cards, counts=counts, speakers=SPEAKERS)


def render_empty(reason: str, counts: Mapping[str, int]) -> str:
    """Nothing to do, and why.

    Args:
        reason: the service's sentence.
        counts: `mine` and `remaining` for this annotator, `done` and `required` for the whole project.
    """
    return _template("empty").render(reason=reason, counts=counts)


def render_shell(title: str, *, guideline: bool) -> str:
    """What stays on the page while tasks come and go: head line, dialogs, and the place for the task.

    `guideline` says whether there is a guideline panel to open.
    """
    return _template("shell").render(title=title, guideline=guideline, skip_reasons=SKIP_REASONS, flag_kinds=FLAG_KINDS)


def render_sign_in(title: str, *, name: str = "", error: str | None = None, passwords: bool = False) -> str:
    """The page on which an annotator says their name, and their password where there are `passwords`."""
    return _template("signin").render(title=title, name=name, error=error, passwords=passwords)


def render_first_password(title: str, *, name: str, error: str | None = None) -> str:
    """The page on which whoever came with a one-time password chooses another."""
    return _template("first_password").render(title=title, name=name, error=error)


def render_account(
    title: str, session: Session, *, passwords: bool, changed: bool, error: str | None, home: str
) -> str:
    """The page of one's own account: the password, where there are `passwords`, and all sessions."""
    return _template("account").render(
        title=title, session=session, passwords=passwords, changed=changed, error=error, home=home
    )


def render_people(title: str, accounts: Sequence[Account], session: Session, *, may_change: bool, home: str) -> str:
    """The page of accounts; the buttons are there for those who may use them (`may_change`)."""
    rows = Markup(render_accounts(accounts, own=session.annotator_id, may_change=may_change))
    return _template("people").render(title=title, rows=rows, session=session, may_change=may_change, home=home)


def render_accounts(accounts: Sequence[Account], *, own: str, may_change: bool) -> str:
    """The list of accounts; `own` is the account of whoever looks."""
    return _template("accounts").render(accounts=accounts, own=own, may_change=may_change)


def render_guideline(guideline: str) -> str:
    """The guideline panel's content."""
    return f'<div class="pl-text pl-guideline" dir="auto">{safe_html(guideline, keep_lines=False)}</div>'


def _template(name: str) -> Any:
    return _environment().get_template(f"{name}.html.j2")


@lru_cache(maxsize=1)
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("annotate_ui"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["markdown"] = lambda text: Markup(safe_html(text))
    return environment
