"""Fifty threads, and several processes, with every rule of the queue in force: k never exceeded, no task twice."""

import json
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter

from sqlalchemy import text

from plumbline.preferences.checks_file import Check
from plumbline.preferences.records import ADJUDICATION, GOLD, REPEAT, WORK, Assignment, NoWork
from plumbline.preferences.rules import Rules
from plumbline.preferences.service import PreferenceService
from plumbline.preferences.store import Store
from plumbline.recipe_annotate import ChecksSection
from tests.preferences.conftest import best_first, new_task, new_tasks

OVERLAP = 3
RULES = Rules(checks=ChecksSection(every=4, repeat_share=0.1, pause_below=0.0), adjudicate_above=0.2)


def made(store):
    return PreferenceService(store, project="support", rules=RULES)


def annotate(service, name, problems):
    """Judge at random, hand back, correct and adjudicate until nothing is left."""
    rng = random.Random(name)
    try:
        who = service.sign_in(name).annotator_id
        for _ in range(2000):
            work = service.lease_next(who)
            if isinstance(work, NoWork):
                if work.kind != "held":
                    break
                time.sleep(0.01)  # asking again at once, all together keep who holds it from a connection
                continue
            if rng.random() < 0.1:
                service.release(work.lease_id, who)
                continue
            service.save_draft(work.lease_id, who, {"by": name})
            ranking = {card.response_id: rng.randint(1, 2) for card in work.cards}
            service.judge(work.lease_id, who, ranking, idempotency_key=work.lease_id)
            if rng.random() < 0.1 and (again := service.reopen_last(who)) is not None:
                service.judge(again.lease_id, who, best_first(again), idempotency_key=again.lease_id)
        while isinstance(case := service.lease_adjudication(who, lead=True), Assignment):
            service.judge(case.lease_id, who, best_first(case), idempotency_key=case.lease_id)
    except Exception as problem:
        problems.append(problem)


def fill(service, tasks):
    service.set_overlap(OVERLAP)
    service.add_tasks(new_tasks(tasks))
    service.checks.load([Check(new_task(f"gold {number}"), (1, 2), GOLD) for number in range(4)])
    ids = [task.task_id for task in service.control.open_tasks()]
    service.control.set_priorities({task: number % 3 for number, task in enumerate(ids)})


def check(service, store, names):
    work = list(service.judgements(purposes=(WORK,)))
    assert set(Counter(record.task_id for record in work).values()) == {OVERLAP}
    for purposes in ((WORK,), (GOLD,), (REPEAT,), (ADJUDICATION,)):
        given = Counter((one.task_id, one.annotator) for one in service.judgements(purposes=purposes))
        assert set(given.values()) <= {1}
    adjudicated = Counter(one.task_id for one in service.judgements(purposes=(ADJUDICATION,)))
    assert set(adjudicated.values()) == {1}
    assert list(service.judgements(purposes=(GOLD,)))
    assert service.progress().missing == 0 and service.control.held() == []
    with store.read() as connection:
        assert connection.execute(text("SELECT count(*) FROM tasks WHERE wanted > 0 AND taken <> judged")).scalar() == 0
        assert connection.execute(text("SELECT count(*) FROM tasks WHERE adjudicated")).scalar() == len(adjudicated)
        assert connection.execute(text("SELECT count(*) FROM drafts")).scalar() == 0
        wrong = (
            "SELECT count(*) FROM tallies y WHERE y.judged <> (SELECT count(*) FROM answers a WHERE a.annotator_id ="
        )
        later = "NOT EXISTS (SELECT 1 FROM answers later WHERE later.supersedes_id = a.id)"
        assert connection.execute(text(f"{wrong} y.annotator_id AND {later})")).scalar() == 0
    assert {one.name for one in service.control.standings()} == set(names)


def test_fifty_threads_at_once(store):
    service, problems = made(store), []
    fill(service, 40)
    names = [f"annotator {number}" for number in range(50)]
    threads = [threading.Thread(target=annotate, args=(service, name, problems)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    check(service, store, names)


WORKER = """
import json, sys
from plumbline.preferences.store import Store
from tests.preferences.test_queue_race import annotate, made

problems = []
store = Store.open(sys.argv[1])
for name in json.loads(sys.argv[2]):
    annotate(made(store), name, problems)
print(problems)
"""


def test_several_processes_at_once(address):
    store = Store.open(address)
    service = made(store)
    fill(service, 12)
    names = [[f"annotator {number}-{one}" for one in range(3)] for number in range(3)]
    environment = {**os.environ, "PYTHONPATH": "."}
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, address, json.dumps(mine)],
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for mine in names
    ]
    assert [worker.communicate()[0] for worker in workers] == ["[]\n"] * 3
    problems = []
    annotate(service, "last", problems)  # what was in others' hands when the last one looked
    assert problems == []
    check(service, store, [*(name for mine in names for name in mine), "last"])
    store.close()
