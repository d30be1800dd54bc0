"""Flags and what a lead decides about them, on both databases."""

from __future__ import annotations

import pytest

from plumbline.errors import StoreError
from plumbline.preferences.flag_decisions import FlagDecisions
from plumbline.preferences.records import Assignment, NoWork
from plumbline.preferences.service import PreferenceService
from plumbline.preferences.store import Store
from tests.preferences.conftest import Clock, best_first, new_tasks


@pytest.fixture
def flags(store: Store, clock: Clock) -> FlagDecisions:
    return FlagDecisions(store, project="support", clock=clock)


def flagged(service: PreferenceService, name: str = "Ada") -> str:
    who = service.sign_in(name).annotator_id
    work = service.lease_next(who)
    assert isinstance(work, Assignment)
    service.flag(work.lease_id, who, kind="broken", note=f"{name} says so", idempotency_key=work.lease_id)
    return work.task_id


def test_flags_wait_with_what_was_said(service: PreferenceService, flags: FlagDecisions) -> None:
    service.add_tasks(new_tasks(2))
    task = flagged(service)
    (waiting,) = flags.waiting()
    assert (waiting.task_id, waiting.judged, len(waiting.responses)) == (task, 0, 2)
    assert [(one.kind, one.note, one.annotator) for one in waiting.flags] == [("broken", "Ada says so", "Ada")]


@pytest.mark.parametrize("other", ["Ben", "Lea"])
def test_a_reopened_task_goes_to_others_and_to_the_lead_but_not_to_who_flagged_it(
    service: PreferenceService, flags: FlagDecisions, other: str
) -> None:
    service.add_tasks(new_tasks(1))
    task = flagged(service)
    ben, lead = (service.sign_in(name).annotator_id for name in (other, "Lea"))
    assert isinstance(service.lease_next(ben), NoWork)
    flags.decide(lead, task, reopen=True)
    assert flags.waiting() == []
    assert list(service.flags()) == []
    assert isinstance(service.lease_next(service.sign_in("Ada").annotator_id), NoWork)
    work = service.lease_next(ben)
    assert isinstance(work, Assignment)
    service.judge(work.lease_id, ben, best_first(work), idempotency_key="k")
    progress = service.progress()
    assert (progress.done, progress.missing, progress.flagged) == (1, 0, 0)


def test_a_task_that_stays_closed_is_no_longer_asked_about(service: PreferenceService, flags: FlagDecisions) -> None:
    service.add_tasks(new_tasks(1))
    task = flagged(service)
    flags.decide(service.sign_in("Lea").annotator_id, task, reopen=False)
    assert flags.waiting() == []
    assert isinstance(service.lease_next(service.sign_in("Ben").annotator_id), NoWork)
    (flag,) = service.flags()
    assert (flag.annotator, flag.kind, flag.note) == ("Lea", "broken", "Ada says so")


@pytest.mark.parametrize("reopen", [True, False])
def test_who_flagged_cannot_undo_what_was_decided(
    service: PreferenceService, flags: FlagDecisions, reopen: bool
) -> None:
    service.add_tasks(new_tasks(1))
    task = flagged(service)
    flags.decide(service.sign_in("Lea").annotator_id, task, reopen=reopen)
    assert service.reopen_last(service.sign_in("Ada").annotator_id) is None


def test_a_decision_is_made_once(service: PreferenceService, flags: FlagDecisions) -> None:
    service.add_tasks(new_tasks(2))
    task = flagged(service)
    lead = service.sign_in("Lea").annotator_id
    flags.decide(lead, task, reopen=False)
    with pytest.raises(StoreError, match="no flag of this task waits"):
        flags.decide(lead, task, reopen=True)
    with pytest.raises(StoreError, match="no flag of this task waits"):
        flags.decide(lead, "0" * 32, reopen=True)


def test_several_flags_of_a_task_are_settled_together(service: PreferenceService, flags: FlagDecisions) -> None:
    service.set_overlap(2)
    service.add_tasks(new_tasks(1))
    ada, ben = (service.sign_in(name).annotator_id for name in ("Ada", "Ben"))
    held = [service.lease_next(who) for who in (ada, ben)]
    for work, who in zip(held, (ada, ben), strict=True):
        assert isinstance(work, Assignment)
        service.flag(work.lease_id, who, kind="other", note="", idempotency_key=who)
    (waiting,) = flags.waiting()
    assert len(waiting.flags) == 2
    flags.decide(service.sign_in("Lea").annotator_id, waiting.task_id, reopen=True)
    assert isinstance(service.lease_next(service.sign_in("Cem").annotator_id), Assignment)
