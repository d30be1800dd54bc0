"""Closed tasks, flagged or retired: neither handed out nor waited for; what was said of them stays."""

import json

import pytest
from sqlalchemy import text

from plumbline.errors import NoStoreError, UserError
from plumbline.preferences import store as store_module
from plumbline.preferences.exporters import export_preferences
from plumbline.preferences.records import NewJudgement, NoWork
from plumbline.preferences.service import PreferenceService
from plumbline.preferences.store import Store
from plumbline.preferences.validation import task_key
from tests.preferences.conftest import counts_of, new_task, new_tasks
from tests.preferences.test_service import judge, person


def keys(tasks):
    return {task_key(task.prompt, [response.text for response in task.responses]) for task in tasks}


def flag(service, who, work):
    return service.flag(work.lease_id, who, kind="harmful", note="", idempotency_key=f"flag {work.lease_id}")


def counts(service):
    progress = service.progress()
    return progress.tasks, progress.required, progress.done, progress.missing


def projects(store):
    with store.read() as connection:
        return connection.execute(text("SELECT name, judgements_per_task FROM projects")).all()


def test_making_a_service_and_reading_changes_nothing(store, service):
    assert counts(service) == (0, 0, 0, 0)
    assert list(service.judgements()) == []
    service.check_name("Anna")
    assert projects(store) == []
    service.set_overlap(2)
    service.add_tasks(new_tasks(3))
    assert counts(PreferenceService(store, project="support")) == (3, 6, 0, 6)
    assert projects(store) == [("support", 2)]


def test_a_store_is_not_made_by_who_only_reads(address):
    with pytest.raises(NoStoreError, match="there is no preference store"):
        Store.open(address, create=False)
    Store.open(address).close()
    Store.open(address, create=False).close()


def test_retired_tasks_are_neither_handed_out_nor_waited_for(service):
    service.set_overlap(2)
    old, new = new_tasks(3), [new_task("new")]
    service.add_tasks(old)
    anna, ben = person(service), person(service, "Ben")
    judge(service, anna)
    service.add_tasks(new)
    assert service.retire(keys(old) | {"of no task"}) == 3
    assert service.retire(keys(old)) == 0
    assert counts(service) == (2, 3, 1, 2)  # the judgement that was given, and two of the new task
    for who in (anna, ben):
        assert service.lease_next(who).prompt == new[0].prompt
        judge(service, who)
    assert service.lease_next(anna) == NoWork("All tasks are judged. Thank you!")
    assert len(list(service.judgements())) == 3
    assert counts_of(service, ben) == (1, 0)


def test_tasks_that_are_asked_for_again_are_no_longer_retired(service):
    service.add_tasks(new_tasks(2))
    who = person(service)
    judge(service, who)
    service.retire(keys(new_tasks(2)))
    service.set_overlap(2)
    assert counts(service) == (1, 1, 1, 0), "another overlap opens no retired task"
    service.add_tasks(new_tasks(2))
    assert counts(service) == (2, 4, 1, 3)
    judge(service, who)
    assert counts_of(service, who) == (2, 0)


def test_an_import_does_not_open_a_retired_task(service):
    service.add_tasks(new_tasks(1))
    service.retire(keys(new_tasks(1)))
    service.take([NewJudgement(new_task("task 0", origin="import:hh"), (1, 2), "import:hh", key="k")])
    assert counts(service) == (1, 1, 1, 0)
    assert isinstance(service.lease_next(person(service)), NoWork)


@pytest.mark.parametrize("minutes_late", [0, 60])
def test_whoever_held_a_task_when_it_was_retired_may_answer(service, clock, minutes_late):
    service.add_tasks(new_tasks(1))
    who = person(service)
    work = service.lease_next(who)
    service.retire(keys(new_tasks(1)))
    assert service.lease_next(who).lease_id == work.lease_id, "a reload shows it still"
    clock.advance(minutes_late)
    judge(service, who, work)
    assert counts(service) == (1, 1, 1, 0)


def test_a_retired_task_that_nobody_holds_any_more_is_gone(service, clock):
    service.add_tasks(new_tasks(1))
    who = person(service)
    service.lease_next(who)
    service.retire(keys(new_tasks(1)))
    clock.advance(60)
    assert isinstance(service.lease_next(who), NoWork)


def test_a_flagged_task_is_neither_handed_out_nor_waited_for(service):
    service.set_overlap(2)
    service.add_tasks(new_tasks(2))
    anna, ben = person(service), person(service, "Ben")
    flag(service, anna, service.lease_next(anna))
    assert counts(service) == (1, 2, 0, 2)
    assert counts_of(service, ben) == (0, 1)
    judge(service, anna)
    assert service.lease_next(anna).reason == "You have done all of yours. 1 task left for other annotators."
    judge(service, ben)
    assert counts(service) == (1, 2, 2, 0)
    assert service.lease_next(ben).reason == "All tasks are judged, but for 1 flagged task. Thank you!"
    service.set_overlap(1)
    assert isinstance(service.lease_next(ben), NoWork), "another overlap opens no flagged task"


def test_a_flag_that_is_taken_back_opens_the_task_again(service):
    service.add_tasks(new_tasks(1))
    anna, ben = person(service), person(service, "Ben")
    flag(service, anna, service.lease_next(anna))
    opened = service.reopen_last(anna)
    assert isinstance(service.lease_next(ben), NoWork), "the flag stands until another answer is given"
    service.skip(opened.lease_id, anna, reason="hard", idempotency_key="s")
    judge(service, ben)
    assert counts(service) == (1, 1, 1, 0)


def test_of_several_flags_each_keeps_the_task_closed(service):
    service.set_overlap(3)
    service.add_tasks(new_tasks(1))
    people = [person(service, name) for name in ("Anna", "Ben", "Cleo")]
    works = [service.lease_next(who) for who in people]
    flag(service, people[0], works[0])
    flag(service, people[1], works[1])
    judge(service, people[2], works[2])  # they held it: what they say counts
    assert counts(service) == (1, 1, 1, 0)
    judge(service, people[0], service.reopen_last(people[0]))
    assert counts(service) == (1, 2, 2, 0)
    judge(service, people[1], service.reopen_last(people[1]))
    assert counts(service) == (1, 3, 3, 0)


def test_when_all_is_flagged_nothing_is_waited_for(service):
    service.add_tasks(new_tasks(2))
    who = person(service)
    for _ in range(2):
        flag(service, who, service.lease_next(who))
    assert counts(service) == (0, 0, 0, 0)
    assert service.progress().flagged == 2
    assert service.add_tasks(new_tasks(2)) == (0, 2)
    assert isinstance(service.lease_next(person(service, "Ben")), NoWork), "adding it again opens no flagged task"


OLD_STORE = """
INSERT INTO projects (id, name, judgements_per_task) VALUES (1, 'support', 1);
INSERT INTO annotators (id, annotator_id, name, name_key, simulated, settings, created_at)
  VALUES (1, 'a', 'Anna', 'anna', false, '{}', '2026-03-01');
INSERT INTO tallies (project_id, annotator_id, flagged) VALUES (1, 1, 1);
INSERT INTO tasks (id, project_id, prompt_key, key, prompt, responses, meta, origin, wanted, created_at)
  VALUES (1, 1, 'p1', 'k1', '[]', '[]', '{}', 'sample', 1, '2026-03-01'),
         (2, 1, 'p2', 'k2', '[]', '[]', '{}', 'sample', 1, '2026-03-01'),
         (3, 1, 'p3', 'k3', '[]', '[]', '{}', 'sample', 1, '2026-03-01');
INSERT INTO answers (id, answer_id, kind, project_id, task_id, annotator_id, supersedes_id)
  VALUES (1, 'x1', 'flag', 1, 1, 1, NULL), (2, 'x2', 'flag', 1, 2, 1, NULL), (3, 'x3', 'skip', 1, 2, 1, 2);
"""


def test_a_store_of_the_first_version_keeps_what_is_in_it_and_closes_flagged_tasks(address, clock, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(store_module, "SCHEMA_VERSION", "0001")
        before = Store.open(address)
    with before.write() as connection:
        for statement in OLD_STORE.split(";\n"):
            if statement.strip():
                connection.execute(text(statement))
    before.close()
    store = Store.open(address)
    with store.read() as connection:
        rows = connection.execute(text("SELECT key, flagged, retired FROM tasks ORDER BY id")).all()
    assert [tuple(row) for row in rows] == [("k1", 1, False), ("k2", 0, False), ("k3", 0, False)]
    assert counts(PreferenceService(store, project="support", clock=clock)) == (2, 2, 0, 2)
    store.close()


def test_flags_that_stand_are_exported_with_their_task(service, clock, tmp_path):
    service.add_tasks(new_tasks(3))
    anna, ben = person(service), person(service, "Ben")
    place = tmp_path / "flags.jsonl"
    with pytest.raises(UserError, match="project 'support' has no flags"):
        export_preferences(service, place, format="flags")
    assert not place.exists()
    flagged = service.lease_next(anna)
    service.flag(flagged.lease_id, anna, kind="personal-data", note="a phone number", idempotency_key="a")
    flag(service, ben, service.lease_next(ben))
    service.reopen_last(ben)
    judge(service, ben)  # which takes the flag back
    report = export_preferences(service, place, format="flags")
    assert (report.rows, report.records, report.simulated) == (1, 1, 0)
    row = json.loads(place.read_text())
    assert (row["kind"], row["note"], row["annotator"]) == ("personal-data", "a phone number", "Anna")
    assert row["flagged_at"].startswith("2026-03-01T09:00")
    assert (row["task_id"], row["prompt"]) == (flagged.task_id, flagged.prompt)
    assert {response["text"] for response in row["responses"]} == {card.text for card in flagged.cards}
