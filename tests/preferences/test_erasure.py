"""Erasing a person: by pseudonym or with all judgements, in one transaction, and out of the database's files."""

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import func, insert, select

from plumbline.errors import StoreError
from plumbline.preferences import audit, erasure
from plumbline.preferences.account_tables import LoginSession, Throttle
from plumbline.preferences.accounts import Accounts
from plumbline.preferences.audit_check import verify
from plumbline.preferences.erasure import erase
from plumbline.preferences.exporters import export_preferences
from plumbline.preferences.flag_decisions import FlagDecisions
from plumbline.preferences.importers import import_preferences
from plumbline.preferences.login_sessions import LoginSessions
from plumbline.preferences.records import Assignment, NewJudgement
from plumbline.preferences.rules import Rules
from plumbline.preferences.service import PreferenceService
from plumbline.preferences.tables import Annotator, Answer, Battle, Draft, Lease, Project, Tally, Task
from tests.cheap_passwords import cheap_passwords
from tests.preferences.conftest import best_first, new_task, new_tasks

NAME = "Ottilie Zwetschgenbaum"


def answer(service, who, **said):
    work = service.lease_next(who)
    return service.judge(work.lease_id, who, best_first(work), idempotency_key=work.lease_id, **said)


def task_counts(store):
    with store.read() as connection:
        query = select(Task.judged, Task.flagged, Task.taken).order_by(Task.id)
        return [tuple(row) for row in connection.execute(query)]


@pytest.fixture
def busy(service, clock):
    """Ottilie has judged, corrected, skipped, flagged and holds a task; Ben has judged beside her."""
    service.set_overlap(2)
    service.add_tasks(new_tasks(6))
    who = service.sign_in(NAME).annotator_id
    answer(service, who, reason=f"{NAME} says so", edited="written by me")
    again = service.reopen_last(who)
    service.judge(again.lease_id, who, best_first(again), idempotency_key="c", reason="better so")
    answer(service, who)
    service.skip(service.lease_next(who).lease_id, who, reason="too private", idempotency_key="s")
    service.flag(service.lease_next(who).lease_id, who, kind="broken", note="look", idempotency_key="f")
    ben = service.sign_in("Ben").annotator_id
    for _ in range(3):
        answer(service, ben, reason="Ben's own")
    held = service.lease_next(who)
    assert isinstance(held, Assignment)
    with service.turn() as turn:
        row = turn.connection.execute(select(Annotator.id).where(Annotator.annotator_id == who)).scalar_one()
        task = turn.connection.execute(select(Task.id).order_by(Task.id.desc()).limit(1)).scalar_one()
        draft = {"task_id": task, "annotator_id": row, "purpose": "work", "content": {"reason": f"draft of {NAME}"}}
        turn.connection.execute(insert(Draft), {**draft, "saved_at": turn.now})
    accounts = Accounts(service.store, clock=clock, passwords=cheap_passwords())
    accounts.create(NAME, "annotator", password="a long pass phrase")
    sessions = LoginSessions(service.store, accounts=True, clock=clock, lifetime=timedelta(hours=1))
    accounts.sign_in(NAME, "a long pass phrase", address="203.0.113.5", sessions=sessions)
    return service


def test_with_judgements_kept_only_the_person_is_gone(busy, store):
    before = {record.judgement_id: record for record in busy.judgements()}
    report = erase(store, NAME.upper(), remove_judgements=False)
    assert (report.answers, report.removed) == ({"judgement": 3, "skip": 1, "flag": 1}, False)
    after = {record.judgement_id: record for record in busy.judgements()}
    assert before.keys() == after.keys()
    for identity, record in after.items():
        earlier = before[identity]
        assert (record.ranking, record.shown_order) == (earlier.ranking, earlier.shown_order)
        theirs = earlier.annotator == NAME
        assert record.annotator == (report.pseudonym if theirs else earlier.annotator)
        assert (record.reason, record.edited) == ((None, None) if theirs else (earlier.reason, earlier.edited))
    with store.read() as connection:
        counts = [
            connection.execute(select(func.count()).select_from(one)).scalar_one() for one in (Draft, LoginSession)
        ]
        assert counts == [0, 0]
        assert (
            connection.execute(select(func.count()).select_from(Throttle).where(Throttle.key.like("name:%"))).scalar()
            == 0
        )
    assert report.answer_ids >= {record.judgement_id for record in before.values() if record.annotator == NAME}
    assert busy.progress().by_annotator == {report.pseudonym: 2, "Ben": 3}
    assert Accounts(store).all() == []


def test_texts_can_be_kept(busy, store):
    report = erase(store, NAME, remove_judgements=False, keep_texts=True)
    reasons = {record.reason for record in busy.judgements() if record.annotator == report.pseudonym}
    assert "better so" in reasons


def test_removed_judgements_are_asked_for_again(busy, store):
    with store.read() as connection:
        bens = connection.execute(
            select(func.count()).select_from(Answer).join(Annotator).where(Annotator.name == "Ben")
        ).scalar_one()
    report = erase(store, NAME, remove_judgements=True)
    assert report.removed
    assert report.reopened > 0
    with store.read() as connection:
        assert connection.execute(select(func.count()).select_from(Answer)).scalar_one() == bens
        for table in (Tally, Lease):
            query = select(func.count()).select_from(table).join(Annotator, Annotator.id == table.annotator_id)
            assert connection.execute(query.where(Annotator.name != "Ben")).scalar_one() == 0
    assert task_counts(store)[:6] == sorted(task_counts(store)[:6], reverse=True)
    assert set(task_counts(store)) == {(1, 0, 1), (0, 0, 0)}
    progress = busy.progress()
    assert (progress.done, progress.missing, progress.flagged, progress.by_annotator) == (3, 9, 0, {"Ben": 3})
    carl = busy.sign_in("Carl").annotator_id
    for _ in range(6):
        answer(busy, carl)
    ben = busy.sign_in("Ben").annotator_id
    for _ in range(3):
        answer(busy, ben)
    assert busy.progress().missing == 0


@pytest.mark.parametrize("remove", [True, False])
def test_the_log_still_holds_and_says_nothing_of_the_person(busy, store, remove):
    report = erase(store, NAME, remove_judgements=remove)
    found = verify(store, contents=True)
    assert (found.holds, found.faults) == (True, [])
    with store.read() as connection:
        rows = str(connection.exec_driver_sql("SELECT actor, subject, details FROM audit WHERE action = 'erase'").all())
    assert report.annotator_id in rows
    assert NAME not in rows
    with store.write() as connection:  # the erasure does not hide what was changed otherwise
        connection.exec_driver_sql("UPDATE answers SET ranks = '[1, 1]' WHERE id = (SELECT max(id) FROM answers)")
    assert not verify(store, contents=True).holds


def test_imported_judgements_of_one_person_are_removed_from_a_batch(service, store):
    task = new_task("imported", origin="import:trl")
    said = [NewJudgement(task, (1, 2), name, f"key {name}") for name in ("trl:Ann", "trl:Bob")]
    service.take(said)
    assert task_counts(store) == [(2, 0, 2)]
    erase(store, "trl:ann", remove_judgements=True)
    assert task_counts(store) == [(1, 0, 1)]
    assert verify(store, contents=True).holds


@pytest.mark.parametrize("remove", [True, False])
def test_the_bytes_of_the_name_are_gone_from_the_files(tmp_path, file_store, file_service, remove):
    file_service.add_tasks(new_tasks(200))
    who = file_service.sign_in(NAME).annotator_id
    for _ in range(50):
        answer(file_service, who, reason=f"{NAME} thinks so " * 20)

    def everywhere():
        return b"".join(path.read_bytes() for path in Path(file_store.place).parent.glob("preferences.db*"))

    assert b"Zwetschgenbaum" in everywhere()
    report = erase(file_store, NAME, remove_judgements=remove)
    assert report.clean
    assert b"zwetschgenbaum" not in everywhere().lower()


def test_arena_votes_stay_or_go_with_their_conversation(service, store):
    who = service.sign_in(NAME).annotator_id
    task = new_task("typed by Ottilie", origin="import:arena")
    service.take([NewJudgement(task, (1, 2), NAME, "vote")])
    with service.turn() as turn:
        turn.connection.exec_driver_sql("UPDATE tasks SET origin = 'arena'")
        person = turn.connection.execute(select(Annotator.id).where(Annotator.annotator_id == who)).scalar_one()
        row = {"project_id": turn.project_id, "annotator_id": person, "prompt": [], "left": {}, "right": {}}
        for number, (voted, before) in enumerate([(1, None), (None, 1)], 1):
            more = {"battle_id": f"{number}", "task_id": voted, "answer_id": voted, "before_id": before}
            turn.connection.execute(insert(Battle), {**row, **more, "created_at": turn.now})
    kept = erase(store, NAME, remove_judgements=False)
    with store.read() as connection:
        assert list(connection.execute(select(Battle.battle_id)).scalars()) == ["1"]
    with store.write() as connection:
        connection.exec_driver_sql("UPDATE annotators SET erased_at = NULL")
    erase(store, kept.pseudonym, remove_judgements=True)
    with store.read() as connection:
        for table in (Battle, Answer, Task):
            assert connection.execute(select(func.count()).select_from(table)).scalar_one() == 0
        assert connection.execute(select(func.count()).select_from(Project)).scalar_one() == 1


def test_nobody_and_those_who_are_no_people_are_refused(service, store):
    service.sign_in("robot", simulated=True)
    with pytest.raises(StoreError, match="nobody called 'Zoe'"):
        erase(store, "Zoe", remove_judgements=False)
    with pytest.raises(StoreError, match="simulated"):
        erase(store, "robot", remove_judgements=False)
    service.sign_in("Anna")
    report = erase(store, "Anna", remove_judgements=False)
    with pytest.raises(StoreError, match="erased already"):
        erase(store, report.pseudonym, remove_judgements=True)
    assert service.sign_in("Anna").annotator_id != report.annotator_id


def test_a_failure_undoes_all_of_it(busy, store, monkeypatch):
    def broken(*given, **named):
        raise RuntimeError("power cut")

    monkeypatch.setattr("plumbline.preferences.erasure.audit.record", broken)
    with pytest.raises(RuntimeError):
        erase(store, NAME, remove_judgements=True)
    monkeypatch.undo()
    assert busy.progress().by_annotator[NAME] == 2
    assert PreferenceService(store, project="support").sign_in(NAME).name == NAME


@pytest.mark.parametrize("remove", [True, False])
def test_what_a_lead_decided_about_their_flag_stays_without_their_words(busy, store, remove):
    lead = busy.sign_in("Lea").annotator_id
    with busy.turn() as turn:
        flag = turn.connection.execute(select(Answer.__table__).where(Answer.kind == "flag")).one()
        who = turn.connection.execute(select(Annotator.id).where(Annotator.annotator_id == lead)).scalar_one()
        row = {"answer_id": "d" * 32, "kind": "flag", "project_id": turn.project_id, "task_id": flag.task_id}
        row |= {"annotator_id": who, "judged_at": turn.now, "reason": flag.reason, "flags": flag.flags}
        row |= {"supersedes_id": flag.id, "purpose": "adjudication"}
        turn.connection.execute(insert(Answer).values(row))
        key = turn.connection.execute(select(Task.key).where(Task.id == flag.task_id)).scalar_one()
        audit.record_answer(turn.connection, project="support", annotator_id=lead, task_key=key, answer=row)
    erase(store, NAME, remove_judgements=remove)
    with store.read() as connection:
        decision = connection.execute(select(Answer.__table__).where(Answer.answer_id == "d" * 32)).one()
    assert decision.reason is None
    assert (decision.supersedes_id is None) == remove
    assert verify(store, contents=True).holds


@pytest.mark.parametrize("reopen", [True, False])
def test_what_a_lead_decided_about_others_flags_outlasts_the_lead(service, store, reopen):
    service.add_tasks(new_tasks(2))
    ann, lead = (service.sign_in(name).annotator_id for name in ("Ann", NAME))
    decisions = FlagDecisions(store, project="support", clock=service.clock)
    for who in (ann, lead):  # of their own flag nothing is left
        work = service.lease_next(who)
        service.flag(work.lease_id, who, kind="broken", note="look", idempotency_key=who)
        decisions.decide(lead, work.task_id, reopen=reopen)
    report = erase(store, NAME, remove_judgements=True)
    assert report.answers == {"flag": 1 if reopen else 2} | ({"dismissal": 1} if reopen else {})
    assert [task[:2] for task in task_counts(store)] == [(0, 0 if reopen else 1), (0, 0)]
    assert decisions.waiting() == []
    assert verify(store, contents=True).faults == []
    assert sum(one.flagged for one in service.control.standings() if one.name == "Ann") == 0
    erase(store, "Ann", remove_judgements=True)
    assert [task[:2] for task in task_counts(store)] == [(0, 0 if reopen else 1), (0, 0)]
    assert verify(store, contents=True).faults == []


@pytest.mark.parametrize("remove", [True, False])
def test_open_tasks_that_were_kept_for_nobody_else_are_told(service, store, remove):
    service.add_tasks(new_tasks(5))
    her, ben = (service.sign_in(name).annotator_id for name in (NAME, "Ben"))
    tasks = [task.task_id for task in service.control.open_tasks()]
    service.control.restrict(tasks[0], [her])
    service.control.restrict(tasks[1], [her, ben])
    service.control.assign_pool(tasks[2:4], "medical")
    service.control.assign_pool(tasks[4:], "law")
    service.control.set_pool("medical", [her])
    service.control.set_pool("law", [her, ben])
    assert erase(store, NAME, remove_judgements=remove).stranded == (
        f"the task {tasks[0]} of the project support",
        "2 tasks of the pool 'medical' of the project support",
    )
    assert erase(store, "Ben", remove_judgements=remove).stranded == (
        f"the task {tasks[1]} of the project support",
        "1 task of the pool 'law' of the project support",
    )


@pytest.mark.parametrize("remove", [True, False])
def test_one_of_several_whose_flags_a_lead_settled_together_can_go(service, store, remove):
    service.set_overlap(2)
    service.add_tasks(new_tasks(1))
    people = [service.sign_in(name).annotator_id for name in (NAME, "Ben")]
    held = [(who, service.lease_next(who)) for who in people]
    for who, work in held:
        service.flag(work.lease_id, who, kind="broken", note="look", idempotency_key=who)
    lead = service.sign_in("Lea").annotator_id
    FlagDecisions(store, project="support", clock=service.clock).decide(lead, held[0][1].task_id, reopen=False)
    erase(store, NAME, remove_judgements=remove)
    assert verify(store, contents=True).faults == []
    with store.write() as connection:  # which hides nothing else
        connection.exec_driver_sql("DELETE FROM answers WHERE id = (SELECT max(id) FROM answers)")
    assert not verify(store, contents=True).holds


@pytest.mark.parametrize("remove", [True, False])
def test_a_file_brings_nobody_back_whose_judgements_are_there_and_the_log_holds_where_it_does(
    service, store, tmp_path, remove
):
    service.add_tasks(new_tasks(2))
    answer(service, service.sign_in(NAME).annotator_id)
    export_preferences(service, tmp_path / "all.jsonl", format="rankings")
    erase(store, NAME, remove_judgements=remove)
    assert import_preferences(tmp_path / "all.jsonl", service).taken == remove
    with store.read() as connection:
        people = connection.execute(select(Annotator.name)).scalars().all()
    assert (NAME in people) == remove and len(people) == 1 + remove
    assert verify(store, contents=True).faults == []
    with store.write() as connection:
        connection.exec_driver_sql("UPDATE answers SET ranks = '[1, 1]'")
    assert not verify(store, contents=True).holds


@pytest.mark.parametrize("remove", [False, True])
@pytest.mark.parametrize("end", ["erase", "deactivate"])
def test_an_answer_that_waited_while_its_annotator_went_is_refused(service, store, clock, monkeypatch, end, remove):
    monkeypatch.setattr(erasure, "clean_files", lambda store: True)  # it takes no part in the transaction
    service.add_tasks(new_tasks(2))
    accounts = Accounts(store, clock=clock)
    who = accounts.create(NAME).annotator_id
    work = service.lease_next(who)
    with ThreadPoolExecutor(1) as others:
        with store.write():
            if end == "erase":
                erase(store, NAME, remove_judgements=remove)
            else:
                accounts.deactivate(who)
            answered = others.submit(service.judge, work.lease_id, who, best_first(work), idempotency_key="late")
            time.sleep(0.2)  # for it to come to the lock
            assert not answered.done()
        with pytest.raises(StoreError, match="not known" if end == "erase" else "account is closed"):
            answered.result()
    with pytest.raises(StoreError):
        service.lease_next(who)
    assert service.progress().done == 0 and service.control.held() == []
    if end == "deactivate":
        accounts.activate(who)
        service.judge(work.lease_id, who, best_first(work), idempotency_key="late")
        assert service.control.standings()[0].judged == 1


def test_nobody_signs_in_under_a_pseudonym(service, store):
    service.sign_in(NAME)
    pseudonym = erase(store, NAME, remove_judgements=False).pseudonym
    with pytest.raises(StoreError, match="stands for an erased person"):
        service.sign_in(pseudonym.upper())


@pytest.fixture
def disputed(store, clock):
    """Two tasks on which Ann and Ben disagree, of which Zoe has skipped one."""
    service = PreferenceService(store, project="support", rules=Rules(adjudicate_above=0.3), clock=clock)
    service.set_overlap(2)
    service.add_tasks(new_tasks(2))
    zoe = service.sign_in("Zoe").annotator_id
    service.skip(service.lease_next(zoe).lease_id, zoe, reason="too long", idempotency_key="s")
    for name, ranks in (("Ann", (1, 2)), ("Ben", (2, 1))):
        who = service.sign_in(name).annotator_id
        for _ in range(2):
            work = service.lease_next(who)
            cards = sorted(work.cards, key=lambda card: card.text)
            ranking = {card.response_id: rank for card, rank in zip(cards, ranks, strict=True)}
            service.judge(work.lease_id, who, ranking, idempotency_key=work.lease_id)
    return service


def adjudicate(service, name, ranking=best_first):
    who = service.sign_in(name).annotator_id
    work = service.lease_adjudication(who, lead=True)
    service.judge(work.lease_id, who, ranking(work), idempotency_key=work.lease_id)
    return work


def test_disputes_wait_again_when_who_decided_them_goes_and_stay_when_somebody_else_does(disputed, store):
    decided = [adjudicate(disputed, name).task_id for name in ("Lea", "Kim")]
    assert disputed.adjudication.disputes() == []
    erase(store, "Lea", remove_judgements=True)
    assert [one.task_id for one in disputed.adjudication.disputes()] == decided[:1]
    erase(store, "Zoe", remove_judgements=True)
    assert [one.task_id for one in disputed.adjudication.disputes()] == decided[:1]
    assert [one.task_id for one in disputed.adjudication.settled()] == decided[1:]
    erase(store, "Ann", remove_judgements=True)  # one judgement disagrees with nobody
    assert disputed.adjudication.disputes() == []


@pytest.mark.parametrize("remove", [False, True])
def test_a_removed_decision_is_expected_of_nobody(disputed, store, remove):
    for name in (NAME, "Lea"):
        disputed.checks.make_gold(adjudicate(disputed, name).task_id)
    erase(store, NAME, remove_judgements=remove)
    with store.read() as connection:
        gold = connection.execute(select(Task.id).where(Task.check_kind == "gold")).all()
        assert len(gold) == 2 - remove
        assert connection.execute(select(func.count()).where(Task.expected.is_not(None))).scalar_one() == 2 - remove


def test_a_task_that_is_handed_out_meanwhile_is_counted(service, store):
    service.set_overlap(2)
    service.add_tasks(new_tasks(1))
    anna, ben = (service.sign_in(name).annotator_id for name in ("Anna", "Ben"))
    answer(service, anna)
    with ThreadPoolExecutor(1) as others:
        with service.turn():
            work = service.lease_next(ben)
            erased = others.submit(erase, store, "Anna", remove_judgements=True)
            time.sleep(0.3)  # it waits for the task, whose place is not committed yet
        erased.result()
    assert isinstance(work, Assignment)
    with store.read() as connection:
        assert connection.execute(select(Task.taken, Task.judged)).one() == (1, 0)
