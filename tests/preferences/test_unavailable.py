"""What the store says while the database is away, and that it goes on by itself afterwards."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from plumbline.errors import StoreConflict, StoreError, StoreUnavailable
from plumbline.preferences.records import Assignment
from plumbline.preferences.service import PreferenceService
from plumbline.preferences.store import Store, _fault
from tests.postgres import control, new_database
from tests.preferences.conftest import best_first, new_tasks


class Reason(Exception):
    """What a driver raises."""

    def __init__(self, text: str, sqlstate: str | None = None) -> None:
        super().__init__(text)
        self.sqlstate = sqlstate


@pytest.mark.parametrize(
    ("reason", "kind", "sentence"),
    [
        (Reason("database or disk is full"), StoreUnavailable, "the disk is full.*free some space"),
        (Reason("could not extend file: No space left on device", "53100"), StoreUnavailable, "the disk is full"),
        (Reason("disk I/O error"), StoreUnavailable, "the disk refuses"),
        (Reason("attempt to write a readonly database"), StoreUnavailable, "cannot be written"),
        (Reason("unable to open database file"), StoreUnavailable, "cannot be opened"),
        (Reason("database is locked"), StoreUnavailable, "another program has held the store"),
        (Reason("the database system is starting up", "57P03"), StoreUnavailable, "cannot be reached"),
        (Reason("terminating connection due to administrator command"), StoreUnavailable, "cannot be reached"),
        (Reason("deadlock detected", "40P01"), StoreConflict, "repeat it"),
        (Reason("could not serialize access due to concurrent update", "40001"), StoreConflict, "repeat it"),
        (Reason("database disk image is malformed"), StoreError, "restore it from a backup"),
    ],
)
def test_a_failure_of_the_database_is_a_sentence(reason: Reason, kind: type[StoreError], sentence: str) -> None:
    fault = _fault(DBAPIError("statement", {}, reason), "preferences.db")  # type: ignore[arg-type]
    assert type(fault) is kind
    with pytest.raises(StoreError, match=sentence):
        raise fault


def test_what_is_no_failure_of_the_database_stays_a_fault_of_ours() -> None:
    assert _fault(DBAPIError("statement", {}, Reason("no such column: x")), "preferences.db") is None  # type: ignore[arg-type]


@pytest.mark.postgres
def test_a_restarted_postgresql_loses_nothing_and_is_used_again_without_a_restart_of_ours(
    postgres_folder: Path,
) -> None:
    store = Store.open(new_database(postgres_folder))
    service = PreferenceService(store, project="support")
    service.add_tasks(new_tasks(4))
    anna = service.sign_in("Anna").annotator_id
    work = service.lease_next(anna)
    assert isinstance(work, Assignment)
    control(postgres_folder, "stop", "--mode=fast")
    try:
        with pytest.raises(StoreUnavailable, match="cannot be reached"):
            service.judge(work.lease_id, anna, best_first(work), idempotency_key="view")
        with pytest.raises(StoreUnavailable, match="cannot be reached"):
            service.progress()
    finally:
        control(postgres_folder, "start")
    service.judge(work.lease_id, anna, best_first(work), idempotency_key="view")
    assert service.progress().done == 1
    control(postgres_folder, "restart", "--mode=fast")  # while the pool holds connections that are dead now
    assert service.progress().done == 1
    store.close()


@pytest.mark.postgres
def test_a_connection_lost_within_a_change_is_told_as_such_and_the_next_change_works(
    postgres_folder: Path,
) -> None:
    store = Store.open(new_database(postgres_folder))
    service = PreferenceService(store, project="support")
    with pytest.raises(StoreUnavailable, match="cannot be reached"), store.write() as connection:
        ours = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
        with store.engine.connect() as other:
            other.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": ours})
        service.sign_in("Anna")
    assert service.sign_in("Anna").name == "Anna"
    store.close()
