"""Leases, answers, corrections: every rule on SQLite and on PostgreSQL."""

from datetime import timedelta

import pytest

from plumbline.errors import StoreError, UserError
from plumbline.preferences.queue import shown_order
from plumbline.preferences.records import Assignment, NewResponse, NewTask, NoWork
from plumbline.preferences.rules import Rules
from plumbline.preferences.service import PreferenceService
from plumbline.preferences.validation import response_key
from plumbline.recipe_annotate import RubricAxis
from tests.preferences.conftest import best_first, counts_of, new_task, new_tasks


def person(service, name="Anna"):
    return service.sign_in(name).annotator_id


def judge(service, who, work=None, key=None, **said):
    work = work or service.lease_next(who)
    ranking = said.pop("ranking", None) or best_first(work)
    return service.judge(work.lease_id, who, ranking, idempotency_key=key or work.lease_id, **said)


def test_tasks_are_known_by_their_contents(service):
    assert service.add_tasks(new_tasks(3)) == (3, 0)
    reordered = NewTask(
        new_task("task 0").prompt, list(reversed(new_task("task 0").responses)), "support", meta={"x": 1}
    )
    assert service.add_tasks([reordered, *new_tasks(5)]) == (2, 4)
    assert service.progress().tasks == 5


def task_of(prompt_role, *responses, project="support"):
    return NewTask(
        [{"role": prompt_role, "content": "x"}], [NewResponse(text, "policy") for text in responses], project
    )


@pytest.mark.parametrize(
    ("task", "fault"),
    [
        (task_of("user", "a"), "1 response; a task has 2 to 9"),
        (task_of("user", *"abcdefghij"), "10 responses"),
        (task_of("user", "a", " a\n"), "identical"),
        (task_of("user", "a", " "), "response 2 is empty"),
        (task_of("user", "a", "b\x00"), "NUL"),
        (task_of("user", "a", "b\ud800"), "surrogate"),
        (task_of("assistant", "a", "b"), "roles out of order"),
        (task_of("user", "a", "b", project="elsewhere"), "project"),
    ],
)
def test_faulty_tasks_are_refused_with_a_reason(file_service, task, fault):
    with pytest.raises(UserError, match=fault):
        file_service.add_tasks([task])
    assert file_service.progress().tasks == 0


def test_an_assignment_hides_the_sources(service):
    service.add_tasks([new_task("blind", 4)])
    work = service.lease_next(person(service))
    assert isinstance(work, Assignment)
    assert "policy" not in repr(work)
    assert [card.position for card in work.cards] == [0, 1, 2, 3]
    assert sorted(card.text for card in work.cards) == [f"blind: response {n}" for n in range(4)]


def test_shown_order_differs_between_annotators_and_is_kept_with_the_judgement(service):
    service.set_overlap(8)
    service.add_tasks([new_task("order", 5)])
    shown = {}
    for number in range(8):
        who = person(service, f"person {number}")
        work = service.lease_next(who)
        shown[f"person {number}"] = tuple(card.response_id for card in work.cards)
        judge(service, who, work)
    assert len(set(shown.values())) > 4  # of 120 orders
    assert {record.annotator: record.shown_order for record in service.judgements()} == shown


def test_the_orders_that_people_see_do_not_follow_from_their_names(service):
    service.add_tasks([new_task(f"order {number}", 9) for number in range(3)])

    keys = [task.task_id for task in service.control.open_tasks()]
    ids = [
        sorted(response_key(key, f"order {task}: response {one}") for one in range(9)) for task, key in enumerate(keys)
    ]

    def from_name(name):
        return [[ids[task][index] for index in shown_order(key, name, 9)] for task, key in enumerate(keys)]

    def seen_by(name, **kind):
        who = service.sign_in(name, **kind).annotator_id
        seen = []
        while isinstance(work := service.lease_next(who), Assignment):
            seen.append([card.response_id for card in work.cards])
            service.skip(work.lease_id, who, reason="-", idempotency_key=work.lease_id)
        return seen

    assert not any(seen == drawn for seen, drawn in zip(seen_by("Anna"), from_name("Anna"), strict=True))
    assert seen_by("robot", simulated=True) == from_name("robot")


def test_a_reload_shows_the_same_task_in_the_same_order_with_its_time_renewed(service, clock):
    service.add_tasks(new_tasks(3, 4))
    who = person(service)
    first = service.lease_next(who)
    clock.advance(10)
    again = service.lease_next(who)
    assert (again.lease_id, again.cards) == (first.lease_id, first.cards)
    assert again.expires_at == clock.now + timedelta(minutes=15)


def test_a_judgement_comes_back_as_it_was_given(service, clock):
    rules = Rules(rubric=(RubricAxis(name="polite", question="Is it polite?"),))
    service = PreferenceService(service.store, project="support", rules=rules, clock=clock)
    service.add_tasks([new_task("all", 3, meta={"topic": "refund"})])
    who = person(service)
    work = service.lease_next(who)
    polite = {"polite": {card.response_id: 3 for card in work.cards}}
    ranking = dict(zip((card.response_id for card in work.cards), (1, 1, 4), strict=True))
    judgement_id = service.judge(
        work.lease_id,
        who,
        ranking,
        idempotency_key="k",
        seconds=12.5,
        strength=2.0,
        scores=polite,
        reason="because",
        edited="better text ✓",
        flags=("typo",),
    )
    (record,) = service.judgements()
    assert record.judgement_id == judgement_id
    assert list(record.ranking.values()) == [record.ranking[r.response_id] for r in record.responses]
    assert [record.ranking[card.response_id] for card in work.cards] == [1, 1, 2]  # dense
    assert (record.annotator, record.simulated, record.annotator_settings) == ("Anna", False, {})
    assert (record.judged_at, record.seconds, record.strength) == (clock.now, 12.5, 2.0)
    assert (record.scores, record.reason, record.edited, record.flags) == (
        polite,
        "because",
        "better text ✓",
        ("typo",),
    )
    assert {r.text: r.source for r in record.responses} == {f"all: response {n}": f"policy-{n}" for n in range(3)}
    assert (record.project, record.origin, record.meta, record.supersedes) == (
        "support",
        "sample",
        {"topic": "refund"},
        None,
    )


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda ranking: dict(list(ranking.items())[:1]), "1 response of 2 without a rank"),
        (lambda ranking: ranking | {"elsewhere": 1}, "no response of this task"),
        (lambda ranking: dict.fromkeys(ranking, 0), "whole numbers"),
        (lambda ranking: dict.fromkeys(ranking, True), "whole numbers"),
    ],
)
def test_a_ranking_that_does_not_fit_is_refused_and_can_be_mended(file_service, change, fault):
    file_service.add_tasks(new_tasks(1))
    who = person(file_service)
    work = file_service.lease_next(who)
    with pytest.raises(StoreError, match=fault):
        judge(file_service, who, work, ranking=change(best_first(work)))
    assert judge(file_service, who, work)


def test_notes_that_no_database_can_hold_are_refused(service):
    service.add_tasks(new_tasks(1))
    who = person(service)
    work = service.lease_next(who)
    for note in ("a\x00b", "\ud83d"):
        with pytest.raises(StoreError, match="remove it, then send the answer again"):
            judge(service, who, work, reason=note)
    judge(service, who, work, reason="", edited="fine 🙂")


def test_the_same_key_twice_is_one_judgement(service):
    service.add_tasks(new_tasks(2))
    who = person(service)
    work = service.lease_next(who)
    first = judge(service, who, work, key="view-1")
    assert judge(service, who, work, key="view-1") == first
    assert len(list(service.judgements(include_superseded=True))) == 1
    other = {name: 3 - rank for name, rank in best_first(work).items()}
    with pytest.raises(StoreError, match="stored before with other contents"):
        judge(service, who, work, key="view-1", ranking=other)
    with pytest.raises(StoreError, match="answered already"):
        judge(service, who, work, key="view-2")
    assert service.progress().done == 1


def test_the_same_key_of_two_annotators_is_two_judgements(service):
    service.add_tasks(new_tasks(2))
    ids = {judge(service, person(service, name), key="k") for name in ("Anna", "Ben")}
    assert len(ids) == 2
    assert service.progress().by_annotator == {"Anna": 1, "Ben": 1}


def test_nobody_uses_the_lease_of_somebody_else(service):
    service.add_tasks(new_tasks(1))
    anna, ben = person(service, "Anna"), person(service, "Ben")
    work = service.lease_next(anna)
    for attempt in (
        lambda: judge(service, ben, work),
        lambda: service.release(work.lease_id, ben),
        lambda: service.renew(work.lease_id, ben),
        lambda: service.skip(work.lease_id, ben, reason="x", idempotency_key="k"),
    ):
        with pytest.raises(StoreError, match="not handed to you"):
            attempt()
    with pytest.raises(StoreError, match="sign in again"):
        service.lease_next("nobody")


def test_an_expired_lease_comes_back_to_somebody_else(service, clock):
    service.add_tasks(new_tasks(1))
    anna, ben = person(service, "Anna"), person(service, "Ben")
    work = service.lease_next(anna)
    assert isinstance(service.lease_next(ben), NoWork)
    clock.advance(14)
    until = service.renew(work.lease_id, anna)
    assert until == clock.now + timedelta(minutes=15)
    clock.advance(16)
    taken_over = service.lease_next(ben)
    assert taken_over.task_id == work.task_id
    with pytest.raises(StoreError, match="time for this task is over"):
        service.renew(work.lease_id, anna)
    with pytest.raises(StoreError, match="others have taken it since"):
        judge(service, anna, work)
    judge(service, ben, taken_over)
    assert service.progress().by_annotator == {"Ben": 1}


def test_a_late_answer_counts_while_it_is_wanted(service, clock):
    service.add_tasks(new_tasks(2))
    anna, ben = person(service, "Anna"), person(service, "Ben")
    work = service.lease_next(anna)
    clock.advance(60)
    other = service.lease_next(ben)  # ends Anna's lease, but hands out whatever is first
    service.release(other.lease_id, ben)
    assert judge(service, anna, work)
    assert service.progress().done == 1
    assert service.lease_next(ben).task_id != work.task_id


def test_an_answer_through_an_ended_lease_uses_the_one_that_replaced_it(service, clock):
    service.add_tasks(new_tasks(1))
    who = person(service)
    old_tab = service.lease_next(who)
    clock.advance(60)
    new_tab = service.lease_next(who)
    assert new_tab.lease_id != old_tab.lease_id and new_tab.cards == old_tab.cards
    judge(service, who, old_tab)
    assert service.progress().done == 1
    with pytest.raises(StoreError, match="answered already"):
        judge(service, who, new_tab)


def test_a_released_task_goes_to_the_next_who_asks(service):
    service.add_tasks(new_tasks(1))
    anna, ben = person(service, "Anna"), person(service, "Ben")
    work = service.lease_next(anna)
    service.release(work.lease_id, anna)
    service.release(work.lease_id, anna)  # again: nothing happens
    assert service.lease_next(ben).task_id == work.task_id
    assert isinstance(service.lease_next(anna), NoWork)


def test_overlap_gives_each_task_to_that_many_different_people(service):
    service.set_overlap(2)
    service.add_tasks(new_tasks(3))
    people = [person(service, name) for name in ("Anna", "Ben", "Cleo")]
    for _ in range(3):
        for who in people:
            if isinstance(work := service.lease_next(who), Assignment):
                judge(service, who, work)
    by_task = {}
    for record in service.judgements():
        by_task.setdefault(record.task_id, set()).add(record.annotator)
    assert sorted(len(names) for names in by_task.values()) == [2, 2, 2]
    progress = service.progress()
    assert (progress.required, progress.done, progress.missing) == (6, 6, 0)


def test_a_larger_overlap_opens_finished_tasks_again(service):
    service.add_tasks(new_tasks(2))
    anna, ben = person(service, "Anna"), person(service, "Ben")
    judge(service, anna), judge(service, anna)
    assert isinstance(service.lease_next(ben), NoWork)
    service.set_overlap(2)
    assert service.progress().missing == 2
    judge(service, ben), judge(service, ben)
    assert service.progress().missing == 0


def test_why_there_is_no_work(service, clock):
    anna, ben = person(service, "Anna"), person(service, "Ben")
    assert "nothing to judge yet" in service.lease_next(anna).reason
    service.add_tasks(new_tasks(1))
    work = service.lease_next(anna)
    held = service.lease_next(ben).reason
    assert "hold the remaining tasks until" in held
    assert f"{work.expires_at.astimezone():%H:%M}" in held
    service.skip(work.lease_id, anna, reason="hard", idempotency_key="k")
    assert service.lease_next(anna).reason.startswith("You have done all of yours. 1 task ")
    judge(service, ben)
    assert "All tasks are judged" in service.lease_next(ben).reason


def test_a_skip_leaves_the_task_to_others_and_a_flag_to_nobody(service):
    service.add_tasks(new_tasks(2))
    anna, ben = person(service, "Anna"), person(service, "Ben")
    first = service.lease_next(anna)
    service.skip(first.lease_id, anna, reason="not my field", idempotency_key="s")
    service.skip(first.lease_id, anna, reason="not my field", idempotency_key="s")
    second = service.lease_next(anna)
    service.flag(second.lease_id, anna, kind="harmful", note="see text", idempotency_key="f")
    progress = service.progress()
    assert (progress.skipped, progress.flagged, progress.done, progress.missing) == (1, 1, 0, 1)
    assert counts_of(service, anna) == (0, 0)
    assert counts_of(service, ben) == (0, 1)
    judge(service, ben)
    assert isinstance(service.lease_next(ben), NoWork)
    assert [one.task_id for one in service.own_work(ben)] == [first.task_id]


def test_undo_supersedes_and_keeps_the_old_judgement(service):
    service.add_tasks(new_tasks(3, 3))
    who = person(service)
    work = service.lease_next(who)
    old = judge(service, who, work)
    waiting = service.lease_next(who)
    opened = service.reopen_last(who)
    assert (opened.task_id, opened.cards, opened.supersedes) == (work.task_id, work.cards, old)
    assert service.reopen_last(who).lease_id == opened.lease_id
    assert service.progress().done == 1  # the old judgement stands until the new one is given
    reverse = {name: 4 - rank for name, rank in best_first(work).items()}
    new = judge(service, who, opened, ranking=reverse)
    (current,) = service.judgements()
    assert (current.judgement_id, current.supersedes, current.ranking) == (new, old, reverse)
    both = {record.judgement_id: record.ranking for record in service.judgements(include_superseded=True)}
    assert both == {old: best_first(work), new: reverse}
    assert service.progress().by_annotator == {"Anna": 1}
    judge(service, who), judge(service, who)
    assert waiting.task_id in {record.task_id for record in service.judgements()}  # it went back to the queue


def test_undo_of_a_judgement_by_a_skip_frees_the_task(service):
    service.add_tasks(new_tasks(1))
    anna, ben = person(service, "Anna"), person(service, "Ben")
    judge(service, anna)
    opened = service.reopen_last(anna)
    service.skip(opened.lease_id, anna, reason="second thoughts", idempotency_key="s")
    assert (service.progress().done, service.progress().skipped) == (0, 1)
    assert list(service.judgements()) == []
    judge(service, ben)
    with pytest.raises(StoreError, match="others have taken this task"):
        service.reopen_last(anna)
    assert service.progress().by_annotator == {"Ben": 1}


def test_undo_of_a_skip_takes_the_place_again(service, clock):
    service.add_tasks(new_tasks(1))
    anna, ben = person(service, "Anna"), person(service, "Ben")
    work = service.lease_next(anna)
    skipped = service.skip(work.lease_id, anna, reason="hard", idempotency_key="s")
    opened = service.reopen_last(anna)
    assert opened.supersedes == skipped
    assert isinstance(service.lease_next(ben), NoWork)
    clock.advance(60)
    assert isinstance(service.lease_next(ben), Assignment)  # an abandoned correction gives the place back, too


def test_an_abandoned_correction_leaves_the_judgement(service, clock):
    service.add_tasks(new_tasks(1))
    anna, ben = person(service, "Anna"), person(service, "Ben")
    judge(service, anna)
    service.reopen_last(anna)
    clock.advance(60)
    assert isinstance(service.lease_next(ben), NoWork)
    assert service.progress().done == 1
    opened = service.reopen_last(anna)
    service.release(opened.lease_id, anna)
    assert service.progress().done == 1
    assert isinstance(service.lease_next(ben), NoWork)


def test_nothing_to_undo(service):
    service.add_tasks(new_tasks(1))
    who = person(service)
    held = service.lease_next(who)
    assert service.reopen_last(who) is None
    assert service.lease_next(who).lease_id == held.lease_id


def test_names_belong_to_one_kind_of_annotator(service):
    anna = service.sign_in("Anna")
    assert service.sign_in("  anna ") == anna
    service.sign_in("bot", simulated=True, settings={"noise": 0.1})
    with pytest.raises(StoreError, match="belongs to a person"):
        service.sign_in("ANNA", simulated=True)
    with pytest.raises(StoreError, match="belongs to a simulated annotator"):
        service.sign_in("Bot")
    with pytest.raises(StoreError, match=r"\(noise: 0.1 there, 0.2 here; tie_below: not set there, 0.5 here\)"):
        service.sign_in("bot", simulated=True, settings={"noise": 0.2, "tie_below": 0.5})
    for name in ("", "  ", "x" * 101, "import:hh", "a\x00b"):
        with pytest.raises(StoreError):
            service.sign_in(name)


def test_projects_in_one_store_do_not_see_each_other(service, clock):
    service.add_tasks(new_tasks(1))
    other = PreferenceService(service.store, project="law", clock=clock)
    who = person(other)
    assert isinstance(other.lease_next(who), NoWork)
    assert list(other.judgements()) == [] and other.progress().tasks == 0
    judge(service, who)
    assert other.progress().by_annotator == {}
