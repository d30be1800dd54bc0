"""Priorities, pools, restrictions, quotas, pauses and hand-back, on both databases."""

import pytest

from plumbline.errors import StoreError
from plumbline.preferences.records import Assignment, NoWork
from plumbline.preferences.service import PreferenceService
from tests.cheap_passwords import PASSWORD
from tests.preferences.conftest import best_first, counts_of, new_task, new_tasks


def person(service, name="Anna"):
    return service.sign_in(name).annotator_id


def judge(service, who, work=None):
    work = work or service.lease_next(who)
    return service.judge(work.lease_id, who, best_first(work), idempotency_key=work.lease_id)


def asked(work):
    return work.prompt[0]["content"]


def work_through(service, who):
    done = []
    while isinstance(work := service.lease_next(who), Assignment):
        done.append(asked(work))
        judge(service, who, work)
    return done


def ids(service):
    """Task ids by prompt."""
    return {task.prompt[0]["content"]: task.task_id for task in service.control.open_tasks()}


def test_tasks_go_out_by_priority_then_in_the_order_of_coming(service):
    service.add_tasks(new_tasks(6))
    who, known = person(service), ids(service)
    assert asked(service.lease_next(who)) == "task 0"
    judge(service, who)
    assert service.control.set_priorities({known["task 4"]: 5, known["task 1"]: -1, "of no task": 3}) == 2
    assert work_through(service, who) == ["task 4", "task 2", "task 3", "task 5", "task 1"]
    with pytest.raises(StoreError, match="no priority"):
        service.control.set_priorities({known["task 1"]: 2**31})


def test_a_raised_priority_reaches_those_who_are_further_down(service):
    service.set_overlap(2)
    service.add_tasks(new_tasks(5))
    anna, ben = person(service), person(service, "Ben")
    for _ in range(3):
        judge(service, anna)
    service.control.set_priorities({ids(service)["task 4"]: 1})
    assert [asked(service.lease_next(who)) for who in (anna, ben)] == ["task 4", "task 4"]


def test_tasks_of_a_pool_go_to_its_members_only(service):
    service.add_tasks(new_tasks(3))
    anna, ben = person(service), person(service, "Ben")
    known = ids(service)
    service.control.set_pool("medical", [ben])
    assert service.control.assign_pool([known["task 0"], known["task 2"]], "medical") == 2
    assert counts_of(service, anna) == (0, 1)
    assert counts_of(service, ben) == (0, 3)
    assert work_through(service, anna) == ["task 1"]
    nothing = service.lease_next(anna)
    assert nothing.kind == "reserved" and "2 tasks left, for the annotators whom the lead chose" in nothing.reason
    service.control.set_pool("medical", [anna])
    assert asked(service.lease_next(anna)) == "task 0"
    assert isinstance(service.lease_next(ben), NoWork)
    assert service.control.pools() == {"medical": [anna]}
    assert {one.name: one.pools for one in service.control.standings()} == {"Anna": ("medical",), "Ben": ()}
    service.control.assign_pool([known["task 2"]], None)
    assert asked(service.lease_next(ben)) == "task 2"
    with pytest.raises(StoreError, match="1 task not in the store"):
        service.control.assign_pool(["nothing"], "medical")


def test_tasks_are_found_by_words_and_ids(service):
    texts = ("Wo ist mein Päckchen?", "100% cotton?", "100 per cent_age")
    service.add_tasks([new_task(text) for text in texts])
    known = ids(service)

    def found(words):
        return [one.prompt[0]["content"] for one in service.control.find(words)]

    assert found("päckchen") == found(" wo ist ") == [texts[0]]
    assert found("100%") == [texts[1]] and found("cent_") == [texts[2]]
    assert found("user") == found("content") == found("  ") == found("\0") == found("\ud800") == []
    assert found(known[texts[1]][:10].upper()) == [texts[1]]
    service.control.assign_pool([known[texts[1]]], "wool")
    service.control.set_priorities({known[texts[1]]: 3})
    (one,) = service.control.find("cotton")
    assert (one.judged, one.wanted, one.priority, one.pool, one.flagged, one.restricted) == (
        0,
        1,
        3,
        "wool",
        False,
        False,
    )
    assert len(service.control.find("100", limit=1)) == 1


def test_who_may_sign_in_can_be_limited_before_they_do(service, accounts):
    cyd = accounts.create("Cyd", password=PASSWORD).annotator_id
    assert [(one.name, one.judged, one.quota) for one in service.control.standings()] == [("Cyd", 0, None)]
    service.control.set_quota(cyd, 3)
    accounts.deactivate(accounts.create("Dan").annotator_id)
    assert [(one.name, one.judged, one.quota) for one in service.control.standings()] == [("Cyd", 0, 3)]


def test_a_restricted_task_goes_to_the_named_only(service):
    service.add_tasks(new_tasks(2))
    anna, ben = person(service), person(service, "Ben")
    first = ids(service)["task 0"]
    service.control.restrict(first, [ben])
    assert asked(service.lease_next(anna)) == "task 1"
    assert asked(service.lease_next(ben)) == "task 0"
    judge(service, anna)
    service.control.release_all(ben)
    service.control.restrict(first, [])
    assert service.lease_next(ben).kind == "reserved"
    service.control.restrict(first, None)
    assert asked(service.lease_next(ben)) == "task 0"


def test_nobody_judges_more_than_their_quota(service):
    service.add_tasks(new_tasks(5))
    who = person(service)
    service.control.set_quota(who, 2)
    assert counts_of(service, who) == (0, 2)
    assert len(work_through(service, who)) == 2
    nothing = service.lease_next(who)
    assert (nothing.kind, nothing.values) == ("quota", {"quota": 2})
    assert nothing.reason == "You have judged all 2 tasks that you were asked for. Thank you!"
    service.control.set_quota(who, None)
    assert len(work_through(service, who)) == 3
    with pytest.raises(StoreError, match="no quota"):
        service.control.set_quota(who, -1)


def test_a_paused_annotator_finishes_what_they_hold_and_reads_why(service):
    service.add_tasks(new_tasks(3))
    who = person(service)
    work = service.lease_next(who)
    with pytest.raises(StoreError, match="say why"):
        service.control.pause(who, " ")
    service.control.pause(who, "we look at your answers first.")
    assert service.lease_next(who).lease_id == work.lease_id
    judge(service, who, work)
    assert service.lease_next(who) == NoWork("You get no work at present: we look at your answers first.")
    assert [one.paused for one in service.control.standings()] == ["we look at your answers first."]
    service.control.resume(who)
    assert isinstance(service.lease_next(who), Assignment)


def test_the_lead_takes_back_what_people_hold(service):
    service.add_tasks(new_tasks(1))
    anna, ben = person(service), person(service, "Ben")
    work = service.lease_next(anna)
    (held,) = service.control.held()
    assert (held.lease_id, held.task_id, held.annotator, held.purpose) == (work.lease_id, work.task_id, "Anna", "work")
    assert service.lease_next(ben).kind == "held"
    assert service.control.release(held.lease_id) and not service.control.release(held.lease_id)
    assert service.lease_next(ben).task_id == work.task_id
    assert (service.control.release_all(ben), service.control.release_all(ben)) == (1, 0)
    assert judge(service, anna, work)  # late, but still wanted


@pytest.mark.parametrize("pool", ["", " ", "x" * 101])
def test_a_pool_has_a_name(file_service, pool):
    with pytest.raises(StoreError, match="name"):
        file_service.control.set_pool(pool, [])


def test_every_member_of_a_pool_is_among_the_people_of_the_project(service):
    elsewhere = PreferenceService(service.store, project="elsewhere", clock=service.clock)
    elsewhere.control.set_pool("medical", [person(service)])
    assert [(one.name, one.pools) for one in elsewhere.control.standings()] == [("Anna", ("medical",))]


def test_tasks_for_named_people_are_listed_with_their_names(service):
    service.add_tasks(new_tasks(3))
    people, known = [person(service, name) for name in ("Ben", "Anna")], ids(service)
    service.control.restrict(known["task 1"], people)
    service.control.restrict(known["task 2"], people[:1])
    kept = service.control.restricted()
    assert [(task.task_id, task.names) for task in kept] == [
        (known["task 1"], ("Anna", "Ben")),
        (known["task 2"], ("Ben",)),
    ]
    assert kept[0].prompt[0]["content"] == "task 1"
    assert service.control.restricted(limit=1) == kept[:1]
    service.control.restrict(known["task 1"], None)
    assert service.control.restricted() == kept[1:]


def test_people_are_found_by_name_whatever_its_case(service):
    anna, ben = person(service, "Anna  Maria"), person(service, "Ben")
    assert service.control.annotators_named(["ben", " anna maria "]) == [ben, anna]
    with pytest.raises(StoreError, match="nobody in this store is called 'Cleo'"):
        service.control.annotators_named(["Ben", "Cleo"])
