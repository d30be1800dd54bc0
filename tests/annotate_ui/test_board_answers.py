"""What annotators can say beside a ranking, in a real Chromium: strength, scores, all bad, an improved response."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotate_ui.setup import Setup
from plumbline.preferences.records import ALL_BAD
from plumbline.preferences.service import PreferenceService
from plumbline.preferences.source_names import MASK
from plumbline.recipe_annotate import RubricAxis
from tests.annotate_ui.conftest import judgements, new_task, press, ranks_as_shown

pytestmark = pytest.mark.browser

OpenPage = Callable[..., Any]
RUBRIC = (RubricAxis(name="helpful", question="Is it helpful?", levels=5), RubricAxis(name="short", question="Short?"))


@pytest.mark.parametrize("setup", [Setup("Support", strength=True)])
def test_strengths_are_asked_between_neighbouring_ranks_by_keyboard(
    open_page: OpenPage, service: PreferenceService
) -> None:
    service.add_tasks([new_task("kettle", 4)])
    page = open_page("Ada")
    press(page, "2 1 =")
    assert page.locator(".pl-gap").count() == 0
    press(page, "3")  # B = C, A, D: the focus goes on to the first gap
    assert page.locator(".pl-gap legend").all_inner_texts() == ["B = C better than A", "A better than D"]
    press(page, "Enter")  # refused: nothing is said of the gaps
    press(page, "4 1 Enter")
    (record,) = judgements(service, 1)
    assert ranks_as_shown(record) == [2, 1, 1, 3]
    assert record.gaps == (4, 1)


@pytest.mark.parametrize("setup", [Setup("Support", strength=True)])
def test_a_strength_goes_with_its_neighbours(open_page: OpenPage, service: PreferenceService) -> None:
    service.add_tasks([new_task("kettle", 3)])
    page = open_page("Ada")
    press(page, "1 2 3 4 2")  # A > B much, B > C slightly
    page.click("[aria-label='Response A'] .pl-rank >> nth=2")  # B > A = C
    assert page.locator(".pl-gap legend").all_inner_texts() == ["B better than A = C"]
    assert page.locator(".pl-gap input:checked").count() == 0
    page.click("[aria-label='Response A'] .pl-rank >> nth=0")  # as it was
    assert page.locator(".pl-gap input:checked").evaluate_all("all => all.map(one => one.value)") == ["4", "2"]


@pytest.mark.parametrize("setup", [Setup("Support", strength=True)])
def test_digits_are_strengths_after_a_reason_and_a_reload_too(open_page: OpenPage, service: PreferenceService) -> None:
    service.add_tasks([new_task("kettle", 3)])
    page = open_page("Ada")
    press(page, "1 2 3 n")
    page.keyboard.type("shorter")
    press(page, "Escape 2")
    page.wait_for_function("document.querySelector('[data-pl=draft]').textContent === 'Draft saved'")
    page.reload()
    page.wait_for_selector(".pl-gap")
    press(page, "3 Enter")
    (record,) = judgements(service, 1)
    assert (ranks_as_shown(record), record.gaps, record.reason) == ([1, 2, 3], (2, 3), "shorter")


@pytest.mark.parametrize("setup", [Setup("Support", strength=True)])
def test_a_reason_is_asked_for_where_one_is_needed(open_page: OpenPage, service: PreferenceService) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    service.rules = replace(service.rules, require_reason=("strong", "all_bad"))
    service.add_tasks([new_task(name, 3) for name in ("kettle", "parcel", "refund")])
    page = open_page("Ada")
    reason, todo = page.locator("[data-pl=reason]"), page.locator("[data-pl=todo]")
    press(page, "1 2 3 4")
    assert reason.get_attribute("required") is not None and page.is_visible("text=(needed)")
    press(page, "2")  # the last grade: the focus goes on to the reason
    assert reason.evaluate("field => field === document.activeElement")
    assert todo.inner_text() == "Give a reason"
    assert page.get_attribute("[data-pl=submit]", "aria-disabled") == "true"
    assert not [one for one in axe.run(page).response["violations"] if one["impact"] in ("serious", "critical")]
    press(page, "Control+Enter")
    assert todo.inner_text().startswith("You graded a response as much better")
    page.keyboard.type(" !")  # no word
    assert todo.inner_text() == "Give a reason"
    page.keyboard.type(" shorter")
    assert todo.inner_text() == ""
    press(page, "Control+Enter")
    assert judgements(service, 1)[0].reason == "! shorter"
    page.wait_for_function("document.querySelectorAll('.pl-rank input:checked').length === 0")
    press(page, "1 2 3 4 2")
    press(page, "Escape ArrowUp ArrowUp")
    page.click("[aria-label='Response A'] .pl-rank >> nth=1")  # A and B tied: the grade is gone, and its reason
    assert reason.get_attribute("required") is None and page.is_hidden("text=(needed)")
    page.click(".pl-gap label >> nth=0")
    page.click("[data-pl=submit]")
    assert len(judgements(service, 2)) == 2
    page.wait_for_function("document.querySelectorAll('.pl-rank input:checked').length === 0")
    press(page, "b Enter")  # refused, with the focus on the reason
    assert todo.inner_text().startswith("All bad: say")
    page.keyboard.type("all rude")
    press(page, "Control+Enter")
    assert [record.reason for record in judgements(service, 3) if ALL_BAD in record.flags] == ["all rude"]


def test_an_improved_response_holds_no_mask(open_page: OpenPage, service: PreferenceService) -> None:
    service.add_tasks([new_task("kettle", ["I am Qwen, and I help.", "I am ChatGPT, by OpenAI."])])
    page = open_page("Ada")
    assert page.is_visible("text=stands for a name that would tell")
    assert "Qwen" not in page.content() and "ChatGPT" not in page.content()
    press(page, "1 2 e End")
    page.keyboard.type(" Gladly.")
    press(page, "Control+Enter")
    assert "write it without that name" in page.inner_text("[data-pl=todo]")
    assert MASK in page.input_value("[data-pl=edited]")
    page.fill("[data-pl=edited]", "I help.")
    press(page, "Control+Enter")
    (record,) = judgements(service, 1)
    assert record.edited == "I help."
    assert "I am Qwen, and I help." in {response.text for response in record.responses}


@pytest.mark.parametrize("setup", [Setup("Support", rubric=RUBRIC)])
def test_scores_on_each_axis_by_keyboard(open_page: OpenPage, service: PreferenceService) -> None:
    service.add_tasks([new_task("kettle", 2)])
    page = open_page("Ada")
    press(page, "r 5 4")  # of A; the focus goes on to B
    press(page, "3 2")
    press(page, "1 2 Enter")
    (record,) = judgements(service, 1)
    shown = record.shown_order
    assert record.scores == {
        "helpful": dict(zip(shown, [5, 3], strict=True)),
        "short": dict(zip(shown, [4, 2], strict=True)),
    }
    assert ranks_as_shown(record) == [1, 2]


@pytest.mark.parametrize("setup", [Setup("Support", rubric=RUBRIC)])
def test_all_bad_ties_what_has_no_rank_and_asks_no_scores(open_page: OpenPage, service: PreferenceService) -> None:
    service.add_tasks([new_task("kettle", 3)])
    page = open_page("Ada")
    press(page, "b b")
    assert page.locator(".pl-ranks input:checked").count() == 0
    press(page, "b Enter")
    (record,) = judgements(service, 1)
    assert ranks_as_shown(record) == [1, 1, 1]
    assert record.flags == (ALL_BAD,)


def test_the_best_response_is_improved_and_compared_word_by_word(
    open_page: OpenPage, service: PreferenceService
) -> None:
    texts = ["Please fill the kettle <b>first</b>.", "Buy a new kettle."]
    service.add_tasks([new_task("kettle", texts)])
    page = open_page("Ada")
    first = page.inner_text("[aria-label='Response A'] .pl-text")
    press(page, "1 2 e")
    assert page.input_value("[data-pl=edited]") == first
    page.keyboard.press("End")
    page.keyboard.type(" Then wait.")
    page.wait_for_function("document.querySelector('[data-pl=edit-diff] ins')?.textContent.trim() === 'Then wait.'")
    press(page, "Escape d")  # the marked one, B, against the best
    diff = page.locator("[data-pl=diff]")
    kept = diff.evaluate("d => [...d.childNodes].filter(n => n.nodeName !== 'INS').map(n => n.textContent).join('')")
    new = diff.evaluate("d => [...d.childNodes].filter(n => n.nodeName !== 'DEL').map(n => n.textContent).join('')")
    assert [kept, new] == (texts[::-1] if first == texts[0] else texts)
    press(page, "Escape Enter")
    (record,) = judgements(service, 1)
    assert record.edited == f"{first} Then wait."


def test_an_improved_response_must_be_the_best(open_page: OpenPage, service: PreferenceService) -> None:
    service.add_tasks([new_task("kettle", 2)])
    page = open_page("Ada")
    press(page, "1 2 e")
    page.keyboard.type("Better: ")
    press(page, "Escape")
    page.click("[aria-label='Response A'] .pl-rank >> nth=1")
    page.click("[aria-label='Response B'] .pl-rank >> nth=0")
    press(page, "Enter")
    page.wait_for_selector("[data-pl=edit-stale]:visible")
    assert list(service.judgements()) == []
    page.click("text=Improve that one instead")
    page.keyboard.press("Control+Enter")  # unchanged: nothing is sent as improved
    (record,) = judgements(service, 1)
    assert (record.edited, ranks_as_shown(record)) == (None, [2, 1])


TEXTS = st.lists(st.sampled_from(["tea", "cup", " ", "  ", "\n", ".", "<b>", "水", "茶", "é", "🫖"]), max_size=12).map(
    "".join
)
DIFFS = """async (pairs) => {
    const { diffWords } = await import("/assets/board/diff.js");
    return pairs.map(([before, after, mostSteps]) => diffWords(before, after, mostSteps));
}"""


def in_common(before: list[str], after: list[str]) -> int:
    """The length of the longest common subsequence."""
    best = [0] * (len(after) + 1)
    for one in before:
        above = best[:]
        for index, other in enumerate(after):
            best[index + 1] = above[index] + 1 if one == other else max(best[index], above[index + 1])
    return best[-1]


def test_a_diff_says_what_became_of_every_word(browser: Any, address: str) -> None:
    page = browser.new_page()
    page.goto(address)

    @settings(max_examples=20, deadline=None)
    @given(st.lists(st.tuples(TEXTS, TEXTS), min_size=20, max_size=40))
    def check(pairs: list[tuple[str, str]]) -> None:
        for (before, after), found in zip(pairs, page.evaluate(DIFFS, pairs), strict=True):
            pieces = found["pieces"]
            assert found["whole"]
            assert "".join(text for kind, text in pieces if kind != "ins") == before
            assert "".join(text for kind, text in pieces if kind != "del") == after
            assert before != after or all(kind == "same" for kind, _ in pieces)

    check()
    found = page.evaluate(DIFFS, [["the old red cup", "the new blue cup"], ["a b c d", "a c d e"]])
    assert [one["pieces"] for one in found] == [
        [["same", "the "], ["del", "old red"], ["ins", "new blue"], ["same", " cup"]],
        [["same", "a "], ["del", "b "], ["same", "c d"], ["ins", " e"]],
    ]
    page.close()


def test_long_texts_are_compared_word_by_word_and_what_is_not_is_told(open_page: OpenPage, service: Any) -> None:
    random = Random(1)
    pairs = [["".join(random.choices("水茶火土木", k=random.randrange(30))) for _ in range(2)] for _ in range(300)]
    words = [f"tea{random.randrange(1000)}" for _ in range(2500)]
    texts = [" ".join(words), " ".join(random.choice((word, word, "cup")) for word in words)]
    service.add_tasks([new_task("kettle", [f"{texts[0]} one", f"{texts[1]} two"])])
    page = open_page("Ada")
    for (before, after), found in zip(pairs, page.evaluate(DIFFS, pairs), strict=True):  # each character is a word
        kept = sum(len(text) for kind, text in found["pieces"] if kind == "same")
        assert (found["whole"], kept) == (True, in_common(list(before), list(after)))
    whole, rough = page.evaluate(DIFFS, [texts[:2], [*texts[:2], 10_000]])
    assert (whole["whole"], rough["whole"]) == (True, False)
    kept = [text for kind, text in whole["pieces"] if kind == "same"]
    assert len(kept) > 100
    for found in (whole, rough):
        assert "".join(text for kind, text in found["pieces"] if kind != "ins") == texts[0]
        assert "".join(text for kind, text in found["pieces"] if kind != "del") == texts[1]
    press(page, "d")
    page.wait_for_selector("dialog[open] del >> nth=50")
    assert page.locator("[data-pl=diff] .pl-note").count() == 0
    told = page.evaluate(r"""async () => {
        const { showDiff } = await import("/assets/board/diff.js");
        const place = document.createElement("div");
        const different = [0, 1].map((side) => Array.from({ length: 30000 }, (_, n) => `${side}-${n}`).join("\n"));
        showDiff(place, ...different, (key) => key);
        return place.firstChild.textContent;
    }""")
    assert told == "diff_rough"
