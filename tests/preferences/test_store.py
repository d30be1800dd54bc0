"""Opening stores: migrations, versions, and what a failing database tells the user."""

import sqlite3
import subprocess
import sys
from datetime import timedelta

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import JSON, insert, select, text

from plumbline.errors import StoreError
from plumbline.preferences import store as store_module
from plumbline.preferences.account_tables import Base
from plumbline.preferences.adjudication import disputed
from plumbline.preferences.checks import free_checks
from plumbline.preferences.ingest import not_retired
from plumbline.preferences.judgement_stream import task_page
from plumbline.preferences.migrations.programmatic import known_versions
from plumbline.preferences.queue import BELOW, LESS_URGENT, free_tasks
from plumbline.preferences.rules import Rules
from plumbline.preferences.service import PreferenceService
from plumbline.preferences.store import SCHEMA_VERSION, Store
from plumbline.preferences.tables import Annotator, Lease, Project, Task
from plumbline.preferences.turn import Turn, acting
from plumbline.preferences.waiting import kept_from
from tests.preferences.conftest import best_first, new_tasks


def test_migrations_from_nothing_build_the_tables_of_the_models(store):
    with store.write() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, Base.metadata) == []
        assert context.get_current_revision() == SCHEMA_VERSION
    assert max(known_versions()) == SCHEMA_VERSION


def test_people_of_an_older_store_signed_in_at_the_latest_before_their_newest_task(address, clock, monkeypatch):
    monkeypatch.setattr(store_module, "SCHEMA_VERSION", "0005")
    older = Store.open(address)
    with older.write() as connection:
        for row in (
            insert(Project).values(id=1, name="support", judgements_per_task=1),
            insert(Task).values(
                id=1,
                project_id=1,
                key="t",
                prompt_key="p",
                prompt=[],
                responses=[],
                meta={},
                origin="sample",
                wanted=1,
                created_at=clock.now,
            ),
            *(
                insert(Annotator).values(
                    id=one,
                    annotator_id=str(one),
                    name=str(one),
                    name_key=str(one),
                    simulated=False,
                    settings={},
                    created_at=clock.now,
                )
                for one in (1, 2)
            ),
            *(
                insert(Lease).values(
                    lease_id=str(days),
                    project_id=1,
                    task_id=1,
                    annotator_id=1,
                    state="released",
                    shown_order=[0],
                    purpose="work",
                    slot=False,
                    created_at=clock.now + timedelta(days=days),
                    expires_at=clock.now,
                )
                for days in (1, 3, 2)
            ),
        ):
            connection.execute(row)
    older.close()
    monkeypatch.undo()
    newer = Store.open(address)
    with newer.read() as connection:
        seen = connection.execute(select(Annotator.signed_in_at).order_by(Annotator.id)).scalars().all()
    assert seen == [clock.now + timedelta(days=3), None]
    newer.close()


def test_the_package_loads_no_machine_learning_and_no_user_interface():
    program = (
        "import sys, plumbline.preferences.service, plumbline.preferences.importers, plumbline.preferences.exporters, "
        "plumbline.preferences.simulated, plumbline.preferences.snapshot; "
        "print([name for name in ('torch', 'datasets', 'transformers', 'gradio', 'alembic') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_a_store_opens_again_with_what_is_in_it(address):
    first = Store.open(address)
    PreferenceService(first, project="p").sign_in("Anna")
    first.close()
    second = Store.open(address, create=False)
    assert PreferenceService(second, project="p").sign_in("anna").name == "Anna"
    second.close()


def test_a_store_of_a_newer_version_is_refused_and_left_alone(address):
    store = Store.open(address)
    with store.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    store.close()
    with pytest.raises(StoreError, match=rf"newer plumbline \(store version 9999; .* {SCHEMA_VERSION}\)"):
        Store.open(address)


def test_sqlite_is_safe_against_power_failure(file_store):
    with file_store.write() as connection:
        assert connection.execute(text("PRAGMA journal_mode")).scalar() == "wal"
        assert connection.execute(text("PRAGMA synchronous")).scalar() == 2  # FULL
        assert connection.execute(text("PRAGMA foreign_keys")).scalar() == 1


def test_what_is_no_store_is_refused(tmp_path):
    missing = tmp_path / "missing.db"
    with pytest.raises(StoreError, match="there is no preference store"):
        Store.open(missing, create=False)
    assert not missing.exists()
    garbage = tmp_path / "garbage.db"
    garbage.write_bytes(b"not a database at all, but long enough to be read as one" * 40)
    with pytest.raises(StoreError, match="not a readable SQLite database"):
        Store.open(garbage)
    foreign = tmp_path / "foreign.db"
    with sqlite3.connect(foreign) as connection:
        connection.execute("CREATE TABLE songs (title TEXT)")
    with pytest.raises(StoreError, match="database of another program"):
        Store.open(foreign)
    with pytest.raises(StoreError, match="cannot be opened"):
        Store.open(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="folder cannot be made"):
        Store.open(tmp_path / "file" / "x.db")
    with pytest.raises(StoreError, match="SQLite or PostgreSQL, not mysql"):
        Store.open("mysql://host/x")
    with pytest.raises(StoreError, match="in memory would be lost"):
        Store.open("sqlite://")


@pytest.mark.postgres
def test_a_server_that_does_not_answer(tmp_path):
    with pytest.raises(StoreError, match="cannot be reached") as caught:
        Store.open(f"postgresql://me:secret@/x?host={tmp_path}")
    assert "secret" not in str(caught.value)


def test_a_full_disk_loses_nothing_that_was_acknowledged(file_store, file_service):
    file_service.add_tasks(new_tasks(2))
    who = file_service.sign_in("Anna").annotator_id
    work = file_service.lease_next(who)
    file_service.judge(work.lease_id, who, best_first(work), idempotency_key="k")
    with file_store.engine.connect() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
    file_store.engine.dispose()

    @store_module.event.listens_for(file_store.engine, "connect")
    def full(connection, record):
        connection.execute(f"PRAGMA max_page_count = {pages}")

    with pytest.raises(StoreError, match="the disk is full"):
        file_service.add_tasks(new_tasks(2000))
    store_module.event.remove(file_store.engine, "connect", full)
    file_store.engine.dispose()
    assert file_service.progress().by_annotator == {"Anna": 1}
    assert file_service.add_tasks(new_tasks(10)).new == 8


def test_a_store_that_cannot_be_written(file_store, file_service):
    @store_module.event.listens_for(file_store.engine, "checkout")
    def read_only(connection, record, proxy):
        connection.execute("PRAGMA query_only = ON")

    with pytest.raises(StoreError, match="cannot be written"):
        file_service.sign_in("Anna")


def test_a_store_that_another_program_holds(file_store, file_service, monkeypatch):
    file_service.add_tasks(new_tasks(1))
    with file_store.write(), sqlite3.connect(file_store.place, timeout=0.01) as other:
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("BEGIN IMMEDIATE")
        assert other.execute("SELECT count(*) FROM tasks").fetchone() == (1,)  # readers go on
    holder = sqlite3.connect(file_store.place, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    impatient = Store(store_module._engine(file_store.engine.url, file_store.place), file_store.place)

    @store_module.event.listens_for(impatient.engine, "connect")
    def no_patience(connection, record):
        connection.execute("PRAGMA busy_timeout = 1")

    with pytest.raises(StoreError, match="another program has held the store"), impatient.write():
        pass
    holder.close()
    impatient.close()


def test_a_failed_transaction_leaves_nothing(store, service):
    service.add_tasks(new_tasks(1))
    with pytest.raises(RuntimeError), store.write():
        service.sign_in("Anna")
        raise RuntimeError("stop")
    with store.write():
        service.sign_in("Ben")
    assert _names(store) == ["Ben"]


HERE = {"project": 1, "annotator": 1, "deferral": 0, "cursor": 5, "but": 0}


def _names(store):
    with store.read() as connection:
        return list(connection.execute(text("SELECT name FROM annotators")).scalars())


def test_the_queue_the_stream_and_retiring_are_answered_by_indexes(file_store, file_service, clock):
    file_service.sign_in("Anna")
    with file_store.write() as connection:
        turn = Turn(connection, 1, clock())
        queue = _plan(connection, free_tasks(BELOW).params(HERE))
        stream = _plan(connection, task_page(1, ("a", "b")))
        retiring = _plan(connection, not_retired(turn, ["a", "b"]).order_by(Task.id))
    assert any("ix_tasks_open (project_id=? AND deferral=? AND id>?)" in step for step in queue)
    assert any("(task_id=? AND annotator_id=?)" in step for step in queue)
    assert any("ix_tasks_key (project_id=? AND key=?)" in step for step in retiring)
    assert not any("SCAN tasks" in step or "TEMP B-TREE" in step for step in queue)
    assert any("(project_id=? AND (prompt_key,key)>(?,?))" in step for step in stream)
    assert not any("TEMP B-TREE" in step for step in stream)


def test_what_few_tasks_have_is_found_without_looking_at_all(file_store, file_service, clock):
    who = file_service.sign_in("Anna").annotator_id
    with file_store.write() as connection:
        turn = Turn(connection, 1, clock())
        asker = acting(turn, who).id
        reserved = _plan(connection, kept_from(turn, asker))
        disputes = _plan(connection, select(Task.id).where(disputed(turn, Rules(adjudicate_above=0.3))))
        checks = _plan(connection, free_checks(turn, asker))
        work = _plan(connection, free_tasks(LESS_URGENT).params(HERE))
    assert any("ix_tasks_reserved" in step for step in reserved)
    assert any("ix_tasks_disputed (project_id=? AND disagreement>?)" in step for step in disputes)
    assert any("ix_tasks_checks" in step for step in checks)
    assert any("ix_tasks_open (project_id=? AND deferral>?)" in step for step in work)
    assert not any("SCAN tasks" in step for plan in (reserved, disputes, checks, work) for step in plan)
    assert not any("TEMP B-TREE" in step for step in work)


def _plan(connection, query):
    compiled = query.compile(connection.engine, compile_kwargs={"literal_binds": True})
    rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {compiled}")
    return [row.detail for row in rows]


def test_stored_json_that_is_not_strict_is_read_all_the_same(file_store):
    stored = r'{"text": "half a character: \ud800"}'
    with file_store.read() as connection:
        read = connection.execute(text("SELECT :stored AS value").columns(value=JSON), {"stored": stored}).scalar_one()
    assert read == {"text": "half a character: \ud800"}
