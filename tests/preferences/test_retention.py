"""Retention: names of people who are gone, and records that say nothing any more; judgements are never deleted."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import insert, select, text

from plumbline.preferences.account_tables import ApiToken, AuditEntry, Delivery, LoginSession, Throttle
from plumbline.preferences.audit_check import verify
from plumbline.preferences.login_sessions import LoginSessions
from plumbline.preferences.retention import Daily, clear_records, names_due, pseudonymise, what_is_due
from plumbline.preferences.store import Store
from plumbline.preferences.tables import Annotator, Answer, Battle, Draft, Lease, Project, Task
from plumbline.preferences.tokens import Tokens
from plumbline.recipe_privacy import RetentionSection
from tests.cheap_passwords import PASSWORD
from tests.preferences.conftest import best_first, new_tasks, rows_of

DAY = 24 * 60


def answer(service, who, **said):
    work = service.lease_next(who)
    service.judge(work.lease_id, who, best_first(work), idempotency_key=work.lease_id, **said)


def names(people):
    return [person.name for person in people]


def keep(**settings):
    return RetentionSection(**settings)


@pytest.fixture
def by_name(store, clock):
    return LoginSessions(store, accounts=False, clock=clock, lifetime=timedelta(hours=12))


@pytest.fixture
def staffed(service, clock, by_name):
    """Anna worked long ago, Ben signed in since, Cleo works still; a file named Dora, and Robot is simulated."""
    service.set_overlap(3)
    service.add_tasks(new_tasks(6))
    people = {name: service.sign_in(name).annotator_id for name in ("Anna", "Ben", "Cleo")}
    service.sign_in("Dora")  # as an import does: without a session and without a task
    service.sign_in("Robot", simulated=True)
    for who in people.values():
        by_name.start(who)
        answer(service, who, reason="because")
    clock.advance(60 * DAY)
    by_name.start(people["Ben"])
    clock.advance(40 * DAY)
    answer(service, people["Cleo"])
    return people


def test_only_those_who_did_nothing_for_long_lose_their_names(staffed, service, store, clock):
    settings = keep(names_days=50)
    people, spared = names_due(store, settings, clock=clock)
    assert (names(people), spared) == (["Anna"], [])
    assert (clock() - people[0].last_seen).days == 100
    assert names(names_due(store, keep(names_days=30), clock=clock)[0]) == ["Anna", "Ben"]
    assert names(names_due(store, keep(names_days=100), clock=clock)[0]) == []
    before = rows_of(store, Answer)
    erased = pseudonymise(store, people[0], settings, clock=clock)
    assert (erased.name, erased.removed, erased.texts_removed) == ("Anna", False, True)
    assert rows_of(store, Answer) == before
    by_annotator = service.progress().by_annotator
    assert by_annotator == {erased.pseudonym: 1, "Ben": 1, "Cleo": 2}
    assert names_due(store, settings, clock=clock) == ([], [])
    with store.read() as connection:
        entry = connection.execute(select(AuditEntry.__table__).order_by(AuditEntry.id.desc()).limit(1)).one()
    assert (entry.action, entry.subject, entry.details["why"]) == ("erase", erased.annotator_id, "retention")
    assert verify(store, contents=True).holds


def test_texts_are_kept_by_choice(staffed, service, store, clock):
    settings = keep(names_days=50, keep_texts=True)
    pseudonymise(store, names_due(store, settings, clock=clock)[0][0], settings, clock=clock)
    assert [record.reason for record in service.judgements()].count("because") == 3


def test_who_comes_back_before_it_happens_keeps_the_name(staffed, store, clock, by_name):
    settings = keep(names_days=50)
    (anna,), _ = names_due(store, settings, clock=clock)
    by_name.start(staffed["Anna"])
    assert pseudonymise(store, anna, settings, clock=clock) is None
    assert names_due(store, settings, clock=clock) == ([], [])


def test_the_last_admin_stays(accounts, visitor, store, clock):
    for name, role in (("Ada", "admin"), ("Eve", "admin"), ("Lea", "lead")):
        accounts.create(name, role, password=PASSWORD)
    clock.advance(10 * DAY)
    accounts.issue_password(accounts.create("Bob", "admin").annotator_id)  # which expires before it is used
    visitor.sign_in("Eve")
    clock.advance(400 * DAY)
    settings = keep(names_days=365)
    people, spared = names_due(store, settings, clock=clock)
    assert (sorted(names(people)), names(spared)) == (["Ada", "Bob", "Lea"], ["Eve"])
    for person in people:
        assert pseudonymise(store, person, settings, clock=clock) is not None
    assert pseudonymise(store, spared[0], settings, clock=clock) is None
    assert [account.name for account in accounts.all()] == ["Eve"]
    assert names_due(store, settings, clock=clock) == ([], spared)


def test_records_that_are_over_go_and_what_says_something_stays(service, store, clock, by_name):
    service.add_tasks(new_tasks(5))
    who, other = service.sign_in("Anna").annotator_id, service.sign_in("Ben").annotator_id
    by_name.start(who)
    answer(service, who)
    service.skip(service.lease_next(who).lease_id, who, reason="no", idempotency_key="s")
    service.lease_next(other)
    clock.advance(60)
    service.lease_next(who)  # Ben's lease has expired: it says what he left
    Tokens(store, project="support").add("old", days=1)
    with service.turn() as turn:
        annotator, project, task = (
            turn.connection.execute(select(table.id).order_by(table.id).limit(1)).scalar_one()
            for table in (Annotator, Project, Task)
        )
        once = {"project_id": project, "annotator_id": annotator, "created_at": turn.now}
        lease = {"task_id": task, "slot": False, "shown_order": [0, 1], "expires_at": turn.now, "state": "expired"}
        leases = [{**once, **lease, "lease_id": f"gone {number}", "state": "released"} for number in range(3)]
        turn.connection.execute(insert(Lease), leases)
        held = turn.connection.execute(select(Lease.task_id).where(Lease.state == "open")).scalar_one()
        for drafted in (task, held):
            draft = {"task_id": drafted, "annotator_id": annotator, "content": {}, "saved_at": turn.now}
            turn.connection.execute(insert(Draft), {**draft, "purpose": "work"})
        turn.connection.execute(insert(Throttle), {"key": "name:x", "failures": 3, "last_at": turn.now})
        sent = {"project_id": project, "url": "https://example.org", "payload": {}, "created_at": turn.now}
        for event in ("judgement", "progress"):
            turn.connection.execute(insert(Delivery), {**sent, "event": event, "delivery_id": event})
        sides = {"prompt": [], "left": {}, "right": {}}
        for name, vote in (("voted", "left"), ("open", None)):
            turn.connection.execute(insert(Battle), {**once, **sides, "battle_id": name, "vote": vote})
    with store.write() as connection:  # made by the system's clock
        connection.execute(text("UPDATE api_tokens SET expires_at = :at"), {"at": str(clock() + timedelta(days=1))})
    settings = keep(records_days=30)
    clock.advance(29 * DAY)
    assert what_is_due(store, settings, clock=clock).records == {}
    clock.advance(3 * DAY)
    due = {
        "leases without an answer": 3,
        "drafts": 1,
        "sessions": 1,
        "counts of sign-ins and requests": 1,
        "tokens": 1,
        "webhook deliveries": 1,
        "arena turns without a vote": 1,
    }
    assert what_is_due(store, settings, clock=clock).records == due
    answers = rows_of(store, Answer)
    daily = Daily(store, settings, clock=clock)
    daily.once()
    assert what_is_due(store, settings, clock=clock).records == {}
    assert rows_of(store, Answer) == answers
    tables = (Lease, Draft, LoginSession, Throttle, ApiToken, Delivery, Battle)
    assert [rows_of(store, table) for table in tables] == [4, 1, 0, 0, 0, 1, 1]
    with store.read() as connection:
        entry = connection.execute(select(AuditEntry.__table__).order_by(AuditEntry.id.desc()).limit(1)).one()
    assert (entry.action, entry.details) == ("retention", {"days": 30, "records": due})
    daily.once()
    assert clear_records(store, days=30, clock=clock) == {}
    assert verify(store, contents=True).holds
    assert service.lease_next(other).lease_id, "what he left is handed out to him again"


def test_a_store_of_before_counts_whoever_has_an_account_as_signed_in(address, monkeypatch, accounts):
    account = accounts.create("Ada", "admin", password=PASSWORD)
    with accounts.store.write() as connection:
        connection.execute(text("ALTER TABLE annotators DROP COLUMN signed_in_at"))
        connection.execute(text("UPDATE alembic_version SET version_num = '0005'"))
    accounts.store.close()
    again = Store.open(address)
    with again.read() as connection:
        row = connection.execute(select(Annotator.__table__)).one()
    assert row.annotator_id == account.annotator_id and row.signed_in_at is not None
    again.close()


def test_a_sign_in_at_the_same_moment_is_waited_for(staffed, store, clock, by_name):
    settings = keep(names_days=50)
    (anna,), _ = names_due(store, settings, clock=clock)
    begun, go_on = threading.Event(), threading.Event()

    def sign_in():
        with store.write():
            by_name.start(staffed["Anna"])
            begun.set()
            go_on.wait(10)

    with ThreadPoolExecutor(2) as pool:
        signing_in = pool.submit(sign_in)
        assert begun.wait(10)
        retaining = pool.submit(pseudonymise, store, anna, settings, clock=clock)
        with pytest.raises(TimeoutError):
            retaining.result(0.2)
        go_on.set()
        signing_in.result(10)
        assert retaining.result(10) is None
