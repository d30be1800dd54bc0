"""Take the pictures of the arena: python docs/images/arena.py [FOLDER]

Stand-in models answer, so that the pictures are the same each time. Into FOLDER (default: here) go `arena.png` and
`arena-leaderboard.png`; with a FOLDER of its own also the same in the dark and 360 pixels wide, to be looked at.
"""

from __future__ import annotations

import random
import sys
import tempfile
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, sync_playwright

from annotate_ui import Setup
from annotate_ui.app import build_app
from annotate_ui.arena import ArenaSetup
from annotate_ui.sessions import Session, Sessions
from plumbline.preferences.arena import Arena, Said
from plumbline.preferences.arena_rules import ArenaRules, Contender
from plumbline.preferences.service import PreferenceService
from plumbline.preferences.store import Store
from tests.annotate_ui.conftest import served
from tests.annotate_ui.test_arena.conftest import HELD_OUT, StandIn
from tests.chromium import CHROMIUM, CHROMIUM_ARGUMENTS

HERE = Path(__file__).parent
VIEWS: dict[str, dict[str, Any]] = {
    "": {},
    "-dark": {"color_scheme": "dark"},
    "-phone": {"viewport": {"width": 360, "height": 740}, "is_mobile": True, "has_touch": True},
}
RATES = {"dpo": 0.72, "ppo": 0.54}
NAMES = ("Ada", "Björn", "Chidi", "Dana", "Emre", "Fatou", "Goran", "Hiro", "Ines", "Jan")


def main(folder: Path) -> None:
    """Take all pictures."""
    read = Sessions.read
    # The leaderboard is a lead's.
    Sessions.read = lambda self, request: (  # type: ignore[method-assign]
        Session(found.annotator_id, found.name, "lead") if (found := read(self, request)) else None
    )
    views = VIEWS if folder != HERE else {"": {}}
    with tempfile.TemporaryDirectory() as scratch:
        store = Store.open(Path(scratch) / "preferences.db")
        service = PreferenceService(store, project="support")
        arena = Arena(store, project="support", rules=rules(), chance=random.Random(11))
        vote_often(service, arena)
        app = build_app(service, Setup("Support"), arena=ArenaSetup(arena, StandIn()))
        with served(app) as address, sync_playwright() as playwright:
            chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_ARGUMENTS)
            for suffix, options in views.items():
                take(chromium, address, folder, suffix, options)
            chromium.close()
        store.close()


def rules() -> ArenaRules:
    """A baseline, two aligned policies and a held-out prompt."""
    contenders = (Contender("sft"), Contender("dpo"), Contender("ppo"))
    return ArenaRules(contenders, "sft", ([{"role": "user", "content": HELD_OUT}],))


def vote_often(service: PreferenceService, arena: Arena) -> None:
    """Votes of ten people on forty questions."""
    chance = random.Random(3)
    people = [service.sign_in(name).annotator_id for name in NAMES]
    for _ in range(400):
        who = chance.choice(people)
        battle = arena.start(who, [{"role": "user", "content": f"Question {chance.randrange(40)}"}]).battle_id
        duel = arena.duel(who, battle)
        arena.said(battle, *(Said("word " * chance.randint(8, 60) + side, True) for side in "ab"))
        aligned = duel.right.name if duel.left.name == "sft" else duel.left.name
        better = aligned if chance.random() < RATES[aligned] else "sft"
        side = "left" if duel.left.name == better else "right"
        arena.vote(who, battle, chance.choices([side, "tie", "both-bad"], [0.85, 0.1, 0.05])[0])


def take(chromium: Browser, address: str, folder: Path, suffix: str, options: dict[str, Any]) -> None:
    """A conversation with two answers, and the leaderboard."""
    page = chromium.new_context(**{"viewport": {"width": 1280, "height": 620}, **options}).new_page()
    page.goto(address)
    page.fill("#name", "Elif")
    page.click("button[type=submit]")
    page.wait_for_url("**/annotate/**")
    page.goto(f"{address}arena/")
    page.click("[data-do=draw]")
    page.wait_for_function("document.querySelector('#pl-say-text').value")
    page.click("[data-pl=send]")
    page.wait_for_selector("[data-side=left] .pl-text:not(.pl-plain) p")
    page.wait_for_timeout(300)
    page.screenshot(path=folder / f"arena{suffix}.png")
    page.click("#pl-tab-board")
    page.wait_for_selector(".pl-verdicts")
    page.screenshot(path=folder / f"arena-leaderboard{suffix}.png", full_page=True)
    page.keyboard.press("Tab")
    page.click("#pl-tab-talk")
    page.click("[data-vote=left]")
    page.click("[data-do=end]")
    page.wait_for_selector(".pl-reveal table")
    if suffix or folder != HERE:
        page.screenshot(path=folder / f"arena-names{suffix}.png", full_page=True)
    page.context.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE)
