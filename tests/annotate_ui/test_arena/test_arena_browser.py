"""The arena in a real Chromium: by keyboard and by thumb, stopped by a vote, with errors, and for screen readers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from annotate_ui.sessions import Sessions
from plumbline.preferences.arena import Said
from tests.annotate_ui.screens import outside
from tests.annotate_ui.test_arena.conftest import HELD_OUT, votes_of, whole

pytestmark = pytest.mark.browser


def test_a_conversation_by_keyboard(open_arena, service, address):
    page = open_arena("Ada")
    page.click("[data-do=draw]")
    page.wait_for_function("document.querySelector('#pl-say-text').value")
    assert page.input_value("#pl-say-text") == HELD_OUT
    page.focus("#pl-say-text")
    page.keyboard.press("Control+Enter")
    whole(page)
    assert page.locator(".pl-duel strong").count() == 1  # sanitised Markdown at the end
    border = "getComputedStyle(document.querySelector('.pl-duel .pl-card')).borderTopWidth"
    assert page.evaluate(border) == "1px"  # the board's cards
    assert not any(name in page.inner_text("body") for name in ("sft", "dpo"))
    page.keyboard.press("1")
    page.wait_for_selector("[data-side=left].pl-chosen")
    assert votes_of(service, 1)[0].score == 1
    page.fill("#pl-say-text", "And then?")
    page.click("[data-pl=send]")
    page.wait_for_selector("text=Turn 2 of 3")
    whole(page)
    page.keyboard.press("=")
    page.wait_for_selector("[data-do=end]:visible")
    page.click("[data-do=end]")
    assert "sft" in page.inner_text(".pl-reveal table")
    page.click("[data-do=anew]")
    assert page.is_visible("[data-do=draw]")
    assert page.is_hidden(".pl-duel")
    assert len(votes_of(service, 2)) == 2
    assert all(url.startswith(address) for url in page.requested), "the page asked another address"


def test_a_vote_stops_the_stream_where_it_was_seen(open_arena, service, stand_in):
    stand_in.pause_at = 40
    page = open_arena("Ada")
    page.fill("#pl-say-text", "Where is it?")
    page.click("[data-pl=send]")
    page.wait_for_function(
        "[...document.querySelectorAll('.pl-plain')].filter(e => e.innerText.length >= 36).length == 2"
    )
    page.click("[data-vote=both-bad]")
    page.wait_for_selector("text=Stopped")
    (record,) = service.judgements()
    shown = {text.strip() for text in page.locator(".pl-duel .pl-text").all_inner_texts()}
    assert {response.text.replace("**", "").strip() for response in record.responses} == shown
    assert record.flags == ("all-bad",)


def test_a_refused_prompt_stays_on_the_page_and_a_reload_brings_the_turn_back(open_arena, stand_in):
    page = open_arena("Ada")
    page.fill("#pl-say-text", "long " * 500)
    page.click("[data-pl=send]")
    page.wait_for_selector("text=too many tokens")
    assert page.input_value("#pl-say-text").startswith("long long")
    page.fill("#pl-say-text", "short")
    page.click("[data-pl=send]")
    whole(page)
    page.reload()
    whole(page)
    assert page.is_visible("[data-vote=tie]")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
def test_accessible_and_within_the_screen(open_arena, scheme, width):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page = open_arena("Ada", color_scheme=scheme, viewport={"width": width, "height": 800})
    page.fill("#pl-say-text", "Where is it?")
    for act in (None, "[data-pl=send]", "[data-vote=left]", "[data-do=end]"):
        if act:
            page.click(act)
        if act == "[data-pl=send]":
            whole(page)
        elif act:
            page.wait_for_selector("[data-do=end]:visible" if "vote" in act else ".pl-reveal table")
        found = [one for one in axe.run(page).response["violations"] if one["impact"] in ("serious", "critical")]
        assert not found, [(one["id"], [node["html"][:120] for node in one["nodes"]]) for one in found]
        assert outside(page) == []
        for button in page.locator(".pl-arena .pl-button:visible").all():
            assert button.bounding_box()["height"] >= 44


@pytest.mark.parametrize("width", [1280, 360])
def test_the_leaderboard_of_a_lead(open_arena, service, arena, monkeypatch, width):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    read = Sessions.read
    monkeypatch.setattr(
        Sessions, "read", lambda self, request: (found := read(self, request)) and replace(found, role="lead")
    )
    who = service.sign_in("Bo").annotator_id
    for number in range(30):
        battle = arena.start(who, [{"role": "user", "content": f"Question {number}"}]).battle_id
        left_is_aligned = arena.duel(who, battle).left.name == "dpo"
        arena.said(battle, Said(f"one {number}", True), Said(f"two words {number}", True))
        arena.vote(who, battle, "left" if left_is_aligned else "right")
    page = open_arena("Ada", viewport={"width": width, "height": 800})
    page.focus("#pl-tab-board")
    page.keyboard.press("Enter")
    page.wait_for_selector("text=dpo is better than sft for the one annotator who voted")
    found = [one for one in axe.run(page).response["violations"] if one["impact"] in ("serious", "critical")]
    assert not found, [(one["id"], [node["html"][:120] for node in one["nodes"]]) for one in found]
    assert outside(page) == []
    page.click("#pl-tab-talk")
    assert page.is_visible("#pl-say-text")


def test_the_guideline_is_accepted_before_the_first_turn(open_arena, service):
    service.guidelines.publish("Rank what **helps** the customer most.")
    page = open_arena("Ada")
    page.fill("#pl-say-text", "Where is my parcel?")
    page.click("[data-pl=send]")
    page.wait_for_selector("dialog[open] strong")
    assert page.input_value("#pl-say-text") == "Where is my parcel?"
    page.click("[data-do=consent]")
    whole(page)  # what was written went out
    assert page.locator("dialog[open]").count() == 0
