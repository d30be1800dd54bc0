"""Adjudication in the app: leads and named adjudicators decide disputed tasks on the annotators' page."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from fastapi.testclient import TestClient

from annotate_ui.app import build_app
from annotate_ui.setup import Setup
from plumbline.preferences.flag_decisions import FlagDecisions
from plumbline.preferences.quiz_file import Question, Quiz
from plumbline.preferences.records import ADJUDICATION, Assignment
from plumbline.preferences.rules import Rules
from plumbline.preferences.service import PreferenceService
from plumbline.preferences.store import Store
from tests.annotate_ui.conftest import new_task, served

BASE = "http://127.0.0.1:7860"


@pytest.fixture
def service(store: Store) -> PreferenceService:
    """A task on which two annotators say the opposite, and one that nobody has seen."""
    service = PreferenceService(store, project="support", rules=Rules(adjudicate_above=0.3))
    service.set_overlap(2)
    service.add_tasks([new_task("disputed", 2)])
    for name, best in (("Ann", 0), ("Ben", 1)):
        who = service.sign_in(name).annotator_id
        work = service.lease_next(who)
        assert isinstance(work, Assignment)
        order = sorted(card.response_id for card in work.cards)
        ranking = {response: 1 if index == best else 2 for index, response in enumerate(order)}
        service.judge(work.lease_id, who, ranking, idempotency_key=work.lease_id)
    service.add_tasks([new_task("not yet judged", 2)])
    return service


@pytest.fixture
def lea(service: PreferenceService) -> Iterator[TestClient]:
    with TestClient(build_app(service, Setup("Support")), base_url=BASE) as client:
        client.post("/sign-in", data={"name": "Lea"})
        yield client


def ask(client: TestClient, action: str, **message: Any) -> dict[str, Any]:
    return dict(client.post(f"/annotate-work/{action}", json=message).json())


def test_a_lead_decides_the_disputed_task_and_no_other(lea: TestClient, service: PreferenceService) -> None:
    reply = ask(lea, "decide_as_lead")
    assert "disputed" in reply["html"] and "Ann" not in reply["html"] and reply["notice"]
    ranking = {response: 1 + index for index, response in enumerate(sorted(reply["task"]["texts"]))}
    ask(lea, "judge", lease_id=reply["task"]["lease"], key="once", ranking=ranking)
    decided = [record for record in service.judgements() if record.purpose == ADJUDICATION]
    assert [record.annotator for record in decided] == ["Lea"]
    assert "task" not in ask(lea, "decide_as_lead")


def test_a_flag_of_an_adjudicator_waits_for_the_lead(lea: TestClient, service: PreferenceService) -> None:
    lease = ask(lea, "decide_as_lead")["task"]["lease"]
    ask(lea, "flag", lease_id=lease, key="once", kind="broken", note="cut off")
    waiting = FlagDecisions(service.store, project="support").waiting()
    assert [flag.note for task in waiting for flag in task.flags] == ["cut off"]


@pytest.mark.browser
def test_after_guideline_and_quiz_comes_what_the_page_is_for(browser: Any, service: PreferenceService) -> None:
    right = Question("Is shorter better?", ("Always", "No"), frozenset({2}), "See the guideline.")
    service.rules = service.quizzes.rules = replace(service.rules, quiz=Quiz((right,)))
    service.adjudication.rules = service.rules
    service.guidelines.publish("Best first.")
    with served(build_app(service, Setup("Support"))) as address:
        page = browser.new_page()
        page.set_default_timeout(60_000)
        page.goto(address)
        page.fill("#name", "Lea")
        page.click("button[type=submit]")
        page.wait_for_selector("[data-do=consent]")
        page.goto(f"{page.url}#disputed")
        page.reload()
        page.click("[data-do=consent]")
        page.click(".pl-quiz .pl-choice:has-text('No')")
        page.click(".pl-quiz button")
        page.wait_for_selector(".pl-card")
        assert page.inner_text(".pl-prompt").strip().endswith("disputed")
        assert page.is_visible(".pl-note:has-text('disputed')")
        page.close()
    assert [one.purpose for one in service.control.held()] == [ADJUDICATION]


def test_who_is_paused_is_not_told_of_work_left(lea: TestClient, service: PreferenceService) -> None:
    assert 'data-pl="remaining"' in ask(lea, "next")["html"]
    who = service.sign_in("Lea").annotator_id
    service.control.release_all(who)
    service.control.pause(who, "have a rest")
    html = ask(lea, "next")["html"]
    assert "have a rest" in html and 'data-pl="remaining"' not in html and 'data-pl="mine"' in html


def test_the_guideline_comes_before_deciding_too(lea: TestClient, service: PreferenceService) -> None:
    service.guidelines.publish("Best first.")
    assert ask(lea, "decide_as_lead")["consent"] is True


def test_whoever_is_no_adjudicator_is_told_so_until_the_lead_names_them(
    lea: TestClient, service: PreferenceService
) -> None:
    assert "only the lead and the adjudicators" in ask(lea, "decide")["error"].lower()
    service.control.set_pool("adjudicators", [service.sign_in("Lea").annotator_id])
    assert "disputed" in ask(lea, "decide")["html"]
