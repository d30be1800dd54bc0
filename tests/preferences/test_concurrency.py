"""Many annotators at once, and a killed server: nothing twice, nothing lost, on both databases."""

import os
import random
import signal
import subprocess
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import text

from plumbline.preferences.records import Assignment, NoWork
from plumbline.preferences.service import PreferenceService, now_utc
from plumbline.preferences.store import Store
from tests.preferences.conftest import best_first, new_tasks

OVERLAP = 3


def assert_counts_are_those_of_the_rows(store):
    """The counts that are kept beside the answers equal what the answers say."""
    current = "NOT EXISTS (SELECT 1 FROM answers later WHERE later.supersedes_id = a.id)"
    with store.read() as connection:
        wrong = connection.execute(
            text(
                "SELECT t.id FROM tasks t WHERE t.judged <> (SELECT count(*) FROM answers a WHERE a.task_id = t.id "
                f"AND a.kind = 'judgement' AND {current}) OR t.flagged <> (SELECT count(*) FROM answers a WHERE "
                f"a.task_id = t.id AND a.kind = 'flag' AND {current}) "
                "OR t.taken <> t.judged + (SELECT count(*) FROM leases l WHERE l.task_id = t.id AND l.state = 'open' "
                "AND l.slot) OR (t.wanted > 0 AND t.taken > t.wanted)"
            )
        ).all()
        assert wrong == []
        for kind, column in (("judgement", "judged"), ("skip", "skipped"), ("flag", "flagged")):
            differing = connection.execute(
                text(
                    f"SELECT y.annotator_id FROM tallies y WHERE y.{column} <> (SELECT count(*) FROM answers a WHERE "
                    f"a.annotator_id = y.annotator_id AND a.project_id = y.project_id AND a.kind = '{kind}' "
                    f"AND {current})"
                )
            ).all()
            assert differing == []


def work_through(service, name, problems):
    """Judge, skip, flag, give up, undo and retry at random until nothing is left."""
    rng = random.Random(name)
    try:
        who = service.sign_in(name).annotator_id
        for step in range(10_000):
            work = service.lease_next(who)
            if isinstance(work, NoWork):
                if "hold the remaining" not in work.reason:
                    return
                continue
            action = rng.random()
            if action < 0.1 and step < 20:
                service.release(work.lease_id, who)
            elif action < 0.15 and step < 20:
                service.skip(work.lease_id, who, reason="hard", idempotency_key=work.lease_id)
            elif action < 0.18 and step < 20:
                service.flag(work.lease_id, who, kind="other", note="", idempotency_key=work.lease_id)
            else:
                for _ in range(rng.choice([1, 2])):  # a client that sends twice
                    service.judge(work.lease_id, who, best_first(work), idempotency_key=work.lease_id)
            if action > 0.9 and isinstance(again := service.reopen_last(who), Assignment):
                service.judge(again.lease_id, who, best_first(again), idempotency_key=again.lease_id)
    except Exception as problem:
        problems.append(problem)


def test_threads_racing_for_tasks_never_exceed_the_overlap(store):
    service = PreferenceService(store, project="support")
    service.set_overlap(OVERLAP)
    service.add_tasks(new_tasks(20))
    problems = []
    names = [f"annotator {number}" for number in range(8)]
    threads = [threading.Thread(target=work_through, args=(service, name, problems)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    records = list(service.judgements())
    assert max(Counter(record.task_id for record in records).values()) <= OVERLAP
    assert set(Counter((record.task_id, record.annotator) for record in records).values()) == {1}
    assert service.progress().missing == 0
    assert_counts_are_those_of_the_rows(store)


def test_one_task_asked_for_by_all_at_once_goes_to_as_many_as_wanted(store):
    service = PreferenceService(store, project="support")
    service.set_overlap(2)
    service.add_tasks(new_tasks(1))
    people = [service.sign_in(f"annotator {number}").annotator_id for number in range(12)]
    start = threading.Barrier(len(people))

    def ask(who):
        start.wait()
        return service.lease_next(who)

    with ThreadPoolExecutor(len(people)) as pool:
        given = list(pool.map(ask, people))
    assert sum(isinstance(work, Assignment) for work in given) == 2


def test_one_annotator_in_many_tabs_holds_one_task(store):
    service = PreferenceService(store, project="support")
    service.add_tasks(new_tasks(10))
    who = service.sign_in("Anna").annotator_id
    with ThreadPoolExecutor(8) as pool:
        leases = {work.lease_id for work in pool.map(lambda _: service.lease_next(who), range(16))}
    assert len(leases) == 1


def test_a_submit_sent_many_times_at_once_is_one_row(store):
    service = PreferenceService(store, project="support")
    service.add_tasks(new_tasks(3))
    who = service.sign_in("Anna").annotator_id
    work = service.lease_next(who)

    def send(attempt):
        return service.judge(work.lease_id, who, best_first(work), idempotency_key="view")

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(send, range(16)))) == 1
    assert len(list(service.judgements(include_superseded=True))) == 1


def test_stores_opened_at_once_migrate_once(address):
    start = threading.Barrier(4)

    def open_one(number):
        start.wait()
        store = Store.open(address)
        try:
            return PreferenceService(store, project="support").sign_in("Anna").name
        finally:
            store.close()

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(open_one, range(4))) == ["Anna"] * 4


WRITER = """
import sys, threading
from plumbline.preferences.records import NoWork
from plumbline.preferences.service import PreferenceService
from plumbline.preferences.store import Store
from tests.preferences.conftest import best_first

service = PreferenceService(Store.open(sys.argv[1]), project="support")
lock = threading.Lock()

def annotate(name):
    who = service.sign_in(name).annotator_id
    while not isinstance(work := service.lease_next(who), NoWork):
        judgement_id = service.judge(work.lease_id, who, best_first(work), idempotency_key=work.lease_id)
        with lock:
            print(judgement_id, name, work.lease_id, who, flush=True)

for number in range(6):
    threading.Thread(target=annotate, args=(f"annotator {number}",)).start()
"""


@pytest.mark.parametrize("acknowledged_before_kill", [3, 40])
def test_a_killed_writer_loses_no_acknowledged_judgement(address, acknowledged_before_kill):
    store = Store.open(address)
    service = PreferenceService(store, project="support")
    service.set_overlap(2)
    service.add_tasks(new_tasks(60))
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, address],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": "."},
    )
    lines = [writer.stdout.readline() for _ in range(acknowledged_before_kill)]
    writer.send_signal(signal.SIGKILL)
    lines += writer.stdout.readlines()
    writer.wait()
    acknowledged = [line.split()[0] for line in lines if line.endswith("\n")]
    assert len(acknowledged) >= acknowledged_before_kill
    stored = Counter(record.judgement_id for record in service.judgements(include_superseded=True))
    assert set(acknowledged) <= set(stored) and set(stored.values()) == {1}
    if store.is_sqlite:
        with store.read() as connection:
            assert connection.execute(text("PRAGMA integrity_check")).scalar() == "ok"
    assert_counts_are_those_of_the_rows(store)
    later = PreferenceService(store, project="support", clock=lambda: now_utc() + timedelta(hours=1))
    problems = []
    for name in ("Anna", "Ben", "Cleo", "Dan"):  # what the dead held comes back to others
        work_through(later, name, problems)
    assert problems == []
    assert later.progress().missing == 0
    assert_counts_are_those_of_the_rows(store)
    store.close()
