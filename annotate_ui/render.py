"""The parts of the page as HTML: Jinja escapes every value, and texts pass through `safe_html`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from itertools import groupby
from string import ascii_uppercase
from textwrap import shorten
from typing import TYPE_CHECKING, Any, Literal

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from annotate_ui.changes import around, changes
from annotate_ui.markdown import safe_html, shown_blank, shown_html, shown_plain
from annotate_ui.nav import PAGES
from annotate_ui.wording import ago
from plumbline.numbers import signed
from plumbline.preferences.records import ALL_BAD, FLAG, SKIP
from plumbline.preferences.source_names import MASK
from plumbline.preferences.turn import now_utc
from plumbline.preferences.validation import MAX_EDITED

if TYPE_CHECKING:
    from annotate_ui.i18n import Texts
    from annotate_ui.sessions import Session
    from annotate_ui.setup import Setup
    from plumbline.preferences.accounts import Account
    from plumbline.preferences.guidelines import GuidelineVersion
    from plumbline.preferences.quiz import Graded
    from plumbline.preferences.records import Assignment, NeedsConsent, NeedsQuiz, NoWork, OwnWork

SKIP_REASONS = {
    "unknown_topic": "I do not know this topic well enough",
    "unclear": "The prompt is unclear",
    "too_long": "It would take too long",
}
"""Text key to what the store keeps, which is the same in every language."""

FOLD_ABOVE = 1500
"""Characters of earlier turns above which these are folded away."""

SHORT = 120
"""Characters of a text in the list of own answers."""

MOMENT = "\ufffc"
"""Stands for a moment in a sentence, until it is shown."""

FLAG_KINDS = ("personal-data", "harmful", "broken", "source-named", "other")


def render_task(setup: Setup, assignment: Assignment, counts: Mapping[str, Any], *, deciding: bool = False) -> str:
    """A task: the conversation, and the responses as cards A, B, C, … in the order that the service recorded.

    Args:
        setup: how the app is set.
        assignment: what to show; nothing in it names a response's source.
        counts: see `render_empty`.
        deciding: whether it is a disputed task, which this ranking decides.
    """
    cards = [
        {"letter": letter, "id": card.response_id, "text": card.text}
        for letter, card in zip(ascii_uppercase, assignment.cards, strict=False)
    ]
    earlier = sum(len(message["content"]) for message in assignment.prompt[:-1])
    fold = earlier > FOLD_ABOVE
    shown = {"cards": cards, "counts": counts, "fold": fold, "longest": MAX_EDITED, "mask": MASK, "deciding": deciding}
    return render_part("task", setup, assignment=assignment, **shown)


def render_empty(setup: Setup, work: NoWork, counts: Mapping[str, Any]) -> str:
    """Nothing to do, and why.

    Args:
        setup: how the app is set.
        work: what the service said.
        counts: `mine` and `remaining` (None where they get no work) for this annotator, `share` (percent) for the whole
            project; `time_left` (see `time_left`) and `streak`, or None.
    """
    reason: str = escape(why_no_work(setup.texts, work))
    until = work.values.get("until")
    if until:
        reason = reason.replace(MOMENT, moment(until, "time"))
    return render_part("empty", setup, reason=reason, counts=counts)


def why_no_work(texts: Texts, work: NoWork) -> str:
    """The service's reason in the language of the interface; in English where the case is not known.

    A moment in it is told as `MOMENT`: each browser shows it in its own zone.
    """
    key, values = f"nowork.{work.kind}", work.values
    if values.get("until"):
        return texts(f"{key}_until", until=MOMENT)
    if values.get("flagged"):
        return texts.counted(f"{key}_flagged", values["flagged"])
    if f"{key}.one" in texts.texts:
        return texts.counted(key, values["left"])
    told = {name: texts.of_service(value) if isinstance(value, str) else value for name, value in values.items()}
    return texts(key, **told) if key in texts.texts else texts.of_service(work.reason)


def moment(when: datetime, shows: Literal["time", "both"] = "both") -> Markup:
    """A moment as an element that the page shows in the browser's zone and language: its time, or date and time."""
    plain = f"{when:%H:%M} UTC" if shows == "time" else f"{when:%Y-%m-%d %H:%M} UTC"
    return Markup('<time datetime="{}" data-shows="{}">{}</time>').format(when.isoformat(), shows, plain)


def render_consent(setup: Setup, needed: NeedsConsent, counts: Mapping[str, Any]) -> str:
    """The guideline that is to be accepted before there is work; `counts` as in `render_empty`."""
    dialog = Markup(render_consent_dialog(setup, needed))
    return render_part("consent", setup, needed=needed, dialog=dialog, counts=counts)


def render_consent_dialog(setup: Setup, needed: NeedsConsent) -> str:
    """The guideline that is to be accepted, as a dialog."""
    guideline = Markup(safe_html(needed.text, keep_lines=False))
    return render_part("consent_dialog", setup, needed=needed, guideline=guideline)


def render_quiz(setup: Setup, quiz: NeedsQuiz, counts: Mapping[str, Any]) -> str:
    """The questions on the guideline; `counts` as in `render_empty`."""
    return render_part("quiz", setup, quiz=quiz, counts=counts)


def render_graded(setup: Setup, graded: Graded) -> str:
    """What became of a try at the quiz, and what was wrong."""
    return render_part("quiz_graded", setup, graded=graded)


def render_history(setup: Setup, answers: Sequence[OwnWork], *, first: bool, more: bool) -> str:
    """Own answers as items of a list; `first` and `more` say whether the list begins and goes on."""
    items = [
        {
            "id": own.answer.answer_id,
            "said": _said(setup.texts, own),
            "at": own.answer.judged_at,
            "prompt": shorten(own.prompt[-1]["content"], SHORT, placeholder=" …"),
            "reason": shorten(own.answer.reason or "", SHORT, placeholder=" …"),
        }
        for own in answers
    ]
    return render_part("history", setup, items=items, first=first, more=more)


def render_own(setup: Setup, own: OwnWork) -> str:
    """An own answer in full: the conversation, what was said of each response, the reason, the improved response."""
    cards = [
        {
            "letter": letter,
            "text": card.text,
            "rank": own.answer.ranking.get(card.response_id),
            "scores": [
                (axis.question, own.answer.scores[axis.name][card.response_id], axis.levels)
                for axis in setup.rubric
                if card.response_id in own.answer.scores.get(axis.name, {})
            ],
        }
        for letter, card in zip(ascii_uppercase, own.cards, strict=False)
    ]
    gaps = [setup.texts(f"js.grade_{gap}") for gap in own.answer.gaps]
    return render_part("own", setup, own=own, cards=cards, gaps=gaps)


def time_left(setup: Setup, seconds: float) -> str:
    """A time as people say it, such as `about 12 min left`."""
    minutes = round(seconds / 60)
    if minutes < 1:
        return setup.texts("progress.soon")
    if minutes < 90:
        return setup.texts("progress.minutes", minutes=minutes)
    return setup.texts("progress.hours", hours=minutes // 60, minutes=minutes % 60)


def render_shell(setup: Setup) -> str:
    """What stays on the annotators' page while tasks come and go: head line, dialogs, and the place for the task."""
    return render_part("shell", setup, skip_reasons=SKIP_REASONS, flag_kinds=FLAG_KINDS)


def render_nav(setup: Setup, here: str, buttons: str = "") -> Markup:
    """The head line, the same on every page: title, links by role, name, light or dark, sign out.

    The page loads `/assets/nav.js`, `/assets/nav.css` and `/assets/base.css`.

    Args:
        setup: its `pages` are linked.
        here: name of the page that shows it.
        buttons: the page's own buttons, as safe HTML (`Markup`); plain text is escaped.
    """
    pages = [page for page in PAGES if page.name in setup.pages]
    return Markup(render_part("nav", setup, title=setup.title, pages=pages, here=here, buttons=buttons))


def render_refused(setup: Setup) -> str:
    """The page for those whose role may not see what they asked for."""
    return render_part("refused", setup)


def render_sign_in(setup: Setup, *, name: str = "", error: str | None = None, passwords: bool = False) -> str:
    """The page on which an annotator says their name, and their password where there are `passwords`."""
    fault = error and setup.texts.of_service(error)
    return render_part("signin", setup, title=setup.title, name=name, error=fault, passwords=passwords)


def render_first_password(setup: Setup, *, name: str, error: str | None = None) -> str:
    """The page on which whoever came with a one-time password chooses another."""
    fault = error and setup.texts.of_service(error)
    return render_part("first_password", setup, title=setup.title, name=name, error=fault)


def render_account(setup: Setup, session: Session, *, passwords: bool, changed: bool, error: str | None) -> str:
    """The page of one's own account: the password, where there are `passwords`, and all sessions."""
    fault = error and setup.texts.of_service(error)
    about = {"session": session, "passwords": passwords, "changed": changed, "error": fault}
    return render_part("account", setup, title=setup.title, **about)


def render_people(setup: Setup, accounts: Sequence[Account], session: Session, *, may_change: bool) -> str:
    """The page of accounts; the buttons are there for those who may use them (`may_change`)."""
    rows = Markup(render_accounts(setup, accounts, own=session.annotator_id, may_change=may_change))
    return render_part("people", setup, title=setup.title, rows=rows, may_change=may_change)


def render_accounts(setup: Setup, accounts: Sequence[Account], *, own: str, may_change: bool) -> str:
    """The list of accounts; `own` is the account of whoever looks."""
    now = now_utc()
    about = {"own": own, "may_change": may_change, "ago": lambda then: ago(then, now)}
    return render_part("accounts", setup, accounts=accounts, **about)


def render_guideline(setup: Setup, guideline: GuidelineVersion | None) -> str:
    """The guideline panel's content; None for the place into which the page puts it."""
    html = Markup(safe_html(guideline.text, keep_lines=False)) if guideline else None
    return render_part("guideline", setup, version=guideline and guideline.version, html=html)


def _said(texts: Texts, own: OwnWork) -> str:
    """An answer in short: `B > A = C`, skipped, or flagged."""
    answer = own.answer
    if answer.kind == SKIP:
        return texts("work.skipped")
    if answer.kind == FLAG:
        kind = next(iter(answer.flags), "other")
        return texts("work.flagged", kind=texts(f"flag.{kind}") if kind in FLAG_KINDS else kind)
    ranked = sorted(zip(ascii_uppercase, own.cards, strict=False), key=lambda card: answer.ranking[card[1].response_id])
    groups = groupby(ranked, key=lambda card: answer.ranking[card[1].response_id])
    said = [" > ".join(" = ".join(letter for letter, _ in group) for _, group in groups)]
    said += [texts("work.all_bad")] if ALL_BAD in answer.flags else []
    said += [texts("work.edited")] if answer.edited else []
    return " · ".join(said)


def render_part(template: str, setup: Setup, /, **values: Any) -> str:
    """A template of `templates/` with the words of the setup's language as `t`, and the head line as `nav`."""
    html: str = (
        _environment().get_template(f"{template}.html.j2").render(setup=setup, t=setup.texts, nav=render_nav, **values)
    )
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
    environment.filters["markdown"] = lambda text: Markup(shown_html(text))
    environment.filters["moment"] = moment
    environment.filters["changes_to"] = lambda before, after: around(changes(before, after))
    environment.tests["plain"] = shown_plain
    environment.tests["blank"] = shown_blank
    environment.globals["signed"] = signed
    return environment
