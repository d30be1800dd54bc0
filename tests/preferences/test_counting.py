"""The counts beside a task, and an answer with the next task in one transaction."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import event

from plumbline.errors import StoreError
from plumbline.preferences import counting
from plumbline.preferences.counting import LiveCounts
from plumbline.preferences.pace import Pace
from plumbline.preferences.records import Assignment, NoWork
from plumbline.preferences.service import PreferenceService
from tests.preferences.conftest import best_first, new_tasks


def judge_next(service: PreferenceService, who: str) -> Assignment:
    work = service.lease_next(who)
    assert isinstance(work, Assignment)
    service.judge(work.lease_id, who, best_first(work), idempotency_key=work.lease_id)
    return work


def flag_next(service: PreferenceService, who: str) -> None:
    work = service.lease_next(who)
    assert isinstance(work, Assignment)
    service.flag(work.lease_id, who, kind="other", note="", idempotency_key=work.lease_id)


def live_counts(service: PreferenceService) -> LiveCounts:
    return LiveCounts(service, Pace(service.store, project=service.project, clock=service.clock))


def exactly(service: PreferenceService, who: str) -> tuple[int, int, int, int]:
    team = service.progress()
    return (*service.annotator_progress(who), team.done, team.required)


def test_counts_follow_each_answer_without_counting_the_tasks_again(service, monkeypatch):
    service.set_overlap(2)
    service.add_tasks(new_tasks(6))
    anna, ben = (service.sign_in(name).annotator_id for name in ("Anna", "Ben"))
    counts = live_counts(service)
    assert counts.of(anna)[:4] == exactly(service, anna) == (0, 6, 0, 12)
    monkeypatch.setattr(counting, "progress_of", None)  # would be called to count them again
    judge_next(service, anna)
    assert counts.of(anna)[:4] == exactly(service, anna) == (1, 5, 1, 12)
    judge_next(service, ben)
    assert counts.of(anna)[:4] == exactly(service, anna) == (1, 5, 2, 12)
    again = service.reopen_last(anna)
    service.judge(again.lease_id, anna, best_first(again), idempotency_key="corrected")
    assert counts.of(anna)[:4] == exactly(service, anna) == (1, 5, 2, 12)


def test_a_flag_counts_at_once_and_what_others_finished_when_the_count_is_old(service, monkeypatch):
    service.add_tasks(new_tasks(6))
    anna, ben = (service.sign_in(name).annotator_id for name in ("Anna", "Ben"))
    counts = live_counts(service)
    assert counts.of(anna)[:4] == (0, 6, 0, 6)
    flag_next(service, ben)
    assert counts.of(anna)[:4] == exactly(service, anna) == (0, 5, 0, 5)
    judge_next(service, ben)
    assert counts.of(anna)[:4] == (0, 5, 1, 5)  # the 4 that are left show a little later
    monkeypatch.setattr(counting, "SECONDS_KEPT", 0.0)
    monkeypatch.setattr(counts, "_not_before", 0.0)
    assert counts.of(anna)[:4] == exactly(service, anna) == (0, 4, 1, 5)


@pytest.fixture
def commits(store) -> Iterator[list[int]]:
    seen: list[int] = []

    def count(connection):
        if connection.get_execution_options().get("plumbline_writes"):
            seen.append(1)

    event.listen(store.engine, "commit", count)
    yield seen
    event.remove(store.engine, "commit", count)


def test_an_answer_and_the_next_task_are_one_transaction(service, clock, commits):
    service.add_tasks(new_tasks(3))
    anna = service.sign_in("Anna").annotator_id
    work = service.lease_next(anna)
    commits.clear()
    following = service.then_next(
        anna, lambda: service.judge(work.lease_id, anna, best_first(work), idempotency_key="first")
    )
    assert isinstance(following, Assignment) and following.task_id != work.task_id
    assert len(commits) == 1
    assert service.progress().done == 1


def test_a_refused_answer_hands_out_nothing_and_the_last_answer_says_that_all_is_done(service):
    service.add_tasks(new_tasks(1))
    anna = service.sign_in("Anna").annotator_id
    work = service.lease_next(anna)
    with pytest.raises(StoreError, match="without a rank"):
        service.then_next(anna, lambda: service.judge(work.lease_id, anna, {}, idempotency_key="first"))
    assert service.lease_next(anna).lease_id == work.lease_id
    done = service.then_next(
        anna, lambda: service.judge(work.lease_id, anna, best_first(work), idempotency_key="first")
    )
    assert isinstance(done, NoWork) and "All tasks are judged" in done.reason


def test_leases_that_are_over_are_looked_for_once_a_second(service, clock, commits):
    service.add_tasks(new_tasks(1))
    anna, ben = (service.sign_in(name).annotator_id for name in ("Anna", "Ben"))
    service.lease_next(anna)
    commits.clear()
    service.lease_next(anna)
    assert len(commits) == 1
    clock.advance(minutes=15)
    assert isinstance(service.lease_next(ben), Assignment)
