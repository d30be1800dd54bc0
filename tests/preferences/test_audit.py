"""The audit log: a chain that shows what was changed, and what every answer said."""

import threading

import pytest
from sqlalchemy import delete, select, update

from plumbline.preferences import audit
from plumbline.preferences.account_tables import AuditEntry
from plumbline.preferences.audit_check import verify
from plumbline.preferences.exporters import export_preferences
from plumbline.preferences.importers import import_preferences
from plumbline.preferences.service import PreferenceService
from plumbline.preferences.store import Store
from plumbline.preferences.tables import Answer, Task
from tests.preferences.conftest import best_first, new_tasks


def note(store, clock, action="pause", **fields):
    with store.write() as connection:
        audit.record(connection, at=clock(), project="support", actor=None, action=action, **fields)


def judged(service, number=3, name="Anna", **said):
    """The ids of `number` judgements by one annotator."""
    who = service.sign_in(name).annotator_id
    ids = []
    for _ in range(number):
        work = service.lease_next(who)
        ids.append(service.judge(work.lease_id, who, best_first(work), idempotency_key=work.lease_id, **said))
    return ids


def test_an_untouched_log_holds(store, clock):
    assert verify(store).head == audit.BEGINNING
    for number in range(5):
        note(store, clock, details={"number": number, "text": "ä \u2028"})
    report = verify(store)
    assert (report.entries, report.broken, report.holds) == (5, None, True)
    assert report.head != audit.BEGINNING
    assert verify(store, expected=report.head).holds


@pytest.mark.parametrize(
    ("harm", "number", "word"),
    [
        (lambda c: c.execute(update(AuditEntry).where(AuditEntry.id == 3).values(actor="x")), 3, "changed"),
        (lambda c: c.execute(update(AuditEntry).where(AuditEntry.id == 3).values(details={"n": 9})), 3, "changed"),
        (lambda c: c.execute(delete(AuditEntry).where(AuditEntry.id == 3)), 4, "missing"),
        (lambda c: c.execute(delete(AuditEntry).where(AuditEntry.id == 1)), 2, "missing"),
        (lambda c: _swap(c, 2, 4), 2, "changed"),
        (lambda c: _renumber_without(c, 3), 3, "changed"),
    ],
)
def test_what_was_changed_removed_or_moved_is_named(store, clock, harm, number, word):
    for each in range(5):
        note(store, clock, details={"n": each})
    with store.write() as connection:
        harm(connection)
    report = verify(store)
    assert not report.holds
    assert report.broken.number == number
    assert word in report.broken.what


def _swap(connection, one, other):
    for before, after in ((one, 99), (other, one), (99, other)):
        connection.execute(update(AuditEntry).where(AuditEntry.id == before).values(id=after))


def _renumber_without(connection, number):
    connection.execute(delete(AuditEntry).where(AuditEntry.id == number))
    for later in (number + 1, number + 2):
        connection.execute(update(AuditEntry).where(AuditEntry.id == later).values(id=later - 1))


def test_an_inserted_entry_with_a_right_digest_of_its_own_is_found(store, clock):
    for _ in range(3):
        note(store, clock)
    with store.write() as connection:
        connection.execute(update(AuditEntry).where(AuditEntry.id == 3).values(id=4))
        second = connection.execute(select(AuditEntry.__table__).where(AuditEntry.id == 2)).one()._asdict()
        forged = {**second, "id": 3, "previous": second["digest"], "action": "token"}
        connection.execute(AuditEntry.__table__.insert(), {**forged, "digest": audit.digest_of(forged)})
    assert verify(store).broken.number == 4


def test_a_log_cut_at_its_end_lacks_the_digest_that_was_kept(store, clock):
    for _ in range(3):
        note(store, clock)
    kept = verify(store).head
    note(store, clock)
    assert verify(store, expected=kept).holds
    with store.write() as connection:
        connection.execute(delete(AuditEntry).where(AuditEntry.id >= 3))
    report = verify(store, expected=kept)
    assert report.broken is None
    assert not report.holds


def test_an_undone_transaction_leaves_no_entry(store, clock):
    with pytest.raises(ZeroDivisionError), store.write() as connection:
        audit.record(connection, at=clock(), project=None, actor=None, action="token")
        raise ZeroDivisionError
    note(store, clock)
    assert verify(store).entries == 1
    with store.read() as connection, pytest.raises(RuntimeError, match=r"Store\.write"):
        audit.record(connection, at=clock(), project=None, actor=None, action="token")


def test_several_writers_make_one_chain(address, clock):
    Store.open(address).close()
    faults = []

    def write():
        try:
            store = Store.open(address)
            for _ in range(20):
                note(store, clock)
            store.close()
        except Exception as error:  # shown below
            faults.append(error)

    threads = [threading.Thread(target=write) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    store = Store.open(address)
    assert (verify(store).entries, verify(store).broken) == (120, None)
    store.close()


def test_answers_are_in_the_log_without_names_or_texts(store, service):
    service.add_tasks(new_tasks(3))
    judged(service, 1, reason="because Anna says so", edited="mine", seconds=3)
    who = service.sign_in("Anna").annotator_id
    service.skip(service.lease_next(who).lease_id, who, reason="dull", idempotency_key="s")
    service.flag(service.lease_next(who).lease_id, who, kind="broken", note="look", idempotency_key="f")
    with store.read() as connection:
        rows = connection.execute(select(AuditEntry.__table__).order_by(AuditEntry.id)).all()
    assert [(row.action, row.actor, row.project) for row in rows] == [
        ("judgement", who, "support"),
        ("skip", who, "support"),
        ("flag", who, "support"),
    ]
    assert not any(word in str(rows) for word in ("Anna", "because", "mine", "dull", "look"))
    assert verify(store, contents=True).answers == 3
    assert verify(store, contents=True).holds


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"ranks": [2, 1]}, "says something else"),
        ({"reason": "other"}, "other words"),
        ({"edited": None}, "other words"),
        ({"seconds": 1.0}, "says something else"),
        ({"guideline_id": None, "purpose": "gold"}, "says something else"),
    ],
)
def test_a_changed_judgement_is_found(store, service, change, what):
    service.add_tasks(new_tasks(3))
    ids = judged(service, 3, reason="why", edited="better", seconds=3)
    with store.write() as connection:
        ranks = connection.execute(select(Answer.ranks).where(Answer.answer_id == ids[1])).scalar_one()
        change = {"ranks": ranks[::-1]} if "ranks" in change else change
        connection.execute(update(Answer).where(Answer.answer_id == ids[1]).values(change))
    assert verify(store).holds
    report = verify(store, contents=True)
    assert not report.holds
    assert [(fault.number, what in fault.what) for fault in report.faults] == [(2, True)]
    assert ids[1] in report.faults[0].what


def test_removed_and_smuggled_judgements_are_found(store, service):
    service.add_tasks(new_tasks(4))
    ids = judged(service, 3)
    with store.write() as connection:
        row = connection.execute(select(Answer.__table__).where(Answer.answer_id == ids[1])).one()._asdict()
        connection.execute(delete(Answer).where(Answer.answer_id == ids[1]))
        forged = {**row, "id": 77, "answer_id": "f" * 32, "lease_id": None}
        connection.execute(Answer.__table__.insert(), forged)
    faults = verify(store, contents=True).faults
    assert [fault.number for fault in faults] == [2, None]
    assert ": gone" in faults[0].what
    assert "f" * 32 in faults[1].what


def test_a_changed_response_is_found(store, service):
    service.add_tasks(new_tasks(1))
    judged(service, 1)
    with store.write() as connection:
        responses = connection.execute(select(Task.responses)).scalar_one()
        responses[0]["text"] = "something that nobody judged"
        connection.execute(update(Task).values(responses=responses))
    assert "task" in verify(store, contents=True).faults[0].what


def test_an_import_is_one_entry_and_its_judgements_are_checked(store, service, tmp_path, address):
    service.add_tasks(new_tasks(6))
    judged(service, 4, name="Anna", reason="why")
    judged(service, 2, name="Ben")
    export_preferences(service, tmp_path / "all.jsonl", format="rankings")
    other = PreferenceService(store, project="other")
    import_preferences(tmp_path / "all.jsonl", other)
    assert verify(store).entries == 8  # six judgements, the export, the import
    report = verify(store, contents=True)
    assert (report.answers, report.faults) == (12, [])
    with store.write() as connection:
        last = connection.execute(select(Answer.id).order_by(Answer.id.desc()).limit(1)).scalar_one()
        connection.execute(update(Answer).where(Answer.id == last).values(ranks=[1, 1]))
    report = verify(store, contents=True)
    assert [fault.number for fault in report.faults] == [8]


def test_answers_of_one_transaction_are_one_entry(store, service):
    service.add_tasks(new_tasks(3))
    with store.write():
        judged(service, 3)
    report = verify(store, contents=True)
    assert (report.entries, report.answers, report.holds) == (1, 3, True)


def test_answers_from_before_the_log_are_counted_and_are_no_fault(store, service):
    service.add_tasks(new_tasks(3))
    judged(service, 1)
    with store.write() as connection:
        connection.execute(delete(AuditEntry))
    judged(service, 1)
    report = verify(store, contents=True)
    assert (report.answers, report.before_the_log, report.holds) == (1, 1, True)


def test_answers_that_no_entry_tells_of_are_found_where_the_log_has_no_others(store, service, clock):
    service.add_tasks(new_tasks(2))
    judged(service, 1)
    with store.write() as connection:
        connection.execute(delete(AuditEntry))
    clock.advance(1)
    note(store, clock)
    with store.write() as connection:
        audited = judged(service, 1)
        connection.info[audit.PENDING].answers.clear()  # as if it had been put there past plumbline
    report = verify(store, contents=True)
    assert (report.answers, report.before_the_log, report.differing) == (0, 1, 1)
    assert audited[0] in report.faults[0].what


def test_numbers_as_ranges():
    assert audit.ranges_of([]) == []
    assert audit.ranges_of([1, 2, 3, 7, 9, 10]) == [[1, 3], [7, 7], [9, 10]]


def test_what_a_lead_does_is_in_the_log(store, service):
    service.add_tasks(new_tasks(2))
    anna, lea = (service.sign_in(name).annotator_id for name in ("Anna", "Lea"))
    work = service.lease_next(anna)
    token = audit.ACTOR.set(lea)
    service.guidelines.publish("Be fair.")
    service.control.set_priorities({work.task_id: 3})
    service.control.pause(anna, "Anna needs a rest")
    service.control.resume(anna)
    service.control.release(work.lease_id)
    audit.ACTOR.reset(token)
    with store.read() as connection:
        rows = connection.execute(select(AuditEntry.__table__).order_by(AuditEntry.id)).all()
    assert [(row.action, row.subject, row.details) for row in rows] == [
        ("guideline", None, {"version": 1}),
        ("priorities", None, {"tasks": 1}),
        ("paused", anna, None),
        ("resumed", anna, None),
        ("taken back", work.lease_id, None),
    ]
    assert {row.actor for row in rows} == {lea}
    assert "rest" not in str(rows)
    assert verify(store).holds
