"""Every page on narrow phones, in German, with names and words that are long and have no place to break."""

from __future__ import annotations

from typing import Any

import pytest

from annotate_ui.app import build_app
from annotate_ui.arena import ArenaSetup
from annotate_ui.setup import Setup
from plumbline.preferences.accounts import ADMIN, Accounts
from plumbline.preferences.arena import Arena
from plumbline.preferences.arena_rules import ArenaRules, Contender
from plumbline.preferences.records import Assignment
from plumbline.preferences.service import PreferenceService
from plumbline.recipe_annotate import AnnotateSection, RubricAxis
from tests.annotate_ui.conftest import new_task, press, served
from tests.annotate_ui.screens import outside, too_small
from tests.annotate_ui.test_arena.conftest import StandIn
from tests.cheap_passwords import PASSWORD, cheap_passwords

pytestmark = pytest.mark.browser

ADA, BEN, POLICY = "Maximiliane-Hinterhuber-Oberleitner", "Rosmarie_" + "x" * 40, "dpo-" + "z" * 40
RUBRIC = RubricAxis(
    name="clear",
    question="Nachvollziehbarkeitswahrscheinlichkeitseinschätzungen?",
    levels=7,
    low="Unverständlichkeitsgrenzüberschreitung",
    high="Selbstverständlichkeitsnachweisbarkeit",
)
CODE = f"```\nGET /tracking/{'c' * 100}\n```\n\n| a | b |\n|---|---|\n| {'d' * 60} | e |"
HEAD_LINE = ".pl-nav:not([hidden])"
"""There as soon as the page's script knows who is signed in."""
TITLE = "kundendienstqualitaetssicherungspruefung-2026q4"


@pytest.fixture
def setup() -> Setup:
    return Setup(TITLE, rubric=(RUBRIC,), strength=True, language="de")


@pytest.fixture
def app(service: PreferenceService, setup: Setup) -> Any:
    accounts = Accounts(service.store, passwords=cheap_passwords())
    accounts.create(ADA, ADMIN, password=PASSWORD)
    ben = accounts.create(BEN, password=PASSWORD).annotator_id
    service.add_tasks([new_task(f"{number}{'w' * 100}", ["one", "u" * 100, CODE]) for number in range(3)])
    judged = lease(service, ben)
    ranking = {card.response_id: card.position + 1 for card in judged.cards}
    service.judge(judged.lease_id, ben, ranking, idempotency_key="judged", seconds=30, reason="q" * 60)
    flagged = lease(service, ben)
    service.flag(flagged.lease_id, ben, kind="broken", note="y" * 60, idempotency_key="flagged")
    service.control.set_pool("adjudicators", [ben])
    service.control.pause(ben, "v" * 60)
    arena = Arena(service.store, project="support", rules=ArenaRules((Contender("sft"), Contender(POLICY)), "sft"))
    settings = AnnotateSection(accounts=True)
    return build_app(service, setup, settings, accounts=accounts, arena=ArenaSetup(arena, StandIn(), at_once=1))


def lease(service: PreferenceService, who: str) -> Assignment:
    work = service.lease_next(who)
    assert isinstance(work, Assignment)
    return work


def test_nothing_leaves_the_window_and_a_finger_hits_everything(browser: Any, app: Any) -> None:
    context = browser.new_context(viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    page = context.new_page()
    page.set_default_timeout(60_000)
    faults: list[tuple[str, int, str]] = []

    def look(at: str) -> None:
        for width in (320, 360):
            page.set_viewport_size({"width": width, "height": 740})
            faults.extend((at, width, fault) for fault in [*outside(page), *too_small(page)])

    def click_and_look(selector: str, until: str) -> None:
        page.click(selector)
        page.wait_for_selector(until)
        look(selector)

    with served(app) as address:
        page.goto(address)
        look("sign-in")
        page.fill("#name", ADA)
        page.fill("#password", PASSWORD)
        page.click("button[type=submit]")
        page.wait_for_selector("[data-panel=quality] .pl-people")
        page.wait_for_selector(HEAD_LINE)
        look("quality")
        for tab in ("queue", "guidelines", "exports", "decided"):
            page.click(f"#tab-{tab}")
            page.wait_for_selector(f"[data-panel={tab}] :is(.pl-tiles, .pl-form, .pl-decided)")
            page.evaluate("document.querySelectorAll('pl-lead details').forEach(one => one.open = true)")
            look(tab)

        page.goto(f"{address}people")
        page.wait_for_selector(HEAD_LINE)
        look("people")
        click_and_look("[data-do=openCreate]", "dialog[open]")
        page.goto(f"{address}account")
        page.wait_for_selector(HEAD_LINE)
        look("account")

        page.goto(f"{address}annotate/")
        page.wait_for_selector(".pl-card")
        page.wait_for_selector(HEAD_LINE)
        press(page, "1 2 3")
        page.wait_for_selector(".pl-gap")
        look("board")
        for name, dialog in (("work", "work"), ("compare", "diff"), ("skip", "skip"), ("flag", "flag")):
            click_and_look(f"[data-do={name}]", f"[data-pl={dialog}-dialog][open]")
            page.keyboard.press("Escape")
        click_and_look("[data-do=edit]", "[data-pl=editor]:not([hidden])")

        page.goto(f"{address}arena/")
        page.wait_for_selector(HEAD_LINE)
        page.fill("#pl-say-text", "w" * 100)
        look("arena")
        click_and_look("[data-pl=send]", "[data-vote=tie]:visible")
        page.click("[data-vote=tie]")
        click_and_look("[data-do=end]", ".pl-reveal table")
        click_and_look("#pl-tab-board", "#pl-arena-board table")
    context.close()
    assert faults == []
