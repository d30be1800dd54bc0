"""What the annotators' page gets from its desk, and what it may send."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient

from annotate_ui.app import build_app
from annotate_ui.desk import Desk
from annotate_ui.guard import LARGEST_BODY
from annotate_ui.messages import DraftMessage, JudgeMessage, OwnMessage
from annotate_ui.setup import Setup
from plumbline.errors import StoreError
from plumbline.preferences.guidelines import MAX_GUIDELINE
from plumbline.preferences.records import Assignment
from plumbline.preferences.service import PreferenceService
from plumbline.preferences.validation import MAX_EDITED
from tests.annotate_ui.conftest import new_task

BASE = "http://127.0.0.1:7860"
CODE = "    if tea:\n        pour()\n"


def signed_in(service: PreferenceService, name: str = "Ada") -> TestClient:
    client = TestClient(build_app(service, Setup("Support", language="de")), base_url=BASE)
    client.post("/sign-in", data={"name": name}, headers={"origin": BASE})
    return client


def held(service: PreferenceService, name: str) -> Assignment:
    work = service.lease_next(service.sign_in(name).annotator_id)
    assert isinstance(work, Assignment)
    return work


def test_the_longest_answer_and_its_draft_fit_every_limit(service: PreferenceService) -> None:
    service.add_tasks([new_task("kettle", 2)])
    client = signed_in(service)
    task = client.post("/annotate-work/next", json={}).json()["task"]
    ranks = dict(zip(task["texts"], (1, 2), strict=True))
    longest, reason = "🫖" * MAX_EDITED, "🫖" * 4000  # four bytes each
    edited = {"of": next(iter(ranks)), "text": longest}
    content = {"at": 1, "ranks": ranks, "reason": reason, "edited": edited, "seconds": 1.0}
    assert client.post("/annotate-work/draft", json={"lease_id": task["lease"], "content": content}).json() == {}
    answer = {"lease_id": task["lease"], "key": "once", "ranking": ranks, "reason": reason, "edited": longest}
    assert "error" not in client.post("/annotate-work/judge", json=answer).json()
    assert [record.edited for record in service.judgements()] == [longest]
    assert 4 * MAX_GUIDELINE < LARGEST_BODY


def test_what_is_larger_is_refused_in_a_sentence(service: PreferenceService) -> None:
    answer = signed_in(service).post("/annotate-work/judge", json={"edited": "x" * LARGEST_BODY})
    assert answer.status_code == 413
    assert answer.json()["error"].startswith("Das ist zu lang")


def test_white_space_at_the_ends_of_what_people_write_is_kept() -> None:
    content = {"at": 1, "edited": {"of": "a", "text": CODE}}
    draft = DraftMessage.model_validate({"lease_id": " a ", "content": content})
    assert draft.content.edited is not None
    judgement = JudgeMessage.model_validate(
        {"lease_id": "a", "key": "k", "ranking": {}, "edited": CODE, "reason": " r "}
    )
    assert (draft.lease_id, draft.content.edited.text) == ("a", CODE)
    assert (judgement.edited, judgement.reason) == (CODE, "r")


@pytest.mark.parametrize("improved", [0, 1])
def test_a_correction_shows_the_edit_of_that_best_response_which_it_is_of(
    service: PreferenceService, improved: int
) -> None:
    service.add_tasks([new_task("kettle", ["Fill the kettle, then boil it.", "Ask your neighbour for hot water."])])
    work = held(service, "Ada")
    card = work.cards[improved]
    ranking = {one.response_id: 1 for one in work.cards}
    me = service.sign_in("Ada").annotator_id
    service.judge(work.lease_id, me, ranking, idempotency_key="1", edited=f"{card.text} Then wait.")
    desk = Desk(service, Setup("Support"))
    assert desk.undo(me, None)["task"]["begin"]["edited"]["of"] == card.response_id  # type: ignore[arg-type]


def test_an_own_answer_in_full_is_for_its_annotator_alone(service: PreferenceService) -> None:
    service.add_tasks([new_task("kettle", ["Fill it <b>.", "Boil it."])])
    work = held(service, "Ada")
    ada, ben = (service.sign_in(name).annotator_id for name in ("Ada", "Ben"))
    ranking = {card.response_id: card.position + 1 for card in work.cards}
    answer = service.judge(work.lease_id, ada, ranking, idempotency_key="1", reason="so")
    desk = Desk(service, Setup("Support"))
    html = desk.own(ada, OwnMessage(answer_id=answer))["html"]
    assert all(part in html for part in ("Fill it &lt;b&gt;.", "Boil it.", "Rank 1", "Rank 2", "so"))
    assert "policy-" not in html
    with pytest.raises(StoreError, match="none of your answers"):
        desk.own(ben, OwnMessage(answer_id=answer))


def test_a_text_that_would_take_long_is_shown_as_it_was_written_and_that_is_told(service: PreferenceService) -> None:
    service.add_tasks([new_task("kettle", ["**short**", "| <b> " * 5000])])
    html = signed_in(service).post("/annotate-work/next", json={}).json()["html"]
    assert html.count("So gezeigt, wie es geschrieben wurde") == 1
    assert "<strong>short</strong>" in html
    assert '<div class="pl-plain">| &lt;b&gt; | &lt;b&gt;' in html
