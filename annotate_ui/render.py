"""The parts of the page as HTML: Jinja escapes every value, and texts pass through `safe_html`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from string import ascii_uppercase
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from annotate_ui.markdown import safe_html
from annotate_ui.nav import PAGES

if TYPE_CHECKING:
    from annotate_ui.setup import Setup
    from plumbline.preferences.records import Assignment

SKIP_REASONS = {
    "unknown_topic": "I do not know this topic well enough",
    "unclear": "The prompt is unclear",
    "too_long": "It would take too long",
}
"""Text key to what the store keeps, which is the same in every language."""

FLAG_KINDS = ("personal-data", "harmful", "broken", "source-named", "other")


def render_task(setup: Setup, assignment: Assignment, earlier: Mapping[str, int], counts: Mapping[str, int]) -> str:
    """A task: the conversation, and the responses as cards A, B, C, … in the order that the service recorded.

    Args:
        setup: how the app is set.
        assignment: what to show; nothing in it names a response's source.
        earlier: response id to rank, where a ranking is being corrected.
        counts: see `render_empty`.
    """
    cards = [
        {"letter": letter, "id": card.response_id, "text": card.text, "rank": earlier.get(card.response_id)}
        for letter, card in zip(ascii_uppercase, assignment.cards, strict=False)
    ]
    return _render("task", setup, assignment=assignment, cards=cards, counts=counts)


def render_empty(setup: Setup, reason: str, counts: Mapping[str, int]) -> str:
    """Nothing to do, and why.

    Args:
        setup: how the app is set.
        reason: the service's sentence.
        counts: `mine` and `remaining` for this annotator, `done` and `required` for the whole project.
    """
    return _render("empty", setup, reason=setup.texts.of_service(reason), counts=counts)


def render_shell(setup: Setup) -> str:
    """What stays on the annotators' page while tasks come and go: head line, dialogs, and the place for the task."""
    return _render("shell", setup, nav=render_nav, skip_reasons=SKIP_REASONS, flag_kinds=FLAG_KINDS)


def render_nav(setup: Setup, here: str, buttons: str = "") -> Markup:
    """The head line, the same on every page: title, links by role, name, light or dark, sign out.

    The page loads `/assets/nav.js` (`annotate_ui.app.NAV_SCRIPT`) and `/assets/base.css`.

    Args:
        setup: its `pages` are linked.
        here: name of the page that shows it.
        buttons: the page's own buttons, as safe HTML (`Markup`); plain text is escaped.
    """
    pages = [page for page in PAGES if page.name in setup.pages]
    return Markup(_render("nav", setup, title=setup.title, pages=pages, here=here, buttons=buttons))


def render_sign_in(setup: Setup, *, name: str = "", error: str | None = None) -> str:
    """The page on which an annotator says their name."""
    return _render("signin", setup, title=setup.title, name=name, error=error and setup.texts.of_service(error))


def render_guideline(guideline: str) -> str:
    """The guideline panel's content."""
    return f'<div class="pl-text pl-guideline" dir="auto">{safe_html(guideline, keep_lines=False)}</div>'


def render_part(template: str, setup: Setup, /, **values: Any) -> str:
    """A template of `templates/` with the words of the setup's language as `t`, and the head line as `nav`."""
    return _render(template, setup, nav=render_nav, **values)


def _render(template: str, setup: Setup, /, **values: Any) -> str:
    html: str = _environment().get_template(f"{template}.html.j2").render(setup=setup, t=setup.texts, **values)
    return html


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
