"""The arena in a real Chromium where something goes wrong: keys that were not meant, lost connections, other people."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from annotate_ui.sessions import Sessions
from tests.annotate_ui.conftest import names_its_page
from tests.annotate_ui.test_arena.conftest import votes_of, whole

pytestmark = pytest.mark.browser

WITH_TURNS = [
    {"role": "user", "content": "Which courier brings it?"},
    {"role": "assistant", "content": "The yellow one."},
    {"role": "user", "content": "And when?"},
]


@pytest.fixture
def as_lead(monkeypatch: pytest.MonkeyPatch) -> None:
    read = Sessions.read
    monkeypatch.setattr(
        Sessions, "read", lambda self, request: (found := read(self, request)) and replace(found, role="lead")
    )


def ask(page: Any, prompt: str = "Where is it?") -> None:
    page.fill("#pl-say-text", prompt)
    page.click("[data-pl=send]")


def test_keys_that_scroll_or_are_held_or_off_do_not_vote(open_arena, service, stand_in, as_lead):
    stand_in.texts = {name: f"So:\n\n```\n{name} {'wide ' * 200}\n```" for name in ("sft", "dpo")}
    page = open_arena("Ada")
    ask(page)
    page.wait_for_selector("[data-side=left] .pl-text:not(.pl-plain) pre")
    page.focus("[data-side=left] pre")
    page.keyboard.press("ArrowRight")
    page.wait_for_function("document.querySelector('[data-side=left] pre').scrollLeft > 0")
    page.evaluate("document.activeElement.blur()")
    held = "document.body.dispatchEvent(new KeyboardEvent('keydown', {key: '2', repeat: true, bubbles: true}))"
    page.evaluate(held)
    page.evaluate("localStorage.setItem('plumbline:keys-off', 'yes')")
    page.keyboard.press("ArrowRight")
    page.evaluate("localStorage.removeItem('plumbline:keys-off')")
    page.click("#pl-tab-board")
    page.wait_for_selector("#pl-arena-board h2")
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("ArrowRight")  # the conversation is hidden
    page.click("#pl-tab-talk")
    page.click("#pl-talk h2", force=True)
    page.keyboard.press("ArrowLeft")
    page.wait_for_selector("[data-side=left].pl-chosen")
    assert [vote.score for vote in votes_of(service, 1)] == [1], "an earlier key press voted"


def test_without_a_connection_there_is_always_a_way_on(open_arena, address):
    page = open_arena("Ada")
    cut = lambda route: route.abort()  # noqa: E731
    again = page.locator("[data-pl=error-button]:visible")
    page.route("**/session", cut)
    page.reload()
    page.wait_for_selector("text=cannot be reached")
    page.unroute("**/session")
    again.click()
    page.wait_for_selector("#pl-say-text:visible")

    page.route("**/arena-work/listen", cut)
    ask(page)
    page.wait_for_selector("text=connection was lost")
    for address_cut in ("**/session", "**/arena-work/state"):
        page.route(address_cut, cut)
        again.click()
        page.wait_for_selector("text=cannot be reached")
        page.unroute(address_cut)

    # What the server says instead of lines is told, though it is no whole line.
    page.unroute("**/arena-work/listen")
    refusal = {"error": "This turn was answered already."}
    page.route("**/arena-work/listen", lambda route: route.fulfill(json=refusal))
    again.click()
    page.wait_for_selector("text=answered already")
    page.unroute("**/arena-work/listen")
    page.route("**/arena-work/listen", lambda route: route.fulfill(status=401, json={"error": "Signed out."}))
    again.click()
    page.wait_for_selector("text=You are signed out")
    assert again.inner_text() == "Sign in again"
    page.unroute("**/arena-work/listen")
    again.click()  # the session is there after all
    whole(page)


def test_nothing_that_is_asked_is_dropped_silently(open_arena, service, as_lead):
    page = open_arena("Ada")
    held: list[Any] = []
    hold = lambda route: held.append(route)  # noqa: E731
    page.route("**/arena-work/draw", hold)
    page.fill("#pl-say-text", "Where is it?")
    with page.expect_request("**/arena-work/draw") as asked:
        page.click("[data-do=draw]")
    assert names_its_page(page, asked.value)
    page.click("[data-pl=send]")
    page.wait_for_selector("text=That was not done")
    page.once("dialog", lambda dialog: dialog.dismiss())
    with page.expect_event("dialog"):
        held.pop().continue_()
    assert page.input_value("#pl-say-text") == "Where is it?"
    page.click("[data-pl=send]")
    whole(page)

    page.route("**/arena-work/board", hold)
    with page.expect_request("**/arena-work/board"):
        page.click("#pl-tab-board")
    page.click("#pl-tab-talk")
    page.click("[data-vote=left]")
    page.wait_for_selector("[data-side=left].pl-chosen")
    assert len(votes_of(service, 1)) == 1
    held.pop().fulfill(status=403, json={"error": "Your account may not do this."})
    page.wait_for_selector("#pl-arena-board >> text=may not", state="attached")


@pytest.mark.parametrize("drawn", [WITH_TURNS])
def test_what_is_shown_above_a_drawn_prompt_is_what_goes_out(open_arena):
    page = open_arena("Ada")
    before, left_out = page.locator("[data-pl=before]"), page.locator("[data-pl=left-out]")
    asked: list[str] = []

    def agree(dialog: Any) -> None:
        asked.append(dialog.message)
        dialog.accept()

    page.on("dialog", agree)
    page.fill("#pl-say-text", "My own words")
    page.click("[data-do=draw]")
    page.wait_for_function("document.querySelector('#pl-say-text').value === 'And when?'")
    assert len(asked) == 1
    assert "The yellow one." in before.inner_text()
    page.focus("#pl-say-text")
    page.keyboard.press("End")
    page.keyboard.type("!")
    assert before.is_hidden()
    assert left_out.is_visible()
    page.keyboard.press("Backspace")
    assert left_out.is_hidden()
    page.reload()
    page.wait_for_selector("[data-pl=before]:visible")
    assert page.input_value("#pl-say-text") == "And when?"
    page.click("[data-do=draw]")  # as it was drawn, it is nobody's own
    page.wait_for_selector("#pl-talk[aria-busy=false]")
    page.click("[data-pl=send]")
    whole(page)
    assert "The yellow one." in page.inner_text("[data-pl=talk]")
    assert len(asked) == 1


def test_the_next_person_in_a_tab_does_not_see_what_the_last_one_wrote(open_arena, address):
    page = open_arena("Ada")
    page.fill("#pl-say-text", "My landlord is called Smith.")
    page.reload()
    page.wait_for_selector("#pl-say-text:visible")
    assert page.input_value("#pl-say-text") == "My landlord is called Smith."
    page.context.clear_cookies()  # the session has ended, in this tab or another one
    page.goto(address)
    page.fill("#name", "Bob")
    page.click("button[type=submit]")
    page.wait_for_selector(".pl-main")
    page.goto(f"{address}arena/")
    page.wait_for_selector("#pl-say-text:visible")
    page.wait_for_function("!JSON.stringify(sessionStorage).includes('Smith')")
    assert page.input_value("#pl-say-text") == ""
