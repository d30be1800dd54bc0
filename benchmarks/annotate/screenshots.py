"""The pictures of the annotators' page in docs/images, taken from the app itself.

    python -m benchmarks.annotate.screenshots [--to docs/images] [--chromium PATH]

Look at each one before it is committed.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn

from annotate_ui.app import build_app
from annotate_ui.server import address_of, open_listener
from annotate_ui.setup import Setup
from plumbline.preferences.records import Assignment, NewResponse, NewTask
from plumbline.preferences.rules import Rules
from plumbline.preferences.service import PreferenceService
from plumbline.preferences.store import Store
from plumbline.recipe_annotate import RubricAxis

ARGUMENTS = ["--no-sandbox", "--headless=new", "--disable-gpu", "--disable-background-networking"]
WIDE, PHONE = {"width": 1280, "height": 1150}, {"width": 360, "height": 740}
GUIDELINE = """# How to rank

Put first the response that **solves the customer's problem**.

1. Is it right? A wrong policy is worse than no answer.
2. Does it say what happens next, and when?
3. Is it kind, and no longer than it needs to be?

Equal responses get the same rank. Skip what you cannot judge.
"""
RUBRIC = (
    RubricAxis(name="helpful", question="Does it solve the problem?", low="not at all", high="fully"),
    RubricAxis(name="kind", question="Is it kind?", levels=3),
)
PROMPT = [
    {"role": "user", "content": "My parcel should have come on Monday. The tracking has not changed for four days."},
    {"role": "assistant", "content": "I am sorry about that. May I have your order number?"},
    {"role": "user", "content": "It is order 48213, a birthday present for Saturday. What can you do?"},
]
RESPONSES = [
    "Thank you. I have asked the carrier to trace parcel 48213; they answer **within 24 hours**.\n\n"
    "To be safe, I can do one of these for you today:\n\n"
    "1. Send it again by express, so that it arrives on Friday.\n2. Refund you in full.\n\nWhich do you prefer?",
    "Parcels can be late at times. Please wait ten working days, then write to us again.",
    "I am so sorry! A birthday present must not be late. I have sent it again by express at no cost. It arrives on "
    "**Friday before noon**, and you get the tracking link by e-mail in a few minutes.",
    "Your order 48213:\n\n| step | date |\n|---|---|\n| sent | 12 May |\n| last scan | 14 May |\n\n"
    "The carrier has had it since. You can claim a refund under `Orders > 48213 > Help`.",
]
RANKS = (2, 4, 1, 3)
OTHERS = ("How do I return shoes?", "The invoice shows the wrong name.", "Can I change the delivery address?")


def main() -> None:
    """Take them all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--to", type=Path, default=Path(__file__).parents[2] / "docs" / "images")
    parser.add_argument("--chromium", default=shutil.which("chromium") or shutil.which("chromium-browser"))
    given = parser.parse_args()
    if given.chromium is None:
        parser.error("Chromium is not installed; or name it with --chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=given.chromium, args=ARGUMENTS)
        with served(Setup("Support", guideline=GUIDELINE)) as address:
            page = opened(browser, address, viewport=WIDE)
            rank(page, 3)
            shoot(page, given.to / "annotate.png")
            page = opened(browser, address, viewport=WIDE, color_scheme="dark")
            rank(page, 3)
            shoot(page, given.to / "annotate-dark.png")
            page = opened(browser, address, viewport=PHONE, has_touch=True, is_mobile=True, device_scale_factor=2)
            page.tap("[aria-label='Response A'] .pl-rank >> nth=1")
            page.evaluate("document.activeElement.blur()")
            shoot(page, given.to / "annotate-phone.png")
        with served(Setup("Support", guideline=GUIDELINE, strength=True, rubric=RUBRIC)) as address:
            page = opened(browser, address, viewport={"width": 1280, "height": 1770})
            page.evaluate("document.querySelector('#pl-sidebar .toggle-button').click()")
            press(page, "r 4 3 5 3 3 2 1 2")
            rank(page, 4)
            press(page, "4 2")
            shoot(page, given.to / "annotate-strength.png")
        browser.close()


@contextmanager
def served(setup: Setup) -> Iterator[str]:
    """The app on a store in which Ada has worked for a while."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store.open(Path(folder) / "preferences.db")
        service = PreferenceService(store, project="support", rules=Rules(rubric=setup.rubric))
        fill(service)
        listener = open_listener("127.0.0.1", 0)
        server = uvicorn.Server(uvicorn.Config(build_app(service, setup), log_level="warning"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        try:
            yield address_of("127.0.0.1", listener)
        finally:
            server.should_exit = True
            thread.join(timeout=10)
            store.close()


def fill(service: PreferenceService) -> None:
    """Tasks of which Ada has ranked some; the one of the picture comes next."""

    def task(prompt: Any, texts: list[str]) -> NewTask:
        return NewTask(prompt, [NewResponse(text, f"policy-{index}") for index, text in enumerate(texts)], "support")

    early = [task([{"role": "user", "content": text}], ["Yes.", "No."]) for text in OTHERS]
    service.add_tasks([*early, task(PROMPT, RESPONSES)])
    service.add_tasks(task([{"role": "user", "content": f"Question {n}"}], ["Yes.", "No."]) for n in range(8))
    ada = service.sign_in("Ada").annotator_id
    for number in range(len(early)):
        work = service.lease_next(ada)
        assert isinstance(work, Assignment)
        ranking = {card.response_id: card.position + 1 for card in work.cards}
        service.judge(work.lease_id, ada, ranking, idempotency_key=str(number), seconds=75.0)


def opened(browser: Any, address: str, **options: Any) -> Any:
    """The page, signed in, with the guideline accepted and the draft of the picture before forgotten."""
    page = browser.new_context(**options).new_page()
    page.goto(address)
    page.fill("#name", "Ada")
    page.click("button[type=submit]")
    page.wait_for_selector(".pl-card, dialog[open]")
    if page.locator("dialog[open]").count():
        page.click("dialog[open] .pl-primary")
        page.wait_for_selector(".pl-card")
    for _ in RESPONSES:  # what the picture before left
        press(page, "ArrowDown")
    for _ in RESPONSES:
        press(page, "Backspace")
    press(page, "ArrowUp ArrowUp ArrowUp")
    return page


def rank(page: Any, number: int) -> None:
    """Rank the first `number` cards as `RESPONSES` are worth it."""
    texts = page.locator(".pl-card > .pl-text").all_inner_texts()
    page.focus(".pl-card >> nth=0")
    for text in texts[:number]:
        starts = [response[:12] for response in RESPONSES]
        press(page, str(RANKS[starts.index(text[:12])]))


def press(page: Any, keys: str) -> None:
    """Press keys one after the other."""
    for key in keys.split():
        page.keyboard.press(key)


def shoot(page: Any, file: Path) -> None:
    """Take the picture when everything stands still."""
    page.evaluate("window.scrollTo(0, 0)")
    page.wait_for_timeout(1800)  # the draft is saved, the panel has come in
    page.screenshot(path=file, animations="disabled")
    page.context.close()


if __name__ == "__main__":
    main()
