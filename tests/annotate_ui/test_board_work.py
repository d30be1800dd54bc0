"""What stays of an annotator's work, in a real Chromium: drafts, own answers, consent, and failures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from annotate_ui.app import build_app
from annotate_ui.setup import Setup
from plumbline.preferences.service import PreferenceService
from tests.annotate_ui.conftest import judgements, new_task, press, ranks_as_shown, served
from tests.annotate_ui.screens import outside

pytestmark = pytest.mark.browser

OpenPage = Callable[..., Any]
CHECKED = "all => all.map(one => one.value)"


def prompt_of(page: Any) -> str:
    return str(page.inner_text(".pl-prompt .pl-text"))


def test_another_browser_and_another_server_go_on_from_the_draft(
    browser: Any, service: PreferenceService, setup: Setup
) -> None:
    service.add_tasks([new_task("kettle", 3)])
    for attempt in range(2):  # a server of its own, and a browser that has kept nothing
        with served(build_app(service, setup)) as address:
            page = browser.new_context().new_page()
            page.goto(address)
            page.fill("#name", "Ada")
            press(page, "Enter")
            page.wait_for_selector(".pl-card")
            if attempt == 0:
                press(page, "2 1 n")
                page.keyboard.type("because")
                page.wait_for_selector("text=Draft saved")
            else:
                assert page.locator(".pl-rank input:checked").evaluate_all(CHECKED) == ["2", "1"]
                assert page.input_value("[data-pl=reason]") == "because"
            page.context.close()


def test_what_is_handed_back_comes_again_with_what_was_entered(open_page: OpenPage, service: PreferenceService) -> None:
    service.add_tasks([new_task(name, 2) for name in ("kettle", "parcel")])
    page = open_page("Ada")
    first = prompt_of(page)
    press(page, "2 1 h")
    page.wait_for_selector("text=Handed back.")
    assert prompt_of(page) != first and page.locator(".pl-rank input:checked").count() == 0
    press(page, "1 2 Enter")
    page.wait_for_function("text => document.querySelector('.pl-prompt .pl-text')?.innerText === text", arg=first)
    assert page.locator(".pl-rank input:checked").evaluate_all(CHECKED) == ["2", "1"]
    page.click("text=Hand back")  # it alone is left
    page.wait_for_function("text => document.querySelector('.pl-prompt .pl-text')?.innerText === text", arg=first)


def test_whoever_loses_a_task_is_told_and_goes_on_with_another(open_page: OpenPage, service: PreferenceService) -> None:
    service.add_tasks([new_task(name, 2) for name in ("kettle", "parcel")])
    page = open_page("Ada")
    first = prompt_of(page)
    press(page, "2 1 n")
    page.keyboard.type("because")
    page.wait_for_selector("text=Draft saved")
    service.control.release(service.control.held()[0].lease_id)
    page.keyboard.type(" of it")
    page.wait_for_selector("text=The lead has taken this task back, and what you entered is kept")
    page.click("text=Go on with the next item")
    page.wait_for_function("text => document.querySelector('.pl-prompt .pl-text')?.innerText !== text", arg=first)
    assert page.is_hidden("[data-pl=error]")
    second = prompt_of(page)
    service.control.release(service.control.held()[0].lease_id)
    page.wait_for_timeout(1100)
    page.evaluate("window.dispatchEvent(new Event('focus'))")  # they come back to the page, and touch nothing
    page.wait_for_selector("text=The lead has taken this task back")
    page.click("text=Go on with the next item")
    page.wait_for_function("text => document.querySelector('.pl-prompt .pl-text')?.innerText !== text", arg=second)
    assert prompt_of(page) == first and page.input_value("[data-pl=reason]") == "because of it"
    press(page, "Escape Enter")
    (record,) = judgements(service, 1)
    assert (ranks_as_shown(record), record.reason) == ([2, 1], "because of it")


def test_another_answer_with_the_same_key_is_told_and_stays_on_the_page(
    open_page: OpenPage, service: PreferenceService
) -> None:
    service.add_tasks([new_task(name, 2) for name in ("kettle", "parcel")])
    page = open_page("Ada")
    press(page, "1 2")
    other = page.context.new_page()  # the same task in another window, with what this browser kept
    other.goto(page.url)
    other.wait_for_selector(".pl-rank input:checked >> nth=1")
    press(page, "n")
    page.keyboard.type("first")
    press(page, "Control+Enter")
    judgements(service, 1)
    press(other, "n")
    other.keyboard.type("second")
    press(other, "Control+Enter")
    other.wait_for_selector("text=stored before with other contents")
    assert other.input_value("[data-pl=reason]") == "second"
    assert [record.reason for record in service.judgements()] == ["first"]


def test_an_own_answer_is_found_and_corrected(open_page: OpenPage, service: PreferenceService) -> None:
    service.add_tasks([new_task(name, 2) for name in ("kettle", "parcel", "refund")])
    page = open_page("Ada")
    first = prompt_of(page)
    press(page, "1 1 Enter")
    page.wait_for_function("text => document.querySelector('.pl-prompt .pl-text')?.innerText !== text", arg=first)
    second = prompt_of(page)
    press(page, "s Enter")
    page.wait_for_function("text => document.querySelector('.pl-prompt .pl-text')?.innerText !== text", arg=second)
    press(page, "w")
    page.wait_for_selector(".pl-own >> nth=1")
    assert page.locator(".pl-own-said strong").all_inner_texts() == ["Skipped", "A = B"]
    page.click(f".pl-own:has-text('{first}') button")
    page.wait_for_selector("text=You are correcting an earlier answer")
    assert prompt_of(page) == first
    page.click("[aria-label='Response B'] .pl-rank >> nth=1")
    press(page, "Enter")
    page.wait_for_selector("[data-correcting=no]")
    (record,) = judgements(service, 1)
    assert ranks_as_shown(record) == [1, 2]


@pytest.mark.parametrize("setup", [Setup("Support", guideline="# How to rank\n\nBest first.")])
def test_a_new_guideline_is_read_before_there_is_more_work(open_page: OpenPage, service: PreferenceService) -> None:
    service.add_tasks([new_task("kettle", 2), new_task("parcel", 2)])
    page = open_page("Ada", wait_for="dialog[open]")
    assert "Best first." in page.inner_text("dialog[open]")
    page.click("text=Later")
    page.click("text=Read the guideline")
    page.click("text=I have read version 1")
    page.wait_for_selector(".pl-card")
    service.guidelines.publish("# How to rank\n\nShortest first.")
    press(page, "1 2 Enter")
    page.wait_for_selector("dialog[open] .pl-reading >> text=Shortest first.")
    page.click("text=What has changed since version 1")
    assert (page.inner_text(".pl-diff del"), page.inner_text(".pl-diff ins")) == ("Best", "Shortest")
    page.click("text=I have read version 2")
    page.wait_for_selector(".pl-card")
    page.wait_for_selector("#pl-sidebar >> text=Version 2")
    press(page, "1 2 Enter")
    assert [record.guideline for record in judgements(service, 2)] in ([1, 2], [2, 1])


def test_what_cannot_be_saved_is_tried_again_until_it_is(open_page: OpenPage, service: PreferenceService) -> None:
    service.add_tasks([new_task("kettle", 2), new_task("parcel", 2)])
    page = open_page("Ada")
    first = prompt_of(page)
    failures: list[str] = []

    def fail(route: Any) -> None:
        failures.append(route.request.url)
        route.fulfill(status=503, json={"error": "The disk is full."})

    page.route("**/annotate-work/judge", fail)
    press(page, "2 1 Enter")
    page.wait_for_selector("[role=alert]:has-text('The disk is full. Trying again in 1 s.')")
    assert page.evaluate("document.activeElement.textContent") == "Try now"
    while len(failures) < 2:  # by itself
        page.wait_for_timeout(100)
    assert page.locator(".pl-rank input:checked").evaluate_all(CHECKED) == ["2", "1"]
    page.unroute("**/annotate-work/judge")
    page.wait_for_function("text => document.querySelector('.pl-prompt .pl-text')?.innerText !== text", arg=first)
    assert page.locator("[data-pl=error]:visible").count() == 0
    assert [ranks_as_shown(record) for record in judgements(service, 1)] == [[2, 1]]


def test_whoever_was_signed_out_signs_in_again_and_goes_on(open_page: OpenPage, service: PreferenceService) -> None:
    service.add_tasks([new_task("kettle", 2)])
    page = open_page("Ada")
    page.context.clear_cookies()
    press(page, "2 1 Enter")
    page.click("button:has-text('Sign in again')")
    page.fill("#name", "Ada")
    press(page, "Enter")
    page.wait_for_selector(".pl-card")
    assert page.locator(".pl-rank input:checked").evaluate_all(CHECKED) == ["2", "1"]
    press(page, "Enter")
    assert [ranks_as_shown(record) for record in judgements(service, 1)] == [[2, 1]]


def test_signing_out_leaves_no_draft_in_the_browser(open_page: OpenPage, service: PreferenceService) -> None:
    service.add_tasks([new_task("kettle", 2)])
    page = open_page("Ada")
    press(page, "2")
    drafts = "Object.keys(localStorage).filter(key => key.startsWith('plumbline:draft:')).length"
    assert page.evaluate(drafts) == 1
    page.click("text=Sign out")
    page.wait_for_selector("#name")
    assert page.evaluate(drafts) == 0


@pytest.mark.parametrize("setup", [Setup("Support", show_streak=True)])
def test_the_page_tells_what_is_done_and_how_long_the_rest_takes(
    open_page: OpenPage, service: PreferenceService
) -> None:
    service.add_tasks([new_task(f"task {number}", 2) for number in range(4)])
    ada = service.sign_in("Ada").annotator_id
    for number in range(2):
        work = service.lease_next(ada)
        ranking = {card.response_id: 1 for card in work.cards}  # type: ignore[union-attr]
        service.judge(work.lease_id, ada, ranking, idempotency_key=str(number), seconds=90.0)  # type: ignore[union-attr]
    page = open_page("Ada")
    assert page.inner_text("[data-pl=mine]") == "2"
    assert page.inner_text("[data-pl=remaining]") == "2"
    assert page.inner_text("[data-pl=time-left]") == "about 3 min left"


@pytest.mark.parametrize("setup", [Setup("Support", language="de")])
def test_the_page_and_its_script_speak_german_on_a_phone_too(open_page: OpenPage, service: PreferenceService) -> None:
    service.add_tasks([new_task("kettle", 2)])
    page = open_page("Ada", viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    assert page.evaluate("document.documentElement.lang") == "de"
    assert page.inner_text("[data-pl=summary]") == "Gib jeder Antwort einen Rang"
    actions = page.locator(".pl-bar .pl-button:visible").evaluate_all("all => all.map(one => one.offsetTop)")
    assert len(set(actions)) == 1  # in one row
    assert outside(page) == []
