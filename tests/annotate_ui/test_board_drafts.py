"""Whose a draft is, which of two counts, and when it is forgotten, in a real Chromium."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from plumbline.preferences import queue
from plumbline.preferences.records import REPEAT
from plumbline.preferences.service import PreferenceService
from plumbline.preferences.turn import acting
from tests.annotate_ui.conftest import judgements, new_task, press, ranks_as_shown
from tests.annotate_ui.test_browser import BREAK_CONNECTION

pytestmark = pytest.mark.browser

OpenPage = Callable[..., Any]
CHECKED = "all => all.map(one => one.value)"
KEPT = "Object.keys(localStorage).filter(place => place.startsWith('plumbline:draft:')).length"


def ranks_on(page: Any) -> list[str]:
    return list(page.locator(".pl-rank input:checked").evaluate_all(CHECKED))


def calls_of(page: Any) -> list[str]:
    return [url.rsplit("/", 1)[1] for url in page.requested if "/annotate-work/" in url]


def repeat_silently(service: PreferenceService, name: str) -> None:
    """Hand the only task to somebody a second time, as a repeat."""
    with service.turn() as turn:
        actor = acting(turn, service.sign_in(name).annotator_id)
        until = turn.now + timedelta(minutes=15)
        queue.open_lease(turn, actor, 1, order=[1, 0], until=until, purpose=REPEAT)


def test_a_silent_repeat_comes_blank_whatever_this_browser_kept_of_the_first_time(
    open_page: OpenPage, service: PreferenceService
) -> None:
    service.add_tasks([new_task("kettle", 2)])
    page = open_page("Ada")
    press(page, "2 1")
    page.evaluate(BREAK_CONNECTION, {"sent": True})
    press(page, "Enter")  # it is stored, and the reply is lost
    page.wait_for_selector("[data-pl=error]:not([hidden])")
    judgements(service, 1)
    repeat_silently(service, "Ada")
    page.reload()
    page.wait_for_selector(".pl-card")
    assert ranks_on(page) == []
    press(page, "2 1 Enter")
    page.wait_for_selector("text=Nothing to rank now")
    repeated = list(service.judgements(purposes=(REPEAT,)))
    assert [ranks_as_shown(record) for record in repeated] == [[2, 1]]


def test_of_two_machines_the_later_draft_counts_whatever_their_clocks_say(
    open_page: OpenPage, service: PreferenceService
) -> None:
    service.add_tasks([new_task("kettle", 2)])
    ahead = open_page("Ada")
    ahead.context.add_init_script("const now = Date.now; Date.now = () => now() + 600_000")
    ahead.reload()
    ahead.wait_for_selector(".pl-card")
    press(ahead, "2 1")
    ahead.wait_for_selector("text=Draft saved")
    other = open_page("Ada")
    assert ranks_on(other) == ["2", "1"]
    press(other, "n")
    other.keyboard.type("because")
    other.wait_for_selector("text=Draft saved")
    press(ahead, "b")  # a window that was left open
    ahead.wait_for_selector("text=You went on with this item in another window or browser")
    ahead.wait_for_selector("text=Draft kept in this browser only")
    ahead.click("text=Load it")
    ahead.wait_for_function("document.querySelector('[data-pl=reason]').value === 'because'")
    assert ahead.get_attribute("[data-pl=all-bad]", "aria-pressed") == "false"
    press(ahead, "b")
    ahead.wait_for_selector("text=Draft saved")

    # The reply to a save is lost, and so is what is entered after it, but for this browser: it goes on from both.
    ahead.evaluate(BREAK_CONNECTION, {"sent": True})
    press(ahead, "n")
    ahead.keyboard.type(" of it")
    ahead.wait_for_selector("text=Draft kept in this browser only")
    ahead.evaluate(BREAK_CONNECTION, {"sent": False})
    ahead.keyboard.type(" all")
    ahead.reload()
    ahead.wait_for_selector(".pl-card")
    assert ahead.input_value("[data-pl=reason]") == "because of it all"
    press(ahead, "n")
    ahead.keyboard.type(".")
    ahead.wait_for_selector("text=Draft saved")


def test_one_thing_is_done_at_a_time_and_one_draft_saved_after_the_other(
    open_page: OpenPage, service: PreferenceService
) -> None:
    service.add_tasks([new_task(name, 2) for name in ("kettle", "parcel", "refund")])
    page = open_page("Ada")
    waiting: list[Any] = []
    page.route("**/annotate-work/draft", lambda route: route.continue_() if waiting else waiting.append(route))
    press(page, "2 1")
    while not waiting:
        page.wait_for_timeout(50)
    press(page, "b h h u")
    page.wait_for_selector("[data-pl=toast]:has-text('Waiting for the annotation app')")
    assert calls_of(page)[-1] == "draft" and calls_of(page).count("draft") == 1
    waiting[0].continue_()
    page.wait_for_selector("text=Handed back.")
    assert calls_of(page)[-3:] == ["draft", "draft", "release"]
    assert calls_of(page).count("release") == 1
    with service.look() as turn:
        saved = turn.connection.exec_driver_sql("SELECT content FROM drafts").scalars().all()
    assert len(saved) == 1 and '"all_bad": true' in saved[0]


def test_a_correction_that_is_given_up_is_not_saved_afterwards(open_page: OpenPage, service: PreferenceService) -> None:
    service.add_tasks([new_task("kettle", 2), new_task("parcel", 2)])
    page = open_page("Ada")
    press(page, "1 2 Enter")
    page.wait_for_selector("text=Saved.")
    page.clock.install()
    press(page, "u")
    page.wait_for_selector("[data-correcting=yes]")
    waiting: list[Any] = []
    page.route("**/annotate-work/release", lambda route: waiting.append(route))
    press(page, "2")
    page.click("text=Keep it as it was")
    while not waiting:
        page.wait_for_timeout(50)
    page.clock.fast_forward(5000)  # the pause after which a draft is saved is over
    waiting[0].continue_()
    page.wait_for_selector("[data-correcting=no]")
    assert "draft" not in calls_of(page)


def test_signing_out_forgets_what_the_server_has_and_nothing_else(
    open_page: OpenPage, service: PreferenceService, address: str
) -> None:
    service.add_tasks([new_task("kettle", 2)])
    page = open_page("Ada")

    def sign_in_again() -> list[str]:
        page.fill("#name", "Ada")
        press(page, "Enter")
        page.wait_for_selector(".pl-card")
        return ranks_on(page)

    # The server does not answer: it is asked, and whoever goes finds it here again.
    page.route("**/annotate-work/**", lambda route: route.abort())
    press(page, "2")
    page.click("[action='/sign-out'] button")
    page.click("dialog[open] [value=stay]")
    assert (page.evaluate(KEPT), page.locator("dialog[open]").count()) == (1, 0)
    page.click("[action='/sign-out'] button")
    page.click("dialog[open] [value=out]")
    page.wait_for_selector("#name")
    assert page.evaluate(KEPT) == 1
    page.unroute_all()
    assert sign_in_again() == ["2"]

    # The session is over: nothing is asked, and it stays.
    page.wait_for_selector("text=Draft saved")
    page.context.clear_cookies()
    press(page, "1")
    page.click("[action='/sign-out'] button")
    page.wait_for_selector("#name")
    assert page.evaluate(KEPT) == 1
    assert sign_in_again() == ["1"]

    # From another page: it is on the server, no longer here, and the task is free for others.
    press(page, "b")
    page.click("[data-pl=name]")
    page.wait_for_url("**/account")  # with its script, which hands the draft over
    page.click("[action='/sign-out'] button")
    page.wait_for_selector("#name")
    assert (page.evaluate(KEPT), service.control.held()) == (0, [])
    assert sign_in_again() == ["1"]
    assert page.get_attribute("[data-pl=all-bad]", "aria-pressed") == "true"

    # A page that the browser brings back as it was asks anew who is signed in.
    page.context.clear_cookies()
    page.evaluate("window.dispatchEvent(new PageTransitionEvent('pageshow', { persisted: true }))")
    page.wait_for_selector("#name")


def test_nobody_answers_under_the_name_of_whoever_signed_in_since(
    open_page: OpenPage, service: PreferenceService, address: str
) -> None:
    service.add_tasks([new_task("kettle", 2)])
    page = open_page("Ada")
    press(page, "2 1")
    page.wait_for_selector("text=Draft saved")
    other = page.context.new_page()
    other.context.clear_cookies()
    other.goto(address)
    other.fill("#name", "Bob")
    press(other, "Enter")
    other.wait_for_selector(".pl-task")
    for key in ("b", "Enter"):  # a draft, an answer
        press(page, key)
        page.wait_for_selector("text=Somebody else has signed in in this browser.")
    page.click("text=Reload the page")
    page.wait_for_function("document.querySelector('[data-pl=name]')?.textContent === 'Bob'")
    page.wait_for_selector(".pl-task")
    assert ranks_on(page) == []
    assert list(service.judgements()) == []
    ada = service.sign_in("Ada").annotator_id
    assert service.lease_next(ada).draft["all_bad"] is False  # type: ignore[union-attr,index]
