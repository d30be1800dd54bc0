"""The board for everybody, in a real Chromium: plain http, screen readers, dictation, other time zones, long texts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from annotate_ui.app import build_app
from annotate_ui.setup import Setup
from plumbline.preferences.accounts import Accounts
from plumbline.preferences.service import PreferenceService
from plumbline.recipe_annotate import AnnotateSection
from tests.annotate_ui.conftest import judgements, new_task, press, ranks_as_shown, served
from tests.cheap_passwords import PASSWORD, cheap_passwords
from tests.chromium import OTHER_HOST

pytestmark = pytest.mark.browser

OpenPage = Callable[..., Any]
CHECKED = "all => all.map(one => one.value)"
FOCUSED = "document.activeElement.getAttribute('aria-label') ?? document.activeElement.textContent"
PUT = """text => {
    const field = document.querySelector("[data-pl=edited]");
    field.value = text;
    field.dispatchEvent(new InputEvent("input", { bubbles: true }));
}"""
RING = "document.activeElement.matches(':focus-visible')"


def test_the_board_works_at_plain_http_under_a_name(browser: Any, service: PreferenceService) -> None:
    """Browsers keep some of what scripts use (`crypto.randomUUID`, the clipboard) to https and to localhost."""
    service.add_tasks([new_task("kettle", 2)])
    accounts = Accounts(service.store, passwords=cheap_passwords())
    accounts.create("Ada", password=PASSWORD)
    settings = AnnotateSection(accounts=True, host="0.0.0.0", names=[OTHER_HOST])
    faults: list[str] = []
    with served(build_app(service, Setup("Support"), settings, accounts=accounts)) as address:
        page = browser.new_page()
        page.on("pageerror", lambda fault: faults.append(str(fault)))
        page.goto(address.replace("127.0.0.1", OTHER_HOST))
        assert not page.evaluate("isSecureContext")
        page.fill("#name", "Ada")
        page.fill("#password", PASSWORD)
        press(page, "Enter")
        page.wait_for_selector(".pl-card")
        press(page, "2 1 Enter")
        page.wait_for_selector(".pl-empty")
        page.close()
    (record,) = judgements(service, 1)
    assert (ranks_as_shown(record), faults) == ([2, 1], [])


def test_the_focus_is_at_each_new_item_and_keys_go_on(open_page: OpenPage, service: PreferenceService) -> None:
    service.add_tasks([new_task(name, 2) for name in ("kettle", "parcel")])
    page = open_page("Ada")
    press(page, "1 2 Enter")
    page.wait_for_selector("text=Saved.")
    assert (page.evaluate(FOCUSED), page.evaluate(RING)) == ("Item 2: conversation", True)
    press(page, "u")
    page.wait_for_selector("[data-correcting=yes]")
    assert page.evaluate(FOCUSED) == "Conversation"
    page.click("text=Keep it as it was")
    page.wait_for_selector("[data-correcting=no]")
    assert (page.evaluate(FOCUSED), page.evaluate(RING)) == ("Item 2: conversation", False)
    press(page, "h")
    page.wait_for_selector("text=Handed back.")
    assert page.evaluate(FOCUSED) == "Item 2: conversation"
    press(page, "2 1 Enter")
    page.wait_for_selector(".pl-empty")
    assert page.evaluate(FOCUSED) == "Nothing to rank now"
    page.click("text=My work")
    page.click(".pl-own >> nth=1 >> text=Correct")
    page.wait_for_selector("[data-correcting=yes]")
    assert page.evaluate(FOCUSED) == "Conversation"


def test_own_answers_are_read_in_full_and_told_in_the_browser_s_time(
    open_page: OpenPage, service: PreferenceService
) -> None:
    text = f"{'many words ' * 30}end."
    service.add_tasks([new_task("kettle", [f"A: {text}", f"B: {text}"])])
    page = open_page("Ada", timezone_id="Asia/Tokyo", locale="en-US")
    press(page, "2 1 n")
    page.keyboard.type("because of the end")
    press(page, "Escape e End")
    page.keyboard.type(" Improved.")
    press(page, "Control+Enter")
    page.wait_for_selector(".pl-empty")
    press(page, "w")
    page.click("text=Read in full")
    page.wait_for_selector(".pl-own-card >> nth=1")
    assert page.locator(".pl-own-rank").all_inner_texts() == ["A Rank 2", "B Rank 1"]
    whole = page.inner_text("[data-pl=own-whole]")
    assert all(part in whole for part in (f"A: {text}", f"B: {text}", "because of the end", "end. Improved."))
    (record,) = judgements(service, 1)
    assert record.judged_at is not None
    assert f"{record.judged_at.astimezone(ZoneInfo('Asia/Tokyo')):%-I:%M}" in page.inner_text(".pl-own-said time")
    press(page, "Escape")
    service.add_tasks([new_task("parcel", 2)])
    service.lease_next(service.sign_in("Ben").annotator_id)
    page.click("text=Look again")
    page.wait_for_selector("text=Other annotators hold")
    assert page.inner_text(".pl-empty time") == page.evaluate(
        "new Date(document.querySelector('.pl-empty time').dateTime)"
        ".toLocaleTimeString('en', { timeStyle: 'short', timeZone: 'Asia/Tokyo' })"
    )


def test_keys_of_one_character_are_switched_off(open_page: OpenPage, service: PreferenceService) -> None:
    service.add_tasks([new_task("kettle", 2)])
    page = open_page("Ada")
    press(page, "1 ?")
    page.click("dialog[open] >> text=Keys of one character")
    press(page, "Escape")
    assert page.locator(".pl-button kbd:visible").all_inner_texts() == ["↵"]
    page.reload()
    page.wait_for_selector(".pl-card")
    press(page, "2 b s u ?")
    assert page.locator("dialog[open]").count() == 0
    assert page.locator(".pl-rank input:checked").evaluate_all(CHECKED) == ["1"]
    page.click("[aria-label='Response B'] .pl-rank >> nth=1")
    press(page, "Enter")  # a key of more than one character
    (record,) = judgements(service, 1)
    assert ranks_as_shown(record) == [1, 2]


@pytest.mark.parametrize("setup", [Setup("Support", language="de")])
def test_what_is_too_long_is_told_once_and_what_fits_is_stored_as_it_is(
    open_page: OpenPage, service: PreferenceService
) -> None:
    service.add_tasks([new_task("kettle", 2)])
    page = open_page("Ada")
    calls: list[str] = []
    page.on("request", lambda request: calls.append(request.url.rsplit("/", 1)[1]))
    press(page, "1 2 e")
    page.evaluate(PUT, "茶" * 400_000)  # more than one can type there
    press(page, "Control+Enter")
    page.wait_for_selector("[role=alert]:has-text('Das ist zu lang, um gespeichert zu werden')")
    assert page.locator("[data-pl=task]").evaluate("task => task.inert") is False
    assert page.locator("[data-pl=error-button]:visible").count() == 0
    page.route("**/annotate-work/judge", lambda route: route.fulfill(status=403, body="<html>Forbidden"))
    page.fill("[data-pl=edited]", "zu lang")
    press(page, "Control+Enter")
    page.wait_for_selector("[role=alert]:has-text('Die Anwendung hat das abgelehnt (Status 403).')")
    page.wait_for_timeout(1500)  # the first pause before another try is a second
    assert calls.count("judge") == 2
    assert page.input_value("[data-pl=edited]") == "zu lang"
    page.unroute("**/annotate-work/judge")
    page.fill("[data-pl=edited]", f"    {'茶' * 90_000}\n")
    press(page, "Control+Enter")
    (record,) = judgements(service, 1)
    assert record.edited == f"    {'茶' * 90_000}\n"


def test_a_correction_that_was_given_up_is_forgotten(open_page: OpenPage, service: PreferenceService) -> None:
    service.add_tasks([new_task("kettle", 2), new_task("parcel", 2)])
    page = open_page("Ada")
    press(page, "1 2 Enter")
    page.wait_for_selector("text=Saved.")
    press(page, "u")
    page.wait_for_selector("[data-correcting=yes]")
    press(page, "2")
    page.wait_for_selector("text=Draft saved")
    page.click("text=Keep it as it was")
    page.wait_for_selector("text=Your earlier answer stands.")
    press(page, "u")
    page.wait_for_selector("[data-correcting=yes]")
    assert page.locator(".pl-rank input:checked").evaluate_all(CHECKED) == ["1", "2"]
