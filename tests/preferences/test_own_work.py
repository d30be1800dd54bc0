"""Drafts, looking through own work, correcting any of it, and what may be said with a ranking; on both databases."""

import pytest

from plumbline.errors import StoreError
from plumbline.preferences import queue
from plumbline.preferences.drafts import MAX_DRAFT, NewerDraft
from plumbline.preferences.records import ALL_BAD, JUDGEMENT, REPEAT
from plumbline.preferences.rules import Rules
from plumbline.preferences.service import PreferenceService
from plumbline.preferences.store import Store
from plumbline.preferences.turn import acting
from plumbline.recipe_annotate import RubricAxis
from tests.preferences.conftest import best_first, new_tasks

RUBRIC = (RubricAxis(name="correct", question="Is it right?", levels=3), RubricAxis(name="polite", question="Polite?"))


def person(service, name="Anna"):
    return service.sign_in(name).annotator_id


def judge(service, who, work=None, **said):
    work = work or service.lease_next(who)
    ranking = said.pop("ranking", None) or best_first(work)
    return service.judge(work.lease_id, who, ranking, idempotency_key=work.lease_id, **said)


# -- drafts --------------------------------------------------------------------------------------------------------


def test_a_draft_survives_reload_expiry_and_restart_and_goes_with_the_answer(address, clock):
    store = Store.open(address)
    service = PreferenceService(store, project="support", clock=clock)
    service.add_tasks(new_tasks(2))
    who, other = person(service), person(service, "Ben")
    work = service.lease_next(who)
    assert work.draft is None
    service.save_draft(work.lease_id, who, {"ranking": {"a": 1}})
    service.save_draft(work.lease_id, who, {"ranking": {"a": 2}, "reason": "weil … 🙂"})
    assert service.lease_next(who).draft == {"ranking": {"a": 2}, "reason": "weil … 🙂"}
    assert service.lease_next(other).draft is None
    clock.advance(60)
    store.close()
    store = Store.open(address)
    service = PreferenceService(store, project="support", clock=clock)
    again = service.lease_next(who)
    assert again.task_id == work.task_id and again.lease_id != work.lease_id
    assert again.draft == {"ranking": {"a": 2}, "reason": "weil … 🙂"}
    judge(service, who, again)
    assert service.reopen_last(who).draft is None
    store.close()


@pytest.mark.parametrize(("aside", "late"), [(False, 0), (False, 60), (True, 0)])
def test_a_correction_that_is_given_up_leaves_no_draft_but_one_that_is_only_left_does(service, clock, aside, late):
    service.add_tasks(new_tasks(1))
    who = person(service)
    judge(service, who)
    correction = service.reopen_last(who)
    service.save_draft(correction.lease_id, who, {"reason": "on second thoughts"})
    clock.advance(late)
    service.lease_next(person(service, "Ben"))  # what is over is noticed
    assert service.release(correction.lease_id, who, aside=aside)
    again = service.reopen_last(who)
    assert again.draft == ({"reason": "on second thoughts"} if aside else None)
    service.save_draft(again.lease_id, who, {"reason": "third"})
    service.release(correction.lease_id, who, aside=aside)  # sent again: it is of the lease before
    assert service.lease_next(who).draft == {"reason": "third"}


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ({"reason": "x" * MAX_DRAFT}, "too long"),
        ({"seconds": float("nan")}, "not JSON"),
        ({"reason": "\ud800"}, "not JSON"),
        ({"reason": object()}, "not JSON"),
        (["reason"], "no JSON object"),
    ],
)
def test_a_draft_is_a_json_object_of_bounded_size(file_service, content, fault):
    file_service.add_tasks(new_tasks(1))
    who = person(file_service)
    work = file_service.lease_next(who)
    with pytest.raises(StoreError, match=fault):
        file_service.save_draft(work.lease_id, who, content)
    assert file_service.lease_next(who).draft is None


def test_drafts_belong_to_the_holder_of_the_task(service):
    service.add_tasks(new_tasks(1))
    anna, ben = person(service), person(service, "Ben")
    work = service.lease_next(anna)
    with pytest.raises(StoreError, match="not handed to you"):
        service.save_draft(work.lease_id, ben, {})
    judge(service, anna, work)
    with pytest.raises(StoreError, match="answered already"):
        service.save_draft(work.lease_id, anna, {})


def test_a_draft_goes_on_from_the_one_that_is_kept_or_stays_out(service):
    """Saves that are late, sent twice, or of another window."""
    service.add_tasks(new_tasks(1))
    who = person(service)
    lease = service.lease_next(who).lease_id

    def save(revision, *after):
        service.save_draft(lease, who, {"revision": revision}, after=after)

    save("a1")
    save("a2", "a1")
    for late in (("a1",), ("b2", "a1"), ("b1",)):
        with pytest.raises(NewerDraft, match="in another window or browser"):
            save(*late)
    save("a2", "a1")  # sent again
    save("a4", "a1", "a2", "a3")  # the replies to two were lost, and one of them never came
    assert service.lease_next(who).draft == {"revision": "a4"}


def test_what_is_entered_for_a_correction_that_was_given_up_is_not_kept(service, clock):
    service.add_tasks(new_tasks(1))
    who = person(service)
    judge(service, who)
    clock.advance(1)
    correction = service.reopen_last(who)
    service.release(correction.lease_id, who)
    assert "handed this task back" in service.save_draft(correction.lease_id, who, {"reason": "late"})
    assert service.reopen_last(who).draft is None


def test_a_showing_is_the_same_until_it_is_answered_and_another_when_the_task_comes_again(service, clock):
    service.add_tasks(new_tasks(1))
    who = person(service)
    first = service.lease_next(who)
    service.release(first.lease_id, who)
    handed_back = service.lease_next(who)
    clock.advance(60)
    expired = service.lease_next(who)
    assert first.lease_id != handed_back.lease_id != expired.lease_id
    assert first.showing == handed_back.showing == expired.showing
    judge(service, who, expired)
    correction = service.reopen_last(who)
    judge(service, who, correction)
    with service.turn() as turn:
        until = turn.now + service.lease
        queue.open_lease(turn, acting(turn, who), 1, order=[0, 1], until=until, purpose=REPEAT)
    shown = [first, correction, service.lease_next(who)]
    service.release(shown[-1].lease_id, who)
    shown.append(service.reopen_last(who))
    assert len({work.showing for work in shown}) == 4


# -- own work ------------------------------------------------------------------------------------------------------


def test_own_work_is_shown_in_pages_without_sources_or_purposes(service):
    service.add_tasks(new_tasks(5))
    who = person(service)
    for number in range(3):
        judge(service, who, reason=f"because {number}")
    work = service.lease_next(who)
    service.skip(work.lease_id, who, reason="hard", idempotency_key="skip")
    work = service.lease_next(who)
    service.flag(work.lease_id, who, kind="broken", note="cut off", idempotency_key="flag")
    judge(service, person(service, "Ben"))
    found = service.own_work(who)
    assert [one.answer.kind for one in found] == ["flag", "skip", "judgement", "judgement", "judgement"]
    assert (found[0].answer.flags, found[0].answer.reason, found[0].answer.ranking) == (("broken",), "cut off", {})
    assert [one.answer.reason for one in found[2:]] == ["because 2", "because 1", "because 0"]
    assert "policy" not in repr(found) and "work'" not in repr(found)
    first = service.own_work(who, limit=2)
    assert first + service.own_work(who, limit=9, before=first[-1].answer.answer_id) == found
    assert service.own_work(who, kinds=[JUDGEMENT]) == found[2:]
    with pytest.raises(StoreError, match="none of your answers"):
        service.own_work(person(service, "Ben"), before=found[0].answer.answer_id)


def test_any_own_answer_can_be_corrected_and_begins_with_what_was_said(service):
    service.add_tasks(new_tasks(4, 3))
    who = person(service)
    for number in range(3):
        judge(service, who, reason=str(number), gaps=(1, 4))
    oldest = service.own_work(who)[-1]
    held = service.lease_next(who)
    again = service.reopen(oldest.answer.answer_id, who)
    assert (again.task_id, again.supersedes, again.cards) == (oldest.task_id, oldest.answer.answer_id, oldest.cards)
    assert again.earlier == oldest.answer and again.earlier.gaps == (1, 4)
    assert service.reopen(oldest.answer.answer_id, who).lease_id == again.lease_id
    other = {card.response_id: 1 for card in again.cards}
    newer = judge(service, who, again, ranking=other, reason="mended")
    assert service.progress().done == 3
    assert [one.answer.reason for one in service.own_work(who)] == ["mended", "2", "1"]
    with pytest.raises(StoreError, match="open the newer one"):
        service.reopen(oldest.answer.answer_id, who)
    for stranger in (person(service, "Ben"),):
        with pytest.raises(StoreError, match="none of your answers"):
            service.reopen(newer, stranger)
    assert service.lease_next(who).task_id == held.task_id  # what was in hand went back to the queue


def test_a_skip_is_reopened_only_while_its_task_is_free(service):
    service.add_tasks(new_tasks(2))
    anna, ben = person(service), person(service, "Ben")
    work = service.lease_next(anna)
    service.skip(work.lease_id, anna, reason="hard", idempotency_key="skip")
    judge(service, anna)
    skipped = service.own_work(anna)[-1]
    taken = service.lease_next(ben)
    with pytest.raises(StoreError, match="others have taken this task"):
        service.reopen(skipped.answer.answer_id, anna)
    service.release(taken.lease_id, ben)
    judge(service, anna, service.reopen(skipped.answer.answer_id, anna))
    assert service.progress().missing == 0


# -- what is said with a ranking ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scores", "fault"),
    [
        ({"wit": {}}, "'wit' is no axis"),
        ({"polite": {}}, "not complete"),
        ({"polite": 3}, "not complete"),
        ({"correct": 4}, "whole number from 1 to 3"),
        ({"correct": 0}, "whole number"),
        ({"correct": True}, "whole number"),
        ({"polite": 5}, None),
        ({"polite": 1, "correct": 3}, None),
        ({}, None),
        (None, None),
    ],
)
def test_scores_are_those_of_the_rubric_for_all_responses_or_none(file_store, scores, fault):
    service = PreferenceService(file_store, project="support", rules=Rules(rubric=RUBRIC))
    service.add_tasks(new_tasks(1))
    who = person(service)
    work = service.lease_next(who)
    spread = scores and {
        axis: {card.response_id: level for card in work.cards} if fault is None or "number" in fault else level
        for axis, level in scores.items()
    }
    if fault is None:
        judge(service, who, work, scores=spread)
        (record,) = service.judgements()
        assert record.scores == spread
        return
    with pytest.raises(StoreError, match=fault):
        judge(service, who, work, scores=spread)
    judge(service, who, work)


@pytest.mark.parametrize(
    ("edited", "fault"),
    [
        ("", "is empty"),
        (" \n", "is empty"),
        (" task 0: response 0\n", "same as the best one"),
        ("x" * 100_001, "more than 100000 characters"),
        ("task 0: response 1", None),  # the worse one: odd, but different from the best
        ("better", None),
    ],
)
def test_an_improved_response_improves_the_best_one(file_service, edited, fault):
    file_service.add_tasks(new_tasks(1))
    who = person(file_service)
    work = file_service.lease_next(who)
    if fault is None:
        judge(file_service, who, work, edited=edited)
        return
    with pytest.raises(StoreError, match=fault):
        judge(file_service, who, work, edited=edited)


def test_what_the_recipe_does_not_ask_for_is_refused(file_store):
    service = PreferenceService(file_store, project="support", rules=Rules(edit=False))
    service.add_tasks(new_tasks(1))
    who = person(service)
    work = service.lease_next(who)
    with pytest.raises(StoreError, match="no improved responses"):
        judge(service, who, work, edited="better")
    with pytest.raises(StoreError, match="no axis"):
        judge(service, who, work, scores={"polite": {}})


def test_even_the_best_may_be_bad(service):
    service.add_tasks(new_tasks(1))
    who = person(service)
    work = service.lease_next(who)
    for flags in (["x" * 101], ["a\n"], [""], ["a"] * 10):
        with pytest.raises(StoreError, match="a flag is"):
            judge(service, who, work, flags=flags)
    judge(service, who, work, flags=[ALL_BAD])
    assert [record.flags for record in service.judgements()] == [(ALL_BAD,)]
    assert service.own_work(who)[0].answer.flags == (ALL_BAD,)
    assert service.progress().flagged == 0
