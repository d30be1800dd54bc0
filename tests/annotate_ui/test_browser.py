"""The app as people use it, in a real Chromium."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from annotate_ui.setup import Setup
from plumbline.preferences.service import PreferenceService
from tests.annotate_ui.conftest import judgements, new_task, press, ranks_as_shown
from tests.annotate_ui.screens import outside, too_small

pytestmark = pytest.mark.browser

OpenPage = Callable[..., Any]


def prompt_of(page: Any) -> str:
    return page.inner_text(".pl-prompt .pl-text")


def wait_for_other_than(page: Any, prompt: str) -> None:
    page.wait_for_function("text => document.querySelector('.pl-prompt .pl-text')?.innerText !== text", arg=prompt)


def test_ranking_by_keyboard_with_a_tie(open_page: OpenPage, service: PreferenceService, address: str) -> None:
    service.add_tasks([new_task("kettle"), new_task("parcel")])
    page = open_page("Ada")
    prompt, shown = prompt_of(page), page.locator(".pl-card .pl-text").all_inner_texts()
    press(page, "1 3 =")
    assert page.inner_text("[data-pl=summary]").split("(")[0].split() == ["A", ">", "B", "=", "C"]
    press(page, "Enter")  # refused: D has no rank yet
    press(page, "2 Enter")
    wait_for_other_than(page, prompt)
    (record,) = judgements(service, 1)
    texts = {response.response_id: response.text for response in record.responses}
    assert [texts[response_id] for response_id in record.shown_order] == shown
    assert ranks_as_shown(record) == [1, 3, 3, 2]
    assert record.annotator == "Ada"
    assert record.seconds is not None
    assert all(url.startswith(address) for url in page.requested), "the page asked another address"


def test_ranking_by_mouse_and_correcting_it(open_page: OpenPage, service: PreferenceService) -> None:
    service.add_tasks([new_task("kettle", 3), new_task("parcel", 3)])
    page = open_page("Ada")
    first = prompt_of(page)
    for letter, rank in (("A", 2), ("B", 1), ("C", 2)):
        page.click(f"[aria-label='Response {letter}'] .pl-rank >> nth={rank - 1}")
    page.click("[data-do=judge]")
    wait_for_other_than(page, first)
    assert ranks_as_shown(judgements(service, 1)[0]) == [2, 1, 2]

    page.click("button:has-text('Undo')")
    page.wait_for_selector("text=You are correcting an earlier answer")
    assert prompt_of(page) == first
    assert page.locator(".pl-rank input:checked").evaluate_all("all => all.map(one => one.value)") == ["2", "1", "2"]
    page.click("[aria-label='Response C'] .pl-rank >> nth=2")
    page.click("[data-do=judge]")
    wait_for_other_than(page, first)
    (record,) = judgements(service, 1)
    assert ranks_as_shown(record) == [2, 1, 3]


def test_skip_flag_and_undo_of_a_flag(open_page: OpenPage, service: PreferenceService) -> None:
    service.add_tasks([new_task("kettle"), new_task("parcel")])
    page = open_page("Ada")
    first = prompt_of(page)
    press(page, "s")
    page.fill("#pl-skip-note", "in a language that I do not read")
    press(page, "Enter")
    wait_for_other_than(page, first)
    second = prompt_of(page)
    press(page, "f Escape")  # closed without flagging
    press(page, "f Enter")  # nothing is chosen yet, so nothing is sent
    page.click("text=Personal data of a real person")
    page.click("[data-pl=flag-dialog] button[value=ok]")
    page.wait_for_selector("text=Nothing to rank now")
    assert (service.progress().skipped, service.progress().flagged) == (1, 1)
    press(page, "u")
    page.wait_for_selector(".pl-card")
    assert prompt_of(page) == second
    press(page, "1 = = = Enter")
    assert ranks_as_shown(judgements(service, 1)[0]) == [1, 1, 1, 1]
    page.wait_for_selector("text=Nothing to rank now")
    assert service.progress().flagged == 0


def test_keys_are_ignored_while_typing(open_page: OpenPage, service: PreferenceService) -> None:
    service.add_tasks([new_task("kettle", 2)])
    page = open_page("Ada")
    page.click("summary:has-text('Add a reason')")
    page.type("#pl-reason-text", "s1f u=?")
    assert page.locator("dialog[open]").count() == 0
    assert page.locator(".pl-rank input:checked").count() == 0
    page.click("[aria-label='Response A'] .pl-letter")
    press(page, "2 1 Enter")
    assert judgements(service, 1)[0].reason == "s1f u=?"


BREAK_CONNECTION = """({sent}) => {
    window.wholeFetch ??= window.fetch;
    window.fetch = async (...request) => {
        if (!String(request[0]).includes("/annotate-work/")) return window.wholeFetch(...request);
        if (sent) await window.wholeFetch(...request);
        throw new TypeError("connection lost");
    };
}"""


def test_a_lost_connection_loses_no_ranking_and_a_retry_counts_once(
    open_page: OpenPage, service: PreferenceService
) -> None:
    service.add_tasks([new_task("kettle", 2)])
    page = open_page("Ada")
    press(page, "2 1")
    page.evaluate(BREAK_CONNECTION, {"sent": False})
    press(page, "Enter")
    page.wait_for_selector("[data-pl=error]:not([hidden])")
    assert list(service.judgements()) == []

    # The server stores the judgement, but its answer is lost: the retry must not make a second one.
    page.evaluate(BREAK_CONNECTION, {"sent": True})
    press(page, "Enter")
    page.wait_for_selector("[data-pl=error]:not([hidden])")
    judgements(service, 1)
    page.evaluate("window.fetch = window.wholeFetch")
    press(page, "Enter")
    page.wait_for_selector("text=Nothing to rank now")
    assert [ranks_as_shown(record) for record in service.judgements(include_superseded=True)] == [[2, 1]]


def test_a_reload_keeps_the_ranking(open_page: OpenPage, service: PreferenceService) -> None:
    service.add_tasks([new_task("kettle", 3), new_task("parcel", 3)])
    page = open_page("Ada")
    prompt = prompt_of(page)
    press(page, "2 1")
    page.reload()
    page.wait_for_selector(".pl-card")
    assert prompt_of(page) == prompt
    assert page.locator(".pl-rank input:checked").evaluate_all("all => all.map(one => one.value)") == ["2", "1"]


def test_two_annotators_never_get_the_same_task(open_page: OpenPage, service: PreferenceService) -> None:
    service.add_tasks([new_task(f"task {number}", 2) for number in range(4)])
    pages = [open_page("Ada"), open_page("Bob")]
    for page in pages * 2:
        prompt = prompt_of(page)
        press(page, "1 2 Enter")
        page.wait_for_function("text => document.querySelector('.pl-prompt .pl-text')?.innerText !== text", arg=prompt)
    records = judgements(service, 4)
    assert len({str(record.prompt) for record in records}) == 4
    assert sorted(record.annotator for record in records) == ["Ada", "Ada", "Bob", "Bob"]


@pytest.mark.parametrize("responses", [2, 9])
def test_a_phone_shows_all_of_it_in_its_width(open_page: OpenPage, service: PreferenceService, responses: int) -> None:
    service.add_tasks([new_task("a" * 200, responses)])
    page = open_page("Ada", viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    assert page.locator(".pl-rank:visible").count() == responses * responses
    assert [*outside(page), *too_small(page)] == []
    page.tap("[aria-label='Response A'] .pl-rank >> nth=1")
    assert page.locator(".pl-rank input:checked").count() == 1


def test_nine_ranks_stay_in_one_row_for_a_mouse(open_page: OpenPage, service: PreferenceService) -> None:
    service.add_tasks([new_task("kettle", 9)])
    page = open_page("Ada", viewport={"width": 1280, "height": 500})
    in_one_row = """() => getComputedStyle(document.querySelector('.pl-card-head')).position === 'static'
        && [...document.querySelectorAll('.pl-card')].every(
            card => new Set([...card.querySelectorAll('.pl-rank')].map(rank => rank.offsetTop)).size === 1)"""
    for width in (1280, 1100, 380):
        page.set_viewport_size({"width": width, "height": 500})
        page.wait_for_function(in_one_row)


@pytest.mark.parametrize("setup", [Setup("Support", guideline="# How to rank\n\nBest first.")])
def test_the_guideline_stands_open_only_where_there_is_room(open_page: OpenPage, service: PreferenceService) -> None:
    service.add_tasks([new_task("kettle", 2)])
    page = open_page("Ada", wait_for="dialog[open]")
    page.click("button:has-text('I have read version 1')")
    page.wait_for_selector(".pl-card")
    page.wait_for_selector("#pl-sidebar.open")
    page.set_viewport_size({"width": 380, "height": 800})
    page.wait_for_selector("#pl-sidebar:not(.open)")
    page.click("[data-do=guideline]")  # asked for
    page.wait_for_selector("#pl-sidebar.open")
    page.click("#pl-sidebar .toggle-button")
    page.set_viewport_size({"width": 1280, "height": 900})
    page.wait_for_selector("#pl-sidebar.open")
    page.click("#pl-sidebar .toggle-button")  # closed where it would stand open: it stays closed
    page.wait_for_selector("#pl-sidebar:not(.open)")
    page.set_viewport_size({"width": 380, "height": 800})
    page.set_viewport_size({"width": 1280, "height": 900})
    page.wait_for_timeout(300)
    assert page.locator("#pl-sidebar.open").count() == 0
