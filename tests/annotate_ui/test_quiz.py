"""The quiz on the guideline as annotators meet it, and what their lead sees of it: over HTTP and in a real Chromium."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient

from annotate_ui.app import build_app
from annotate_ui.setup import Setup
from plumbline.preferences.quiz_file import Question, Quiz
from plumbline.preferences.rules import Rules
from plumbline.preferences.service import PreferenceService
from plumbline.preferences.store import Store
from tests.annotate_ui.conftest import new_task, press
from tests.annotate_ui.screens import outside, too_small
from tests.annotate_ui.test_board_safety import serious

OpenPage = Callable[..., Any]

QUIZ = Quiz(
    (
        Question("Right or **kind**?", ("the right one", "the kind one"), frozenset({1}), "Wrong helps *nobody*."),
        Question("When do you skip?", ("never", "no idea", "wrong language"), frozenset({2, 3}), "Both are reasons."),
        Question("<b onclick=x>Ties?", ("allowed", "<script>hacked=1</script>"), frozenset({1}), "They share a rank."),
    ),
    pass_share=0.6,
    attempts=2,
)
RIGHT = [[1], [2, 3], [1]]


@pytest.fixture
def service(store: Store) -> PreferenceService:
    service = PreferenceService(store, project="support", rules=Rules(quiz=QUIZ))
    service.add_tasks([new_task("kettle", 2), new_task("toaster", 2)])
    return service


def signed_in(service: PreferenceService, name: str) -> TestClient:
    client = TestClient(build_app(service, Setup("Support")), base_url="http://127.0.0.1:7860")
    client.post("/sign-in", data={"name": name})
    return client


def ask(client: TestClient, action: str, desk: str = "annotate-work", **message: Any) -> Any:
    return client.post(f"/{desk}/{action}", json=message).json()


def test_nothing_tells_what_is_right_before_and_only_the_explanation_after(service: PreferenceService) -> None:
    ada = signed_in(service, "Ada")
    before = ask(ada, "next")
    assert before["stays"] and "the kind one" in before["html"] and 'data-number="1"' in before["html"]
    assert "nobody" not in json.dumps(before) and QUIZ.content not in json.dumps(before)
    failed = ask(ada, "quiz", shown=QUIZ.shown_content, number=1, chosen=[[2], [2], [1]])["html"]
    assert "1 of 3 right" in failed and "<em>nobody</em>" in failed and "Both are reasons" in failed
    assert "share a rank" not in failed  # that one was right
    assert "the right one" not in failed  # the explanation says as much as it wants to
    passed = ask(ada, "quiz", shown=QUIZ.shown_content, number=2, chosen=RIGHT)
    assert passed["notice"] == "All answers are right." and "task" in passed
    for wrong in ({"number": 0}, {"chosen": [[0]]}, {"chosen": [[1] * 10]}, {"chosen": "x"}):
        message = {"shown": "x", "number": 1, "chosen": [], **wrong}
        assert ada.post("/annotate-work/quiz", json=message).status_code == 422


def test_the_lead_sees_how_people_did_and_lets_them_go_on(service: PreferenceService) -> None:
    lea, ada = (signed_in(service, name) for name in ("Lea", "Ada"))
    who = service.sign_in("Ada").annotator_id
    for number in (1, 2):
        ask(ada, "quiz", shown=QUIZ.shown_content, number=number, chosen=[[2], [2], [1]])
    assert "used up your tries" in ask(ada, "next")["html"]
    html = ask(lea, "queue", "lead-work")["html"]
    assert "waits for you" in html and "33% right in try 2" in html and "1</p>" in html.split("Quiz</h2>")[1][:30]
    assert "may try the quiz again" in ask(lea, "quiz_again", "lead-work", annotator_id=who)["notice"]
    assert "2 left" in ask(lea, "queue", "lead-work")["html"]
    assert "have tries left" in ask(lea, "quiz_again", "lead-work", annotator_id=who)["error"]
    assert "without having passed" in ask(lea, "quiz_let_in", "lead-work", annotator_id=who)["notice"]
    assert "task" in ask(ada, "next")
    assert "have passed" in ask(lea, "quiz_let_in", "lead-work", annotator_id=who)["error"]


@pytest.mark.parametrize("setup", [Setup("Support", guideline="# Be right")])
def test_the_quiz_by_keyboard_then_by_thumb(open_page: OpenPage, service: PreferenceService) -> None:
    page = open_page("Ada", wait_for="dialog[open]")
    page.click("[data-do=consent]")
    page.wait_for_selector("form.pl-quiz")
    assert serious(page) == []
    press(page, "2 Enter")  # of the first question; the next has the focus, and no answer
    page.wait_for_function("document.querySelector('[data-pl=quiz-missing]').textContent.includes('Question 2')")
    press(page, "2 3")
    page.focus("[data-question='3'] input")
    press(page, "2 Enter")
    page.wait_for_selector("[data-pl=graded]")
    assert page.inner_text("[data-pl=graded] h2") == "Not passed: 1 of 3 right"
    assert page.evaluate("document.activeElement.tagName") == "H2"  # which is read out
    assert serious(page) == [] and page.evaluate("window.hacked") is None and page.locator(".pl-task b").count() == 0
    page.click("[data-pl=graded] [data-do=next]")
    page.wait_for_selector("form[data-number='2']")
    press(page, "1 2 3")
    page.focus("[data-question='3'] input")
    press(page, "1 Enter")
    page.wait_for_selector(".pl-card")  # all right, so the work comes at once

    phone = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True, "color_scheme": "dark"}
    page = open_page("Ben", wait_for="dialog[open]", **phone)
    page.tap("[data-do=consent]")
    page.wait_for_selector("form.pl-quiz")
    assert serious(page) == []
    assert [*outside(page), *too_small(page)] == []
    for place, option in enumerate((1, 0, 0), 1):
        page.tap(f"[data-question='{place}'] label >> nth={option}")
    page.tap(".pl-quiz > button")
    page.wait_for_selector("[data-pl=graded][data-passed=no]")
    page.evaluate("document.querySelector('[data-pl=graded] [data-do=next]').click()")
    page.wait_for_selector("form[data-number='2']")
    for place, option in enumerate((0, 1, 0), 1):
        page.tap(f"[data-question='{place}'] label >> nth={option}")
    page.tap(".pl-quiz > button")
    page.wait_for_selector("[data-pl=graded][data-passed=yes]")
    assert "Both are reasons." in page.inner_text("[data-pl=graded]")
    page.tap("[data-pl=graded] [data-do=next]")
    page.wait_for_selector(".pl-card")
