"""The lead's pages over HTTP: who may see what, live figures, and texts that cannot act."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from zipfile import ZipFile

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select, update

from annotate_ui import archives
from annotate_ui.app import build_app
from annotate_ui.lead.render import FORMATS
from annotate_ui.sessions import Session, Sessions
from annotate_ui.setup import Setup
from plumbline.preferences.exporters import Export, manifest_of
from plumbline.preferences.formats import EXPORTED
from plumbline.preferences.quality.report import Quality
from plumbline.preferences.records import Assignment
from plumbline.preferences.service import PreferenceService
from plumbline.preferences.tables import Lease, Task
from tests.annotate_ui.conftest import new_task

BASE = "http://127.0.0.1:7860"
CALLS = ("quality", "queue", "guidelines", "exports", "decided")
CHANGES = (
    "take_back",
    "reopen",
    "keep_closed",
    "place",
    "pause",
    "resume",
    "quota",
    "set_pool",
    "restrict",
    "make_gold",
    "preview",
    "publish",
)
HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture
def app(service: PreferenceService, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The app, in which a name that begins with Lead has that role."""
    read = Sessions.read

    def with_role(self: Sessions, request: Any) -> Session | None:
        found = read(self, request)
        role = "lead" if found and found.name.startswith("Lead") else "annotator"
        return found and Session(found.annotator_id, found.name, role)

    monkeypatch.setattr(Sessions, "read", with_role)
    monkeypatch.setattr("plumbline.preferences.kept.REST", 0.0)
    service.set_overlap(2)
    service.add_tasks([new_task("first"), new_task("second"), new_task("third")])
    return build_app(service, Setup("Support", pages=("annotate", "lead")))


@pytest.fixture
def lead(app: Any) -> Iterator[TestClient]:
    with TestClient(app, base_url=BASE, follow_redirects=False) as client:
        client.post("/sign-in", data={"name": "Lead Lea"})
        yield client


@pytest.fixture
def ada(app: Any) -> Iterator[TestClient]:
    with TestClient(app, base_url=BASE, follow_redirects=False) as client:
        client.post("/sign-in", data={"name": "Ada"})
        yield client


def judge(service: PreferenceService, name: str, **said: Any) -> Assignment:
    who = service.sign_in(name).annotator_id
    work = service.lease_next(who)
    assert isinstance(work, Assignment)
    ranking = {card.response_id: rank for rank, card in enumerate(sorted(work.cards, key=lambda one: one.text), 1)}
    service.judge(work.lease_id, who, ranking, idempotency_key=work.lease_id, **said)
    return work


def test_without_a_session_there_is_only_the_sign_in_page(app: Any) -> None:
    with TestClient(app, base_url=BASE, follow_redirects=False) as client:
        assert client.get("/lead/").headers["location"] == "/"
        assert client.get("/lead").headers["location"] == "/"
        assert client.get("/lead/config").status_code == 401
        assert all(client.post(f"/lead-work/{call}", json={}).status_code == 401 for call in CALLS)


def test_annotators_are_refused_and_no_page_of_theirs_holds_data(ada: TestClient, service: PreferenceService) -> None:
    judge(service, "Ben Secretive")
    answers = [ada.get("/lead/"), ada.get("/lead"), ada.get("/lead/config"), ada.get("/lead/gradio_api/info")]
    answers += [ada.post(f"/lead-work/{call}", json={}) for call in (*CALLS, *CHANGES)]
    assert [answer.status_code for answer in answers[:2]] == [403, 403]
    assert all(answer.status_code in (401, 403, 404) for answer in answers)
    assert not any("Secretive" in answer.text for answer in answers)
    assert "Secretive" not in ada.get("/annotate/").text


def test_leads_get_the_page_and_every_panel(lead: TestClient, service: PreferenceService) -> None:
    judge(service, "Ben")
    page = lead.get("/lead/")
    assert page.status_code == 200
    assert "<pl-lead>" in page.text or "pl-lead" in page.text
    for call in CALLS:
        reply = lead.post(f"/lead-work/{call}", json={}).json()
        assert "error" not in reply
        assert reply["html"]


def test_a_judgement_is_in_the_figures_at_once(lead: TestClient, service: PreferenceService) -> None:
    assert "Nobody has judged anything yet" in lead.post("/lead-work/quality", json={}).json()["html"]
    judge(service, "Ada")
    html = lead.post("/lead-work/quality", json={}).json()["html"]
    assert "Ada" in html
    assert "no task was judged twice" in html
    judge(service, "Ben")
    html = lead.post("/lead-work/quality", json={}).json()["html"]
    assert "100%" in html  # of pairs agreed on
    assert "no range: everybody agrees" in html


def test_names_notes_and_texts_are_escaped(lead: TestClient, service: PreferenceService) -> None:
    service.add_tasks([new_task(HOSTILE, [HOSTILE, f"{HOSTILE} two"])])
    name = "<script>alert(1)</script>"
    for _ in range(4):
        judge(service, name, reason=HOSTILE)
    who = service.sign_in("Ben<b>").annotator_id
    service.lease_next(who)
    for call in CALLS:
        html = lead.post(f"/lead-work/{call}", json={}).json()["html"]
        assert "<script>alert" not in html
        assert "<img" not in html
        assert "Ben<b>" not in html


def test_decided_tasks_come_page_by_page_each_once(service: PreferenceService, lead: TestClient) -> None:
    service.add_tasks([new_task(f"more {number}") for number in range(12)])
    for name in ("Ada", "Ben"):
        for _ in range(15):
            judge(service, name)
    first = lead.post("/lead-work/decided", json={}).json()["html"]
    assert first.count('class="pl-decided"') == 10
    before = int(first.split('data-before="')[1].split('"')[0])
    second = lead.post("/lead-work/decided", json={"before": before}).json()["html"]
    assert second.count('class="pl-decided"') == 5
    assert "data-before" not in second


def test_decided_tasks_of_one_person(service: PreferenceService, lead: TestClient) -> None:
    judge(service, "Ada")
    judge(service, "Ada")
    judge(service, "Ben")
    ben = service.sign_in("Ben").annotator_id
    html = lead.post("/lead-work/decided", json={"annotator_id": ben}).json()["html"]
    assert html.count('class="pl-decided"') == 1
    assert "error" in lead.post("/lead-work/decided", json={"annotator_id": "nobody"}).json()


def test_who_holds_what_is_told(service: PreferenceService, lead: TestClient) -> None:
    who = service.sign_in("Holder").annotator_id
    work = service.lease_next(who)
    assert isinstance(work, Assignment)
    html = lead.post("/lead-work/queue", json={}).json()["html"]
    assert "Holder" in html and work.task_id[:8] in html


def test_an_undefined_figure_is_a_dash_with_its_reason(service: PreferenceService, lead: TestClient) -> None:
    judge(service, "Ada")
    html = lead.post("/lead-work/quality", json={}).json()["html"]
    assert "nan" not in html
    report = Quality(service.store, project="support").report()
    assert report.agreement.alpha.why
    assert report.agreement.alpha.why in html


def ask(client: TestClient, call: str, **message: Any) -> dict[str, Any]:
    reply: dict[str, Any] = client.post(f"/lead-work/{call}", json=message).json()
    return reply


def test_a_held_task_is_taken_back(service: PreferenceService, lead: TestClient) -> None:
    who = service.sign_in("Holder").annotator_id
    work = service.lease_next(who)
    assert isinstance(work, Assignment)
    html = ask(lead, "queue")["html"]
    held = html.split("Held now</h2>")[1].split("</table>")[0]
    assert work.prompt[-1]["content"] in held and "Holder" in held and "now" in held and "in 15 minutes" in held
    reply = ask(lead, "take_back", lease_id=work.lease_id)
    assert "back in the queue" in reply["notice"]
    assert "Nobody holds a task" in reply["html"]
    assert "nobody holds" in ask(lead, "take_back", lease_id=work.lease_id)["error"].lower()


def test_a_flag_is_shown_with_what_was_said_and_settled(service: PreferenceService, lead: TestClient) -> None:
    who = service.sign_in("Flagger").annotator_id
    work = service.lease_next(who)
    assert isinstance(work, Assignment)
    service.flag(work.lease_id, who, kind="broken", note="cut off <b>here</b>", idempotency_key="f")
    html = ask(lead, "queue")["html"]
    assert "Flagger" in html and "cut off &lt;b&gt;here" in html
    assert "handed out again" in ask(lead, "reopen", task_id=work.task_id)["notice"]
    assert "error" in ask(lead, "reopen", task_id=work.task_id)


def test_people_are_paused_limited_and_put_into_pools(service: PreferenceService, lead: TestClient) -> None:
    who = service.sign_in("Ada").annotator_id
    assert "paused: come and talk" in ask(lead, "pause", annotator_id=who, reason="come and talk")["html"]
    assert not isinstance(service.lease_next(who), Assignment)
    assert "paused:" not in ask(lead, "resume", annotator_id=who)["html"]
    ask(lead, "quota", annotator_id=who, quota=7)
    ask(lead, "set_pool", pool="experts", members=[who])
    (ada,) = [one for one in service.control.standings() if one.name == "Ada"]
    assert (ada.quota, ada.pools) == (7, ("experts",))
    ask(lead, "quota", annotator_id=who, quota=None)
    assert next(one for one in service.control.standings() if one.name == "Ada").quota is None


def pool_of(service: PreferenceService, task_id: str) -> str | None:
    with service.look() as turn:
        pool: str | None = turn.connection.execute(select(Task.pool).where(Task.key == task_id)).scalar_one()
    return pool


def test_a_task_is_found_and_moved_to_the_front(service: PreferenceService, lead: TestClient) -> None:
    last = list(service.control.open_tasks())[-1]
    found = ask(lead, "find", words=last.prompt[-1]["content"])["preview"]
    last = last.task_id
    assert last in found and "judged 0 of 2 times" in found
    assert "new place" in ask(lead, "place", task_id=last, priority=5)["notice"]
    assert "priority 5" in ask(lead, "find", words=last[:8])["preview"]
    assert "No task has these words" in ask(lead, "find", words="nobody asked this")["preview"]
    work = service.lease_next(service.sign_in("Ada").annotator_id)
    assert isinstance(work, Assignment) and work.task_id == last


def test_a_task_is_kept_for_named_people(service: PreferenceService, lead: TestClient) -> None:
    ada, ben = (service.sign_in(name).annotator_id for name in ("Ada", "Ben"))
    first = next(service.control.open_tasks()).task_id
    reply = ask(lead, "restrict", task_id=first, annotators=[ben])
    assert reply["notice"] == "The task is kept for 1 annotator."
    assert "kept for Ben" in reply["html"]
    for who, gets_it in ((ada, False), (ben, True)):
        work = service.lease_next(who)
        assert isinstance(work, Assignment) and (work.task_id == first) == gets_it
    assert "kept for" not in ask(lead, "restrict", task_id=first)["html"]
    assert "known" in ask(lead, "restrict", task_id=first, annotators=["0" * 32])["error"]


def test_an_adjudicated_task_becomes_a_gold_item(service: PreferenceService, lead: TestClient) -> None:
    service.rules = replace(service.rules, adjudicate_above=0.1)
    service.adjudication.rules = service.rules
    for name, best in (("Ada", "one"), ("Ben", "two"), ("Ada", "one"), ("Ben", "two")):
        judge_best(service, name, best)
    assert "Make it a gold item" not in ask(lead, "decided")["html"]
    judge_best(service, "Cem", "one", adjudicate=True)
    html = ask(lead, "decided")["html"]
    assert html.count("Make it a gold item</button>") == 1
    assert " decided</span>" in html and " mean rank</span>" in html  # of the one that waits still
    task_id = html.split('data-call="make_gold" data-task_id="')[1][:32]
    assert "gold item" in ask(lead, "make_gold", task_id=task_id)["notice"]
    html = ask(lead, "decided")["html"]
    assert "Make it a gold item</button>" not in html and "gold item</span>" in html
    undecided = next(service.control.open_tasks()).task_id
    assert "adjudicate it first" in ask(lead, "make_gold", task_id=undecided)["error"]


def test_a_decision_that_ties_everything_is_not_offered_as_gold(service: PreferenceService, lead: TestClient) -> None:
    service.rules = replace(service.rules, adjudicate_above=0.1)
    service.adjudication.rules = service.rules
    for name, best in (("Ada", "one"), ("Ben", "two")):
        judge_best(service, name, best)
    judge_best(service, "Cem", "", adjudicate=True)  # every text ends so
    html = ask(lead, "decided")["html"]
    assert "Make it a gold item" not in html
    assert "It cannot become a gold item: the adjudicator tied all responses" in html


def test_without_peoples_judgements_there_is_nothing_to_download_of_people(
    service: PreferenceService, lead: TestClient
) -> None:
    assert "Nothing was judged yet" in ask(lead, "check_export", format="trl")["error"]
    judge_best(service, "robot", "one", simulated=True)
    assert ask(lead, "check_export", format="trl") == {}
    assert "judged yet by people" in ask(lead, "check_export", format="trl", people_only=True)["error"]


def judge_best(
    service: PreferenceService, name: str, best: str, *, adjudicate: bool = False, simulated: bool = False
) -> None:
    """Rank the response that ends so first, the others tied behind it."""
    who = service.sign_in(name, simulated=simulated).annotator_id
    work = service.lease_adjudication(who, lead=True) if adjudicate else service.lease_next(who)
    assert isinstance(work, Assignment)
    ranking = {card.response_id: 1 if card.text.endswith(best) else 2 for card in work.cards}
    service.judge(work.lease_id, who, ranking, idempotency_key=work.lease_id)


def test_moving_a_task_leaves_as_it_is_what_is_not_said_and_is_done_whole(
    service: PreferenceService, lead: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    last = [task.task_id for task in service.control.open_tasks()][-1]
    ask(lead, "place", task_id=last, pool="experts")
    ask(lead, "place", task_id=last, priority=6)
    assert pool_of(service, last) == "experts"  # what is not named stays
    assert "not both" in ask(lead, "place", task_id=last, pool="experts", everybody=True)["error"]
    with monkeypatch.context() as broken:
        broken.setattr(service.control, "set_priorities", lambda priorities: 0)
        assert "not in the store" in ask(lead, "place", task_id=last, everybody=True, priority=7)["error"]
    assert pool_of(service, last) == "experts"  # all or nothing
    ask(lead, "place", task_id=last, everybody=True)
    assert pool_of(service, last) is None


def test_a_lead_who_works_is_not_told_what_they_hold(
    service: PreferenceService, lead: TestClient, ada: TestClient
) -> None:
    tag = '<span class="pl-tag">gold</span>'
    for client in (ada, lead):
        client.post("/annotate-work/next", json={})
    assert len(service.control.held()) == 2
    with service.turn() as turn:
        turn.connection.execute(update(Lease).values(purpose="gold"))
    assert ask(lead, "queue")["html"].count(tag) == 1
    (own,) = [one for one in service.control.held() if one.annotator == "Lead Lea"]
    service.control.release(own.lease_id)
    assert ask(lead, "queue")["html"].count(tag) == 1  # it was that of the other


def test_a_guideline_is_previewed_then_published(service: PreferenceService, lead: TestClient) -> None:
    text = "# Rank\n\n<script>alert(1)</script> **well**"
    preview = ask(lead, "preview", text=text)["preview"]
    assert "<strong>well</strong>" in preview and "<script" not in preview
    assert service.guidelines.current() is None
    reply = ask(lead, "publish", text=text)
    assert reply["notice"] == "Version 1 is in force."
    assert "<script>alert" not in reply["html"]
    second = ask(lead, "publish", text="# Other")
    assert second["notice"] == "Version 2 is in force."
    assert second["html"].count("Changes since version 1") == 2  # as the heading, and for those who hear the page
    assert "# <del>Rank" in second["html"] and "<ins>Other</ins>" in second["html"]


def test_messages_are_strict(lead: TestClient) -> None:
    assert lead.post("/lead-work/reopen", json={"task_id": "../etc"}).status_code == 422
    assert lead.post("/lead-work/quality", json={"more": 1}).status_code == 422
    assert lead.post("/lead-work/decided", json={"before": 2**31}).status_code == 422
    assert lead.post("/lead-work/decided", json={"before": 2**31 - 1}).status_code == 200
    assert lead.post("/lead-work/quota", json={"annotator_id": "0" * 32, "quota": -1}).status_code == 422


def test_every_format_can_be_downloaded(lead: TestClient) -> None:
    html = ask(lead, "exports")["html"]
    assert [name for name in EXPORTED if f'formaction="/lead-work/export/{name}"' not in html] == []
    assert not any(name not in FORMATS for name in EXPORTED)


def test_a_download_comes_with_a_manifest_of_the_same_reading(
    service: PreferenceService, lead: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert lead.get("/lead-work/export/trl/zip").status_code == 404  # nothing is judged yet
    judge_best(service, "Ada", "one")
    plain = lead.get("/lead-work/export/trl?pseudonyms=true")

    def manifest_after_an_answer(export: Export) -> dict[str, object]:
        judge_best(service, "Ben", "two")  # between the file's last byte and its manifest
        return manifest_of(export)

    monkeypatch.setattr(archives, "manifest_of", manifest_after_an_answer)
    sent = lead.get("/lead-work/export/trl/zip?pseudonyms=true")
    assert 'filename="support.trl.jsonl.zip"' in sent.headers["content-disposition"]
    with ZipFile(io.BytesIO(sent.content)) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["support.trl.jsonl", "support.trl.jsonl.manifest.json"]
        file, facts = archive.read("support.trl.jsonl"), json.loads(archive.read("support.trl.jsonl.manifest.json"))
    assert file == plain.content
    assert facts["sha256"] == hashlib.sha256(file).hexdigest()
    assert (facts["file"], facts["rows"]) == ("support.trl.jsonl", len(file.splitlines()))
    monkeypatch.undo()
    with ZipFile(io.BytesIO(lead.get("/lead-work/export/argilla/zip").content)) as archive:
        assert archive.namelist()[1:] == ["support.argilla.json.manifest.json", "support.argilla.json.settings.json"]
    html = ask(lead, "exports")["html"]
    empty = ("demonstrations", "flags")  # nothing was improved, no flag stands
    assert html.count("/zip") == len(EXPORTED) - len(empty) and html.count("/setup") == 2
    assert "No response was improved yet" in html and "No flag stands" in html and html.count("disabled") == len(empty)
    assert ask(lead, "check_export", format="trl") == {}
    assert "No flag stands" in ask(lead, "check_export", format="flags")["error"]
    assert ask(lead, "check_export", format="csv", people_only=True) == {}
    assert "no format" in ask(lead, "check_export", format="cvs")["error"]
