"""What the board does where an answer, the browser's storage or a guideline is missing, and what it tells then."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from plumbline.preferences.service import PreferenceService
from tests.annotate_ui.conftest import judgements, new_task, press, ranks_as_shown
from tests.annotate_ui.test_browser import BREAK_CONNECTION

pytestmark = pytest.mark.browser

OpenPage = Callable[..., Any]
FOCUSED = "document.activeElement.textContent"
IMPATIENT = "const whole = AbortSignal.timeout; AbortSignal.timeout = () => whole.call(AbortSignal, 3000)"
NO_STORAGE = """for (const name of ["localStorage", "sessionStorage"]) {
    Object.defineProperty(window, name, { get: () => { throw new DOMException("denied", "SecurityError"); } });
}"""


def test_a_connection_that_hangs_is_told_and_tried_again(open_page: OpenPage, service: PreferenceService) -> None:
    service.add_tasks([new_task("kettle", 2)])
    page = open_page("Ada")
    page.context.add_init_script(IMPATIENT)
    page.reload()
    page.wait_for_selector(".pl-card")
    asked: list[Any] = []
    page.route("**/annotate-work/judge", lambda route: route.continue_() if len(asked) > 1 else asked.append(route))
    assert page.evaluate("getComputedStyle(document.querySelector('[data-pl=toast]')).display") != "none"  # announced
    press(page, "2 1 Enter")
    page.wait_for_selector("[data-pl=toast]:has-text('Waiting for the annotation app')")
    page.wait_for_selector("[role=alert]:has-text('cannot be reached')")
    assert page.evaluate(FOCUSED) == "Try now"
    page.focus("[data-nav=theme]")
    page.wait_for_selector("[role=alert]:has-text('in 2 s')")  # again
    assert page.evaluate("document.activeElement.dataset.nav") == "theme"
    asked.append(None)
    page.wait_for_selector("text=Nothing to rank now")
    assert [ranks_as_shown(record) for record in judgements(service, 1)] == [[2, 1]]


def test_the_board_works_without_the_browser_s_storage(open_page: OpenPage, service: PreferenceService) -> None:
    service.add_tasks([new_task(name, 2) for name in ("kettle", "parcel")])
    page = open_page("Ada")
    page.context.add_init_script(NO_STORAGE)
    page.reload()
    page.wait_for_selector(".pl-card")
    was = page.get_attribute("body", "class")
    page.click("[data-nav=theme]")
    assert page.get_attribute("body", "class") != was
    page.evaluate(BREAK_CONNECTION, {"sent": False})
    press(page, "2")
    page.wait_for_selector("text=Draft not saved: keep this page open")
    page.evaluate("window.fetch = window.wholeFetch")
    press(page, "1")
    page.wait_for_selector("text=Draft saved")
    press(page, "Enter")
    page.wait_for_selector("text=Saved.")
    assert [ranks_as_shown(record) for record in judgements(service, 1)] == [[2, 1]]
    page.click("[action='/sign-out'] button")
    page.wait_for_selector("#name")


def test_arrows_scroll_where_the_focus_is_in_a_wide_text(open_page: OpenPage, service: PreferenceService) -> None:
    table = f"| a | b |\n|---|---|\n| {'wide' * 100} | {'x' * 400} |"
    service.add_tasks([new_task("kettle", [f"```\n{'code ' * 100}\n```", table])])
    page = open_page("Ada")
    page.focus(".pl-card pre")
    press(page, "ArrowRight ArrowRight")
    page.wait_for_function("document.querySelector('.pl-card pre').scrollLeft > 0")
    assert page.evaluate("document.activeElement.localName") == "pre"
    press(page, "2")  # other keys go on
    press(page, "ArrowDown")
    assert page.locator(".pl-rank input:checked").count() == 1

    # No guideline: its key opens nothing.
    press(page, "g")
    assert page.locator("#pl-sidebar.open").count() == 0


def test_what_is_written_beside_a_skip_is_kept_and_faults_in_my_work_are_told(
    open_page: OpenPage, service: PreferenceService
) -> None:
    service.add_tasks([new_task(f"task {number}", 2) for number in range(23)])
    ada = service.sign_in("Ada").annotator_id
    for number in range(20):
        work = service.lease_next(ada)
        service.skip(work.lease_id, ada, reason="so", idempotency_key=str(number))  # type: ignore[union-attr]
    page = open_page("Ada")
    for note, choice, kept in (
        ("chemistry", "I do not know this topic", "I do not know this topic well enough: chemistry"),
        ("  ", None, "Another reason"),
    ):
        shown = page.get_attribute("[data-lease]", "data-lease")
        press(page, "s")
        page.fill("#pl-skip-note", note)
        if choice:
            page.click(f"dialog[open] >> text={choice}")
        page.click("dialog[open] [value=ok]")
        page.wait_for_function("was => document.querySelector('[data-lease]')?.dataset.lease !== was", arg=shown)
        assert service.own_work(ada, limit=1)[0].answer.reason == kept
    press(page, "w")
    page.wait_for_selector(".pl-own-more")
    page.evaluate(BREAK_CONNECTION, {"sent": False})
    page.click("text=Show older")
    page.wait_for_selector(".pl-own-more [role=alert]:has-text('cannot be reached')")
    page.evaluate("window.fetch = window.wholeFetch")
    page.click("text=Show older")
    page.wait_for_selector(".pl-own >> nth=21")
