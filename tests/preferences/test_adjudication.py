"""Disagreement and the adjudicator who decides, on both databases."""

import pytest
from sqlalchemy import func, select

from plumbline.errors import StoreError
from plumbline.preferences import handing, ingest
from plumbline.preferences.accounts import ADMIN, ANNOTATOR, LEAD, Accounts
from plumbline.preferences.records import ADJUDICATION, GOLD, WORK, Assignment, NewJudgement, NoWork
from plumbline.preferences.rules import Rules
from plumbline.preferences.schedule import CHECK
from plumbline.preferences.service import PreferenceService
from plumbline.preferences.tables import Task
from plumbline.recipe_annotate import ChecksSection
from tests.preferences.conftest import best_first, new_tasks


@pytest.fixture
def service(store, clock):
    made = PreferenceService(store, project="support", rules=Rules(adjudicate_above=0.3), clock=clock)
    made.set_overlap(2)
    return made


def person(service, name):
    return service.sign_in(name).annotator_id


def ranked(work, *numbers):
    """A ranking that gives response 0, 1, … these ranks."""
    cards = sorted(work.cards, key=lambda card: card.text)
    return {card.response_id: rank for card, rank in zip(cards, numbers, strict=True)}


def judge(service, who, work, *numbers):
    ranking = ranked(work, *numbers) if numbers else best_first(work)
    return service.judge(work.lease_id, who, ranking, idempotency_key=work.lease_id)


def judge_all(service, who, *rankings):
    for numbers in rankings:
        judge(service, who, service.lease_next(who), *numbers)


def disputes(service):
    return [
        (one.prompt[0]["content"], one.judged, round(one.disagreement, 3)) for one in service.adjudication.disputes()
    ]


def decided(service):
    """How many tasks an adjudicator has decided."""
    with service.look() as turn:
        return turn.connection.execute(select(func.count()).where(Task.adjudicated)).scalar_one()


def three_disputed(service):
    """Tasks 0, 1 and 2, on which Anna and Ben disagree on a third, all and no pairs."""
    service.add_tasks(new_tasks(3, 3))
    judge_all(service, person(service, "Anna"), (1, 2, 3), (1, 2, 3), (1, 2, 3))
    assert disputes(service) == []  # while judgements are missing
    judge_all(service, person(service, "Ben"), (1, 3, 2), (3, 2, 1), (1, 2, 3))


def test_disputed_tasks_wait_the_most_disputed_first_and_are_decided_once(service):
    three_disputed(service)
    assert disputes(service) == [("task 1", 2, 1.0), ("task 0", 2, 0.333)]
    lead = person(service, "Lea")
    work = service.lease_adjudication(lead, lead=True)
    assert work.prompt[0]["content"] == "task 1"
    assert "Anna" not in repr(work) and work.earlier is None and work.draft is None
    judgement = judge(service, lead, work)
    assert disputes(service) == [("task 0", 2, 0.333)]
    judge(service, lead, service.lease_adjudication(lead, lead=True))
    assert service.lease_adjudication(lead, lead=True) == NoWork("No disputed task waits for you.")
    assert (disputes(service), decided(service)) == ([], 2)
    learned = list(service.judgements())
    assert sorted(record.purpose for record in learned) == [ADJUDICATION] * 2 + [WORK] * 6
    assert judgement in {record.judgement_id for record in learned if record.purpose == ADJUDICATION}
    assert service.progress().done == 6 and service.progress().missing == 0


def test_a_task_that_an_import_fills_is_disputed_too(service):
    (task,), ben = new_tasks(1, 2), person(service, "Ben")
    service.add_tasks([task])
    judge_all(service, ben, (1, 2))
    service.take([NewJudgement(task, (2, 1), "Anna", key="row 1")])
    assert disputes(service) == [("task 0", 2, 1.0)]


def test_only_leads_and_named_adjudicators_decide_and_never_their_own(service):
    three_disputed(service)
    anna, cleo = person(service, "Anna"), person(service, "Cleo")
    with pytest.raises(StoreError, match="only the lead and the adjudicators"):
        service.lease_adjudication(cleo)
    service.control.set_pool("adjudicators", [anna, cleo])
    assert isinstance(service.lease_adjudication(anna), NoWork)  # she has judged all of them
    assert isinstance(service.lease_adjudication(anna, lead=True), NoWork)
    assert isinstance(service.lease_adjudication(cleo), Assignment)


def test_who_no_longer_leads_or_adjudicates_decides_nothing_that_they_hold(service, clock):
    three_disputed(service)
    accounts = Accounts(service.store, clock=clock)
    lea, cleo = (accounts.create(name, role).annotator_id for name, role in (("Lea", LEAD), ("Cleo", ANNOTATOR)))
    service.control.set_pool("adjudicators", [cleo])
    held = [service.lease_adjudication(lea, lead=True), service.lease_adjudication(cleo)]
    accounts.set_role(lea, ADMIN)
    service.control.set_pool("adjudicators", [cleo, lea])
    assert len(service.control.held()) == 2  # they still may
    service.control.set_pool("adjudicators", [])
    assert [one.annotator for one in service.control.held()] == ["Lea"]
    accounts.create("Ada", ADMIN)
    accounts.set_role(lea, ANNOTATOR)
    assert service.control.held() == []
    for who, work in zip((lea, cleo), held, strict=True):
        with pytest.raises(StoreError, match="only the lead and the adjudicators"):
            judge(service, who, work)
    assert len(disputes(service)) == 2
    accounts.set_role(lea, LEAD)
    judge(service, lea, held[0])
    assert len(disputes(service)) == 1


def test_two_adjudicators_never_hold_the_same_task(service, clock):
    three_disputed(service)
    people = [person(service, name) for name in ("Lea", "Leo", "Lou")]
    work = [service.lease_adjudication(who, lead=True) for who in people]
    assert isinstance(work[2], NoWork) and work[0].task_id != work[1].task_id
    assert service.lease_adjudication(people[0], lead=True).lease_id == work[0].lease_id  # a reload
    clock.advance(20)
    taken_over = service.lease_adjudication(people[2], lead=True)
    assert taken_over.task_id == work[0].task_id
    judge(service, people[2], taken_over)
    with pytest.raises(StoreError, match="not stored"):
        judge(service, people[0], work[0])


def test_an_adjudicator_who_skips_leaves_the_task_to_another(service):
    three_disputed(service)
    lea, leo = person(service, "Lea"), person(service, "Leo")
    work = service.lease_adjudication(lea, lead=True)
    service.skip(work.lease_id, lea, reason="hard", idempotency_key="1")
    assert service.lease_adjudication(lea, lead=True).task_id != work.task_id
    assert service.lease_adjudication(leo, lead=True).task_id == work.task_id
    service.release(service.lease_adjudication(leo, lead=True).lease_id, leo)
    service.release(service.lease_adjudication(lea, lead=True).lease_id, lea)
    again = service.reopen_last(lea)
    judge(service, lea, again)
    assert decided(service) == 1
    back = service.reopen_last(lea)
    service.skip(back.lease_id, lea, reason="not sure any more", idempotency_key="2")
    assert decided(service) == 0 and len(disputes(service)) == 2


def test_a_correction_measures_anew(service):
    three_disputed(service)
    ben = person(service, "Ben")
    second = next(one for one in service.own_work(ben) if one.prompt[0]["content"] == "task 1")
    again = service.reopen(second.answer.answer_id, ben)
    judge(service, ben, again, 1, 1, 2)  # of three pairs, one is a tie with one judge
    assert disputes(service) == [("task 0", 2, 0.333)]
    again = service.reopen(service.own_work(ben)[0].answer.answer_id, ben)
    service.skip(again.lease_id, ben, reason="hard", idempotency_key="skip")
    assert service.progress().missing == 1
    judge_all(service, person(service, "Cleo"), (3, 2, 1))
    assert disputes(service) == [("task 1", 2, 1.0), ("task 0", 2, 0.333)]


def test_without_the_setting_nothing_waits_but_disagreement_is_known(store, clock, service):
    three_disputed(service)
    plain = PreferenceService(store, project="support", clock=clock)
    assert disputes(plain) == []
    assert isinstance(plain.lease_adjudication(person(plain, "Lea"), lead=True), NoWork)


def test_an_adjudicated_task_becomes_gold_for_those_who_have_not_seen_it(store, clock, service, monkeypatch):
    three_disputed(service)
    lead = person(service, "Lea")
    work = service.lease_adjudication(lead, lead=True)
    judge(service, lead, work, 3, 1, 2)
    service.checks.make_gold(work.task_id)
    monkeypatch.setattr(handing, "extra_at", lambda rules, project, who, answered: CHECK)
    rules = Rules(checks=ChecksSection())
    checked = PreferenceService(store, project="support", rules=rules, clock=clock)
    for name in ("Anna", "Ben", "Lea"):
        assert isinstance(checked.lease_next(person(checked, name)), NoWork)
    cleo = person(checked, "Cleo")
    check = checked.lease_next(cleo)
    assert check.task_id == work.task_id and checked.purpose_of(check.lease_id) == GOLD
    judge(checked, cleo, check, 3, 1, 2)
    assert [(one.name, one.share) for one in checked.checks.results()] == [("Cleo", 1.0)]
    assert disputes(service) == [("task 0", 2, 0.333)] and service.progress().done == 6


def test_work_in_hand_goes_back_when_an_adjudicator_takes_a_case(service):
    three_disputed(service)
    service.add_tasks([*new_tasks(4, 3)][3:])
    lead = person(service, "Lea")
    work = service.lease_next(lead)
    case = service.lease_adjudication(lead, lead=True)
    assert case.task_id != work.task_id
    assert service.lease_next(lead).lease_id == case.lease_id
    service.release(case.lease_id, lead)
    assert service.lease_next(lead).task_id == work.task_id


def test_another_overlap_shows_the_disputes_of_tasks_that_are_full_by_it(service, monkeypatch):
    monkeypatch.setattr(ingest, "BATCH", 2)  # three tasks are more than one batch
    service.set_overlap(3)
    service.add_tasks(new_tasks(3, 3))
    judge_all(service, person(service, "Anna"), (1, 2, 3), (1, 2, 3), (1, 2, 3))
    judge_all(service, person(service, "Ben"), (3, 2, 1), (3, 2, 1), (1, 2, 3))
    assert disputes(service) == []  # the third judgement is missing
    service.set_overlap(2)
    assert service.progress().missing == 0
    assert disputes(service) == [("task 0", 2, 1.0), ("task 1", 2, 1.0)]
    service.set_overlap(3)  # open again: nothing is disputed before all is said, and Anna and Ben get no work
    assert (disputes(service), service.progress().missing) == ([], 3)
    judge_all(service, person(service, "Cleo"), (3, 2, 1), (3, 2, 1), (1, 2, 3))
    assert disputes(service) == [("task 0", 3, 0.667), ("task 1", 3, 0.667)]


def test_an_overlap_that_broke_off_is_asked_for_again(service, monkeypatch):
    monkeypatch.setattr(ingest, "BATCH", 2)
    service.add_tasks(new_tasks(5, 2))
    measure, batches = ingest.measure, []

    def dies_in_the_second(connection, tasks):
        batches.append(tasks)
        if len(batches) == 2:
            raise RuntimeError
        measure(connection, tasks)

    with monkeypatch.context() as patched, pytest.raises(RuntimeError):
        patched.setattr(ingest, "measure", dies_in_the_second)
        service.set_overlap(4)
    assert service.progress().required == 2 * 4 + 3 * 2
    service.set_overlap(4)
    assert service.progress().required == 5 * 4
