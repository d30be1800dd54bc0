"""What a new version of the guideline changes, and where people are shown it."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st

from annotate_ui import changes as module
from annotate_ui.app import build_app
from annotate_ui.changes import Piece, around, changes
from annotate_ui.setup import Setup
from plumbline.preferences.service import PreferenceService
from tests.annotate_ui.conftest import new_task

BASE = "http://127.0.0.1:7860"
TEXTS = st.lists(st.sampled_from(["be", "fair", " ", "\n", ", ", "ä", "\r\n", "\x85", "."]), max_size=30).map("".join)


@given(TEXTS, TEXTS)
def test_each_version_can_be_read_from_the_pieces(before: str, after: str) -> None:
    pieces = changes(before, after)
    assert "".join(one.text for one in pieces if one.kind != "ins") == before
    assert "".join(one.text for one in pieces if one.kind != "del") == after
    assert all(one.text for one in pieces)
    assert [one.kind for one in changes(before, before)] == (["same"] if before else [])


def test_words_are_compared_within_changed_lines_and_neighbours_become_one_change() -> None:
    before = "# Rank\n\nBe fair to all.\nShort is good.\n"
    after = "# Rank\n\nBe very kind to all.\nShort is good.\nNever lie.\n"
    assert changes(before, after) == (
        Piece("same", "# Rank\n\nBe "),
        Piece("del", "fair"),
        Piece("ins", "very kind"),
        Piece("same", " to all.\nShort is good.\n"),
        Piece("ins", "Never lie.\n"),
    )
    assert changes("Be *kind* now.\n", "Go **fast** then.\n") == (
        Piece("del", "Be *kind* now"),
        Piece("ins", "Go **fast** then"),
        Piece("same", ".\n"),
    )


def test_a_passage_that_would_take_too_long_is_shown_as_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_WORDS", 5)
    assert changes("a b c", "a b d") == (Piece("del", "a b c"), Piece("ins", "a b d"))


def test_of_what_stays_a_few_lines_around_a_change_are_shown() -> None:
    lines = [f"line {number}\n" for number in range(12)]
    changed = [*lines[:6], "new\n", *lines[6:]]
    shown = around(changes("".join(lines), "".join(changed)))
    gap = Piece("gap", "")
    assert shown == [
        gap,
        Piece("same", "line 4\nline 5\n"),
        Piece("ins", "new\n"),
        Piece("same", "line 6\nline 7\n"),
        gap,
    ]
    two = around(changes("".join(lines), "".join([*changed, "end\n"])))
    assert [one.text for one in two[3:]] == ["line 6\nline 7\n", "", "line 10\nline 11\n", "end\n"]
    few = changes("a\nb\nc\nd\n", "x\na\nb\nc\nd\ny\n")
    assert around(few) == list(few)


def test_whoever_accepted_a_version_is_shown_what_came_since(service: PreferenceService) -> None:
    service.add_tasks([new_task("first")])
    service.guidelines.publish("Be <b>fair</b>.")
    with TestClient(build_app(service, Setup("Support")), base_url=BASE) as client:
        client.post("/sign-in", data={"name": "Ada"})

        def asked(action: str, **message: object) -> str:
            return str(client.post(f"/annotate-work/{action}", json=message).json()["html"])

        first = asked("next")
        assert "before you start" in first and "pl-changes" not in first
        asked("consent", version=1)
        service.guidelines.publish("Be <b>kind</b>.")
        service.guidelines.publish("Be <b>very kind</b>.")
        html = asked("next")
        assert "It has changed" in html and "What has changed since version 1" in html
        assert "Be &lt;b&gt;<del>fair</del><ins>very kind</ins>&lt;/b&gt;." in html

        service.guidelines.publish("Be <b>fair</b>.")  # as it was
        assert "version 4" in asked("next") and "pl-changes" not in asked("next")

        client.post("/sign-out")
        client.post("/sign-in", data={"name": "Ben"})  # whose first one is version 4
        assert "before you start" in asked("next") and "pl-changes" not in asked("next")
