"""Checks and repeats: they look like work, are scored once, and models never see them; on both databases."""

import json
from dataclasses import fields

import pytest
from sqlalchemy import update

from plumbline.errors import DataError, StoreError
from plumbline.preferences import handing, repeats
from plumbline.preferences.checks_file import Check, read_checks
from plumbline.preferences.pace import Pace
from plumbline.preferences.records import ATTENTION, GOLD, REPEAT, WORK, Assignment, NoWork
from plumbline.preferences.rules import Rules
from plumbline.preferences.schedule import CHECK, REPEATED
from plumbline.preferences.service import PreferenceService
from plumbline.preferences.tables import Task
from plumbline.recipe_annotate import ChecksSection
from tests.preferences.conftest import best_first, counts_of, make_gold, new_task, new_tasks

EVERY_THIRD = dict.fromkeys(range(2, 60, 3), CHECK)


def gold(number, responses=2, kind=GOLD):
    """A check whose response 0 is best."""
    return Check(new_task(f"gold {number}", responses), tuple(range(1, responses + 1)), kind)


def checked(store, clock, **settings):
    rules = Rules(checks=ChecksSection(**{"every": 3, "after": 3, **settings}))
    return PreferenceService(store, project="support", rules=rules, clock=clock)


@pytest.fixture
def places(monkeypatch):
    """Where checks and repeats fall due; tests set it."""
    due = {}
    monkeypatch.setattr(handing, "extra_at", lambda rules, project, who, answered: due.get(answered))
    return due


def worst_first(work):
    return {name: len(work.cards) + 1 - rank for name, rank in best_first(work).items()}


def work_through(service, who, ranking=best_first):
    """What they were asked, in order; all judged."""
    done = []
    while isinstance(work := service.lease_next(who), Assignment):
        done.append(work.prompt[0]["content"])
        service.judge(work.lease_id, who, ranking(work), idempotency_key=work.lease_id)
    return done


def test_checks_go_to_everybody_once_among_the_work_and_look_like_it(store, clock, places):
    places.update(EVERY_THIRD)
    service = checked(store, clock)
    service.set_overlap(2)
    service.add_tasks(new_tasks(8))
    assert service.checks.load([gold(1), gold(2, kind=ATTENTION)]) == 2
    people = [service.sign_in(name).annotator_id for name in ("Anna", "Ben")]
    for who in people:
        done = work_through(service, who)
        assert [number for number, asked in enumerate(done) if asked.startswith("gold")] == [2, 5]
        assert len(set(done)) == len(done) == 10
    assert service.progress().missing == 0
    assert (service.progress().tasks, service.progress().required) == (8, 16)
    learned = list(service.judgements())
    assert len(learned) == 16 and {record.purpose for record in learned} == {WORK}
    checks = list(service.judgements(purposes=(GOLD, ATTENTION)))
    assert sorted(record.purpose for record in checks) == [ATTENTION, ATTENTION, GOLD, GOLD]


def test_nothing_that_is_handed_out_tells_a_check(store, clock, places):
    places[1] = CHECK
    service = checked(store, clock)
    service.add_tasks(new_tasks(2))
    service.checks.load([gold(1)])
    who = service.sign_in("Anna").annotator_id
    work = service.lease_next(who)
    service.judge(work.lease_id, who, best_first(work), idempotency_key="1")
    check = service.lease_next(who)
    assert check.prompt[0]["content"] == "gold 1"
    assert service.purpose_of(check.lease_id) == GOLD
    different = {
        field.name
        for field in fields(Assignment)
        if type(getattr(work, field.name)) is not type(getattr(check, field.name))
    }
    assert different == set()
    assert "gold" not in repr(check).replace("gold 1", "") and "expected" not in repr(check)
    assert counts_of(service, who) == (1, 10)  # what is left does not fall by a check, so it is in tens


def end_by(what, service, clock, who, work):
    """End a lease without an answer; `what` says how."""
    if what == "expiry":
        clock.advance(60)
    elif what == "undo":
        correction = service.reopen_last(who)
        service.release(correction.lease_id, who)
    elif what == "sign-out":
        service.release(work.lease_id, who, aside=True)
    elif what == "lead":
        assert service.control.release(work.lease_id)
    else:
        service.release(work.lease_id, who)


@pytest.mark.parametrize("kind", [WORK, GOLD, REPEAT])
@pytest.mark.parametrize("end", ["expiry", "undo", "sign-out", "hand-back", "lead"])
def test_what_is_left_unanswered_tells_no_check_from_work(store, clock, places, monkeypatch, kind, end):
    monkeypatch.setattr(repeats, "APART", 1)
    service = checked(store, clock)
    service.add_tasks(new_tasks(9))
    service.checks.load([gold(number) for number in range(3)])
    who = service.sign_in("Anna").annotator_id
    for _ in range(4):
        work = service.lease_next(who)
        service.judge(work.lease_id, who, best_first(work), idempotency_key=work.lease_id)
    if kind != WORK:
        places[4] = CHECK if kind == GOLD else REPEATED
    left = service.lease_next(who)
    assert service.purpose_of(left.lease_id) == kind
    end_by(end, service, clock, who, left)
    following = service.lease_next(who)
    same = end not in ("hand-back", "lead")
    assert (following.task_id == left.task_id) is same
    assert (following.cards == left.cards) is same
    later = [following.task_id]
    while isinstance(work := service.lease_next(who), Assignment):
        later.append(work.task_id)
        service.judge(work.lease_id, who, best_first(work), idempotency_key=work.lease_id)
        places[len(later) + 3] = {GOLD: CHECK, REPEAT: REPEATED}.get(kind)
    assert left.task_id in later  # it is only put off


def test_while_a_repeat_is_asked_the_earlier_answer_is_not_shown(store, clock, places, monkeypatch):
    monkeypatch.setattr(repeats, "APART", 1)
    service = checked(store, clock)
    service.add_tasks(new_tasks(5))
    who = service.sign_in("Anna").annotator_id
    for _ in range(4):
        work = service.lease_next(who)
        service.judge(work.lease_id, who, best_first(work), idempotency_key=work.lease_id)
    earlier = {one.task_id: one.answer.answer_id for one in service.own_work(who)}
    places[4] = REPEATED
    again = service.lease_next(who)
    others = [task for task in earlier if task != again.task_id]
    assert again.task_id in earlier and [one.task_id for one in service.own_work(who)] == others
    with pytest.raises(StoreError, match="none of your answers"):
        service.reopen(earlier[again.task_id], who)
    service.reopen_last(who)  # the repeat is put aside, and follows again
    assert [one.task_id for one in service.own_work(who)] == others
    service.release(service.lease_next(who).lease_id, who)
    again = service.lease_next(who)
    service.judge(again.lease_id, who, best_first(again), idempotency_key="again")
    assert sorted(one.task_id for one in service.own_work(who)) == sorted([*earlier, again.task_id])


def test_what_is_handed_back_and_all_that_is_left_comes_again(store, clock, places):
    places[1] = CHECK
    service = checked(store, clock)
    service.add_tasks(new_tasks(1))
    service.checks.load([gold(1)])
    who = service.sign_in("Anna").annotator_id
    for asked in "task 0", "gold 1":
        work = service.lease_next(who)
        service.release(work.lease_id, who)
        again = service.lease_next(who)
        assert again.prompt[0]["content"] == work.prompt[0]["content"] == asked
        service.judge(work.lease_id, who, best_first(work), idempotency_key=asked)  # stands for the new lease
    assert service.checks.results()[0].seen == 1


def test_each_hand_back_draws_the_kind_of_what_follows_anew(store, clock):
    service = checked(store, clock, every=2)
    service.add_tasks(new_tasks(200))
    service.checks.load([gold(number) for number in range(200)])
    who = service.sign_in("Anna").annotator_id
    kinds = []
    for _ in range(60):
        work = service.lease_next(who)
        kinds.append(service.purpose_of(work.lease_id))
        service.release(work.lease_id, who)
    assert 10 < kinds.count(GOLD) < 50


def test_what_others_took_meanwhile_does_not_come_again(store, clock, places):
    service = checked(store, clock)
    service.add_tasks(new_tasks(2))
    anna, ben = (service.sign_in(name).annotator_id for name in ("Anna", "Ben"))
    left = service.lease_next(anna)
    service.release(left.lease_id, anna, aside=True)
    assert service.lease_next(ben).task_id == left.task_id
    assert service.lease_next(anna).task_id != left.task_id


def test_who_gets_too_much_wrong_is_warned_of_then_paused_until_the_lead_resumes_them(store, clock, places):
    places.update(dict.fromkeys(range(60), CHECK))
    service = checked(store, clock, warn_below=0.9, pause_below=0.6)
    service.add_tasks(new_tasks(2))
    service.checks.load([gold(number, 3) for number in range(6)])
    who = service.sign_in("Anna").annotator_id

    def answer(ranking):
        work = service.lease_next(who)
        return service.judge(work.lease_id, who, ranking(work), idempotency_key=work.lease_id)

    answer(best_first)
    answer(best_first)
    (result,) = service.checks.results()
    assert (result.seen, result.passed, result.share, result.streak, result.warning) == (2, 2, 1.0, 2, False)
    assert service.checks.warnings() == []
    answer(worst_first)  # 2/3 of the pairs of three checks
    (result,) = service.checks.warnings()
    assert (result.seen, result.passed, result.streak, result.paused) == (3, 2, 0, None)
    assert result.share == pytest.approx(2 / 3)
    answer(worst_first)  # a half
    (result,) = service.checks.warnings()
    assert result.paused and result.share == pytest.approx(0.5)
    nothing = service.lease_next(who)
    assert nothing.kind == "paused" and "talk to the lead" in nothing.reason
    service.control.resume(who)
    assert service.checks.results() == []
    answer(worst_first)  # counted from anew, so not paused at once
    assert isinstance(service.lease_next(who), Assignment)


def test_only_the_first_judgement_of_a_check_counts_and_a_skip_does_not(store, clock, places):
    places.update({0: CHECK, 1: CHECK})
    service = checked(store, clock, show_streak=True)
    service.add_tasks(new_tasks(2))
    service.checks.load([gold(1), gold(2)])
    who = service.sign_in("Anna").annotator_id
    work = service.lease_next(who)
    service.judge(work.lease_id, who, worst_first(work), idempotency_key="1")
    again = service.reopen_last(who)
    service.judge(again.lease_id, who, best_first(again), idempotency_key="2")
    assert [(one.seen, one.share, one.streak) for one in service.checks.results()] == [(1, 0.0, 0)]
    other = service.lease_next(who)
    service.skip(other.lease_id, who, reason="hard", idempotency_key="3")
    assert service.checks.results()[0].seen == 1
    again = service.reopen_last(who)
    service.judge(again.lease_id, who, best_first(again), idempotency_key="4")
    assert [(one.seen, one.share, one.passed) for one in service.checks.results()] == [(2, 0.5, 1)]
    assert Pace(store, project="support", clock=clock).check_streak(who) == 1
    assert service.progress().tasks == 2 and service.progress().done == 0


def test_a_flagged_check_goes_to_nobody_else(store, clock, places):
    places[0] = CHECK
    service = checked(store, clock)
    service.add_tasks(new_tasks(2))
    service.checks.load([gold(1)])
    anna, ben = (service.sign_in(name).annotator_id for name in ("Anna", "Ben"))
    work = service.lease_next(anna)
    service.flag(work.lease_id, anna, kind="broken", note="", idempotency_key="1")
    assert service.lease_next(ben).prompt[0]["content"].startswith("task")
    assert len(list(service.flags())) == 1


def test_a_files_checks_replace_those_of_the_file_before(store, clock, places):
    places.update(dict.fromkeys(range(60), CHECK))
    service = checked(store, clock)
    service.checks.load([gold(1), gold(2)])
    service.checks.load([gold(2), gold(3)])
    who = service.sign_in("Anna").annotator_id
    assert sorted(work_through(service, who)) == ["gold 2", "gold 3"]


def test_a_file_closes_what_it_no_longer_holds_whatever_that_was_and_leaves_a_leads_gold_items(store, clock, places):
    places.update(dict.fromkeys(range(60), CHECK))
    service = checked(store, clock)
    service.add_tasks([new_task("gold 1"), new_task("gold 2")])
    make_gold(service, new_task("gold 2"))
    service.checks.load([gold(1), gold(3)])
    assert sorted(work_through(service, service.sign_in("Anna").annotator_id)) == ["gold 1", "gold 2", "gold 3"]
    service.checks.load([gold(3)])
    assert sorted(work_through(service, service.sign_in("Ben").annotator_id)) == ["gold 2", "gold 3"]
    service.checks.load([])
    assert work_through(service, service.sign_in("Carl").annotator_id) == ["gold 2"]


def test_a_leads_gold_item_stays_when_its_policy_is_sampled_no_more(store, clock, places):
    places.update(dict.fromkeys(range(60), CHECK))
    service = checked(store, clock)
    service.add_tasks([new_task("gold 1"), new_task("gold 2")])
    made = make_gold(service, new_task("gold 1"))
    (other,) = [task.task_id for task in service.control.open_tasks()]
    assert service.retire([made, other]) == 1
    assert work_through(service, service.sign_in("Anna").annotator_id) == ["gold 1"]
    service.retire([made], checks=True)
    assert work_through(service, service.sign_in("Ben").annotator_id) == []
    service.checks.make_gold(made)
    assert work_through(service, service.sign_in("Carl").annotator_id) == ["gold 1"]


def test_an_item_that_is_a_check_is_no_work_whichever_came_first(store, clock, places):
    service = checked(store, clock)
    service.add_tasks([new_task("gold 1")])
    service.checks.load([gold(1), gold(2)])
    service.add_tasks([new_task("gold 2"), new_task("work")])
    service.set_overlap(2)
    assert work_through(service, service.sign_in("Anna").annotator_id) == ["work"]
    assert service.progress().tasks == 1


def test_repeats_come_again_unannounced_in_another_order_and_are_not_learned_from(store, clock, places):
    service = checked(store, clock, repeat_share=0.5)
    service.add_tasks(new_tasks(25, 2))
    who = service.sign_in("Anna").annotator_id
    places.update({5: REPEATED, 14: REPEATED, 18: REPEATED})  # nothing is far enough back at 5
    shown = {}
    for number in range(28):
        work = service.lease_next(who)
        if isinstance(work, NoWork):
            break
        order = [card.response_id for card in work.cards]
        if service.purpose_of(work.lease_id) == REPEAT:
            seen_at, first = shown[work.task_id]
            assert number - seen_at > 10 and order == first[::-1]
        else:
            shown[work.task_id] = number, order
        service.judge(work.lease_id, who, best_first(work), idempotency_key=work.lease_id)
    repeats = list(service.judgements(purposes=(REPEAT,)))
    assert len(repeats) == len({record.task_id for record in repeats}) == 2
    assert len(list(service.judgements())) == 25
    assert service.progress().done == 25 and service.progress().by_annotator == {"Anna": 27}


def test_what_was_kept_to_others_meanwhile_is_not_repeated(store, clock, places):
    service = checked(store, clock, repeat_share=0.5)
    service.add_tasks(new_tasks(15, 2))
    who, other = (service.sign_in(name).annotator_id for name in ("Anna", "Ben"))
    places[14] = REPEATED
    done = [task_done(service, who) for _ in range(14)]
    for task in done:
        service.control.restrict(task, [other])
    assert service.purpose_of(service.lease_next(who).lease_id) == WORK


def task_done(service, who):
    work = service.lease_next(who)
    service.judge(work.lease_id, who, best_first(work), idempotency_key=work.lease_id)
    return work.task_id


def test_a_repeat_can_be_corrected_and_late(store, clock, places):
    service = checked(store, clock, repeat_share=0.5)
    service.add_tasks(new_tasks(14))
    who = service.sign_in("Anna").annotator_id
    places[12] = REPEATED
    for number in range(12):
        work = service.lease_next(who)
        service.judge(work.lease_id, who, best_first(work), idempotency_key=str(number))
    again = service.lease_next(who)
    clock.advance(60)
    service.judge(again.lease_id, who, best_first(again), idempotency_key="late")
    fixed = service.reopen_last(who)
    service.judge(fixed.lease_id, who, worst_first(fixed), idempotency_key="fixed")
    (record,) = service.judgements(purposes=(REPEAT,))
    assert record.ranking == worst_first(fixed) and service.progress().done == 12


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ({"prompt": "p", "responses": ["a", "b"]}, "field 'ranking' is missing"),
        ({"prompt": "p", "responses": ["a", "b"], "ranking": [1, 2], "level": 1}, "unknown field 'level'"),
        ({"prompt": "p", "responses": ["a", "b"], "ranking": [1]}, "1 ranks for 2 responses"),
        ({"prompt": "p", "responses": ["a", "b"], "ranking": [1, 1]}, "ties all"),
        ({"prompt": "p", "responses": ["a", "b"], "ranking": [0, 1]}, "no list of ranks"),
        ({"prompt": "p", "responses": ["a", "b"], "ranking": [True, 2]}, "no list of ranks"),
        ({"prompt": "p", "responses": "ab", "ranking": [1, 2]}, "no list of texts"),
        ({"prompt": "p", "responses": ["a", "a "], "ranking": [1, 2]}, "identical"),
        ({"prompt": [], "responses": ["a", "b"], "ranking": [1, 2]}, "prompt"),
        ({"prompt": "p", "responses": ["a", "b"], "ranking": [1, 2], "kind": "trick"}, "expected gold or attention"),
        ({"prompt": "good", "responses": ["b", "a"], "ranking": [1, 2]}, "in line 1 already"),
    ],
)
def test_a_faulty_file_of_checks_names_the_line(tmp_path, row, fault):
    path = tmp_path / "checks.jsonl"
    fine = {"prompt": "good", "responses": ["a", "b"], "ranking": [3, 1], "kind": "attention"}
    path.write_text(json.dumps(fine) + "\n" + json.dumps(row) + "\n")
    with pytest.raises(DataError, match=fault) as raised:
        read_checks(path, "support")
    assert raised.value.line == 2
    path.write_text(json.dumps(fine) + "\n")
    (check,) = read_checks(path, "support")
    assert (check.expected, check.kind, check.task.prompt[0]["content"]) == ((2, 1), ATTENTION, "good")
    path.write_text("")
    with pytest.raises(DataError, match="no rows"):
        read_checks(path, "support")


def test_checks_of_a_pool_go_to_its_members_only(store, clock, places):
    places.update({1: CHECK, 2: CHECK})
    service = checked(store, clock)
    service.set_overlap(2)
    service.add_tasks(new_tasks(3))
    service.checks.load([gold(1)])
    anna, ben = (service.sign_in(name).annotator_id for name in ("Anna", "Ben"))
    with store.write() as connection:
        connection.execute(update(Task).where(Task.check_kind.is_not(None)).values(pool="medical"))
    service.control.set_pool("medical", [anna])
    assert "gold 1" in work_through(service, anna)
    assert sorted(work_through(service, ben)) == ["task 0", "task 1", "task 2"]


def test_gold_is_made_of_adjudicated_tasks_only(service):
    service.add_tasks(new_tasks(1))
    (task,) = service.control.open_tasks()
    with pytest.raises(StoreError, match="adjudicate it first"):
        service.checks.make_gold(task.task_id)
    with pytest.raises(StoreError, match="not in the store"):
        service.checks.make_gold("nothing")
