"""What goes into an answer: one key for one answer, reasons where the rules require them, masks, and lost tasks."""

import pytest

from plumbline.errors import StoreError
from plumbline.preferences.records import ALL_BAD, NewResponse, NewTask
from plumbline.preferences.rules import Rules
from plumbline.preferences.source_names import MASK
from plumbline.recipe_annotate import RubricAxis
from tests.preferences.conftest import best_first, new_tasks
from tests.preferences.test_service import judge, person


def task_of(*texts):
    return NewTask([{"role": "user", "content": "q"}], [NewResponse(text, "a") for text in texts], "support")


def test_a_key_used_again_for_anything_else_is_refused(service):
    """Whatever differs but the time on task; the first answer stands."""
    service.add_tasks(new_tasks(2, 3))
    service.rules = Rules(rubric=(RubricAxis(name="polite", question="Is it polite?"),))
    who = person(service)
    work = service.lease_next(who)
    ids = [card.response_id for card in work.cards]
    said = {
        "ranking": best_first(work),
        "gaps": (1, 2),
        "scores": {"polite": dict.fromkeys(ids, 3)},
        "reason": "weil … 🙂",
        "edited": "better 🙂",
        "flags": (ALL_BAD,),
        "strength": 0.1,
    }

    def send(**changes):
        return service.judge(work.lease_id, who, idempotency_key="view-1", **(said | {"seconds": 3.0} | changes))

    first = send()
    assert send() == send(seconds=9.25) == send(seconds=None) == first
    others = {
        "ranking": dict.fromkeys(ids, 1) | {ids[0]: 2},
        "gaps": (1, 3),
        "scores": {"polite": dict.fromkeys(ids, 2)},
        "reason": "because",
        "edited": "best",
        "flags": (),
        "strength": 0.2,
    }
    for name, other in others.items():
        for change in (other,) if name == "ranking" else (other, () if name in ("gaps", "flags") else None):
            with pytest.raises(StoreError, match="stored before with other contents"):
                send(**{name: change, **({"gaps": (1,)} if name == "ranking" else {})})
    for answer in (
        lambda: service.skip(work.lease_id, who, reason="hard", idempotency_key="view-1"),
        lambda: service.flag(work.lease_id, who, kind="broken", note="", idempotency_key="view-1"),
    ):
        with pytest.raises(StoreError, match="stored before with other contents"):
            answer()
    (record,) = service.judgements(include_superseded=True)
    assert (record.reason, record.edited, record.gaps, record.seconds) == ("weil … 🙂", "better 🙂", (1, 2), 3.0)
    work = service.lease_next(who)
    skipped = service.skip(work.lease_id, who, reason="hard", idempotency_key="view-2")
    assert service.skip(work.lease_id, who, reason="hard", idempotency_key="view-2") == skipped
    with pytest.raises(StoreError, match="stored before with other contents"):
        service.skip(work.lease_id, who, reason="too hard", idempotency_key="view-2")


REQUIRED = {
    "strong": {"gaps": (1, 4)},
    "all_bad": {"flags": (ALL_BAD,)},
    "always": {},
}


@pytest.mark.parametrize("case", REQUIRED)
def test_a_reason_where_the_rules_require_one(file_service, case):
    service, says = file_service, REQUIRED[case]
    service.rules = Rules(require_reason=(case, "adjudication"))
    service.add_tasks(new_tasks(2, 3))
    who = person(service)
    work = service.lease_next(who)
    assert work.asks_reason == (case,)
    for missing in (None, "", " \n\t", "…!", "🙂"):
        with pytest.raises(StoreError, match="say in a few words"):
            judge(service, who, work, reason=missing, **says)
    judged = judge(service, who, work, reason="2", **says)
    service.rules = Rules()
    correction = service.reopen(judged, who)
    service.rules = Rules(require_reason=(case,))  # whoever corrects is asked as well
    with pytest.raises(StoreError, match="say in a few words"):
        judge(service, who, correction, key="again", **says)
    judge(service, who, correction, key="again", reason="längst 好", **says)
    work = service.lease_next(who)
    if says:  # without the case, none is needed; nor for a skip
        judge(service, who, work, gaps=(3, 3))
    else:
        service.skip(work.lease_id, who, reason="hard", idempotency_key="skip")


def test_simulated_annotators_owe_no_reason_and_see_what_is_stored(file_service):
    service = file_service
    service.rules = Rules(require_reason=("always",))
    service.set_overlap(2)
    service.add_tasks([task_of("I am ChatGPT.", "No.")])
    simulated = service.sign_in("sim", simulated=True).annotator_id
    work = service.lease_next(simulated)
    assert {card.text for card in work.cards} == {"I am ChatGPT.", "No."} and not work.masked and not work.asks_reason
    judge(service, simulated, work)
    shown = service.lease_next(person(service))
    assert {card.text for card in shown.cards} == {f"I am {MASK}.", "No."} and shown.masked


def test_what_annotators_see_is_masked_everywhere_and_what_is_stored_is_not(service):
    texts = ("As Qwen, I would say so.", "I am ChatGPT.")
    service.add_tasks([task_of(*texts)])
    who = person(service)
    work = service.lease_next(who)
    masked = {f"As {MASK}, I would say so.", f"I am {MASK}."}
    assert {card.text for card in work.cards} == masked and work.masked
    ranking = {card.response_id: 1 if card.text.startswith("I am") else 2 for card in work.cards}
    with pytest.raises(StoreError, match="stands for a hidden name"):
        judge(service, who, work, ranking=ranking, edited=f"I am {MASK}, and I help.")
    judge(service, who, work, ranking=ranking, edited="I am an assistant, and I help.")
    assert {card.text for card in service.reopen_last(who).cards} == masked
    assert {card.text for card in service.own_work(who)[0].cards} == masked
    (record,) = service.judgements()
    assert {response.text for response in record.responses} == set(texts)
    service.rules = Rules(names=None)
    assert {card.text for card in service.own_work(who)[0].cards} == set(texts)


def test_whoever_loses_a_task_is_told_and_their_draft_is_kept(service, clock):
    service.add_tasks(new_tasks(1))
    who = person(service)
    work = service.lease_next(who)
    assert service.save_draft(work.lease_id, who, {"reason": "first"}) is None
    service.control.release(work.lease_id)
    assert "the lead has taken this task back" in service.save_draft(work.lease_id, who, {"reason": "second"})
    with pytest.raises(StoreError, match="the lead has taken this task back"):
        service.renew(work.lease_id, who)
    work = service.lease_next(who)
    assert work.draft == {"reason": "second"}
    service.release(work.lease_id, who)
    with pytest.raises(StoreError, match="handed this task back"):
        service.renew(work.lease_id, who)
    work = service.lease_next(who)
    clock.advance(16)
    other = service.lease_next(person(service, "Ben"))
    assert "time for this task is over" in service.save_draft(work.lease_id, who, {"reason": "third"})
    service.release(other.lease_id, person(service, "Ben"))
    again = service.lease_next(who)
    judge(service, who, again)
    with pytest.raises(StoreError, match="answered already"):  # a window that was left open brings back no draft
        service.save_draft(work.lease_id, who, {"reason": "fourth"})
    assert service.reopen_last(who).draft is None
