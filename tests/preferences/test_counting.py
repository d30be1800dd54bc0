"""The counts beside a task, and an answer with the next task in one transaction."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import event, update

from plumbline.errors import StoreError
from plumbline.preferences import counting, handing
from plumbline.preferences.checks_file import Check
from plumbline.preferences.counting import LiveCounts
from plumbline.preferences.pace import seconds_left
from plumbline.preferences.records import GOLD, Assignment, NoWork
from plumbline.preferences.rules import Rules
from plumbline.preferences.schedule import CHECK
from plumbline.preferences.service import PreferenceService
from plumbline.preferences.tables import Tally
from plumbline.recipe_annotate import ChecksSection
from tests.preferences.conftest import best_first, counts_of, live_counts, new_task, new_tasks


def judge_next(service: PreferenceService, who: str) -> Assignment:
    work = service.lease_next(who)
    assert isinstance(work, Assignment)
    service.judge(work.lease_id, who, best_first(work), idempotency_key=work.lease_id)
    return work


def flag_next(service: PreferenceService, who: str) -> None:
    work = service.lease_next(who)
    assert isinstance(work, Assignment)
    service.flag(work.lease_id, who, kind="other", note="", idempotency_key=work.lease_id)


def count_again(counts: LiveCounts, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on, each question counts all tasks."""
    monkeypatch.setattr(counting, "SECONDS_KEPT", -1.0)
    monkeypatch.setattr(counting, "SHARE", float("inf"))
    monkeypatch.setattr(counts, "_not_before", 0.0)


def test_own_answers_count_at_once_without_counting_the_tasks_again(service, monkeypatch):
    service.set_overlap(2)
    service.add_tasks(new_tasks(6))
    anna, ben = (service.sign_in(name).annotator_id for name in ("Anna", "Ben"))
    counts = live_counts(service)
    assert counts.of(anna)[:3] == (0, 6, 0)
    monkeypatch.setattr(counting, "task_counts", None)  # would be called to count them again
    judge_next(service, anna)
    assert counts.of(anna)[:3] == (1, 5, 0)
    judge_next(service, ben)
    assert counts.of(anna)[:3] == (1, 5, 0)
    again = service.reopen_last(anna)
    service.judge(again.lease_id, anna, best_first(again), idempotency_key="corrected")
    assert counts.of(anna)[:3] == (1, 5, 0)


def test_a_flag_counts_at_once_and_what_others_did_when_the_count_is_old(service, monkeypatch):
    service.add_tasks(new_tasks(6))
    anna, ben = (service.sign_in(name).annotator_id for name in ("Anna", "Ben"))
    counts = live_counts(service)
    assert counts.of(anna)[:3] == (0, 6, 0)
    flag_next(service, ben)
    assert counts.of(anna)[:3] == (0, 5, 0)
    judge_next(service, ben)
    assert counts.of(anna)[:3] == (0, 5, 0)  # the 4 that are left show a little later
    count_again(counts, monkeypatch)
    assert counts.of(anna)[:3] == (0, 4, 20)


def test_the_teams_share_is_of_tasks_alone(service, monkeypatch):
    service.set_overlap(2)
    service.add_tasks(new_tasks(2))
    people = [service.sign_in(name).annotator_id for name in ("Anna", "Ben")]
    counts = live_counts(service)
    for who in people:
        judge_next(service, who)
    with service.turn() as turn:  # as after many checks
        turn.connection.execute(update(Tally).values(judged=Tally.judged + 50))
    count_again(counts, monkeypatch)
    assert counts.of(people[0]).share == 50


def test_no_count_falls_or_stays_with_one_answer_where_there_are_checks(store, clock, monkeypatch):
    due = {3: CHECK, 8: CHECK, 14: CHECK}
    monkeypatch.setattr(handing, "extra_at", lambda rules, project, who, answered: due.get(answered))
    service = PreferenceService(store, project="support", rules=Rules(checks=ChecksSection()), clock=clock)
    service.add_tasks(new_tasks(25))
    service.checks.load([Check(new_task(f"gold {number}"), (1, 2), GOLD) for number in range(3)])
    who = service.sign_in("Anna").annotator_id
    counts = live_counts(service)
    count_again(counts, monkeypatch)
    shown = [counts.of(who)[:3]]
    work = 0
    while work < 25:
        work += not judge_next(service, who).prompt[0]["content"].startswith("gold")
        shown.append(counts.of(who)[:3])
    assert [mine for mine, _, _ in shown] == list(range(29))
    for judged in 4, 9, 15:  # after a check, nothing has moved, as after most answers
        assert shown[judged][1:] == shown[judged - 1][1:]
    steps = [(left, share) for _, left, share in shown]
    assert list(dict.fromkeys(steps)) == [(30, 0), (20, 0), (20, 50), (10, 50), (0, 100)]


def test_what_is_left_is_never_more_than_the_quota(store, clock):
    service = PreferenceService(store, project="support", rules=Rules(checks=ChecksSection()), clock=clock)
    service.add_tasks(new_tasks(25))
    who = service.sign_in("Anna").annotator_id
    service.control.set_quota(who, 4)
    judge_next(service, who)
    assert counts_of(service, who) == (1, 3)
    service.control.set_quota(who, 0)
    assert counts_of(service, who) == (1, 0)


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


def test_the_time_that_is_left_counts_on_what_others_do_of_late(service, clock, monkeypatch):
    service.add_tasks(new_tasks(100))
    anna, ben, cem = (service.sign_in(name).annotator_id for name in ("Anna", "Ben", "Cem"))

    def work_on(*people: str) -> None:
        for _ in range(10):
            clock.advance(1)
            for who in people:
                work = service.lease_next(who)
                service.judge(work.lease_id, who, best_first(work), idempotency_key=work.lease_id, seconds=60.0)

    counts = live_counts(service)
    assert counts.of(anna).seconds_left is None
    work_on(anna)
    count_again(counts, monkeypatch)
    monkeypatch.setattr(counting, "TEAM_KEPT", -1.0)
    assert counts.of(anna).seconds_left == 90 * 60
    clock.advance(2 * 60)
    work_on(anna, ben, cem)
    clock.advance(1)
    left = counts.of(anna)
    assert left.remaining == 60
    assert left.seconds_left == pytest.approx(60 / (1 / 60 + 20 / 600))
    clock.advance(2 * 60)
    assert counts.of(anna).seconds_left == 60 * 60, "they have stopped"


def test_nobody_is_told_a_longer_time_than_their_own_tasks_take():
    assert seconds_left(60.0, 10, 1000, 0.0) == 600
    assert seconds_left(60.0, 10, 4, 1 / 60) == 120
    assert seconds_left(60.0, 10, -1, 0.0) == 0
