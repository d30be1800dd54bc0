"""News of judgements: each once, whatever was removed, corrected, imported or committed late meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from sqlalchemy import delete, select

from plumbline.preferences.account_tables import AuditEntry
from plumbline.preferences.erasure import erase
from plumbline.preferences.judgement_news import AT_ONCE, Cursor, News, news_after
from plumbline.preferences.records import NewJudgement
from plumbline.preferences.service import PreferenceService
from plumbline.preferences.store import Store
from plumbline.preferences.tables import Answer
from tests.preferences.conftest import best_first, new_task, new_tasks


def read(service: PreferenceService, after: Cursor | str = "0", limit: int = 10_000) -> list[News]:
    cursor = Cursor.of(str(after))
    assert cursor is not None
    with service.look() as turn:
        return news_after(turn, cursor, limit)


def told(service: PreferenceService, news: list[News]) -> list[str]:
    """The ids of the answers that news are of."""
    with service.look() as turn:
        ids = dict(turn.connection.execute(select(Answer.id, Answer.answer_id)).tuples().all())
    return [ids[one.cursor.row] for one in news]


def pages(service: PreferenceService, limit: int) -> Iterator[News]:
    cursor = Cursor(0, 0)
    while page := read(service, cursor, limit):
        yield from page
        cursor = page[-1].cursor


def judge(service: PreferenceService, name: str, times: int = 1) -> list[str]:
    who = service.sign_in(name).annotator_id
    given = []
    for _ in range(times):
        work = service.lease_next(who)
        given.append(service.judge(work.lease_id, who, best_first(work), idempotency_key=work.lease_id))
    return given


def imported(name: str, annotator: str) -> NewJudgement:
    return NewJudgement(new_task(name, origin="import:hh"), (1, 2), annotator, f"key of {name}")


def test_what_comes_after_a_removal_is_news_though_its_row_ids_come_again(service: PreferenceService) -> None:
    service.add_tasks(new_tasks(3))
    ada, bob = judge(service, "Ada", 1), judge(service, "Bob", 2)
    before = read(service)
    assert told(service, before) == ada + bob
    erase(service.store, "Bob", remove_judgements=True)
    cleo = judge(service, "Cleo", 2)
    assert told(service, read(service, before[-1].cursor)) == cleo
    assert told(service, read(service)) == ada + cleo


@pytest.mark.postgres
@pytest.mark.parametrize("address", ["postgresql"], indirect=True)
def test_what_is_committed_late_is_passed_over_by_nobody(service: PreferenceService) -> None:
    service.add_tasks(new_tasks(1))
    ada = service.sign_in("Ada").annotator_id
    judged, read_before = threading.Event(), threading.Event()
    late = []

    def judge_slowly() -> None:
        with service.turn():
            work = service.lease_next(ada)
            late.append(service.judge(work.lease_id, ada, best_first(work), idempotency_key="k"))
            judged.set()
            assert read_before.wait(30)

    slow = threading.Thread(target=judge_slowly)
    slow.start()
    assert judged.wait(30)
    service.take([imported("vote", "hh")])
    first = read(service)
    read_before.set()
    slow.join()
    assert len(first) == 1
    then = read(service, first[-1].cursor)
    assert told(service, then) == late
    assert then[0].cursor.row < first[0].cursor.row


def test_a_judgement_that_is_taken_back_is_withdrawn_and_the_next_one_supersedes_it(
    service: PreferenceService,
) -> None:
    service.add_tasks(new_tasks(1))
    (first,) = judge(service, "Ada")
    ada = service.sign_in("Ada").annotator_id

    lease = service.reopen_last(ada).lease_id
    service.skip(lease, ada, reason="cannot-judge", idempotency_key="a skip")
    lease = service.reopen_last(ada).lease_id
    service.flag(lease, ada, kind="other", note="odd", idempotency_key="a flag")
    work = service.reopen_last(ada)
    second = service.judge(work.lease_id, ada, best_first(work), idempotency_key="second")
    work = service.reopen_last(ada)
    service.judge(work.lease_id, ada, best_first(work), idempotency_key="third")
    news = [(one.withdrawn, one.supersedes) for one in read(service)]
    assert news == [(False, None), (True, first), (False, first), (False, second)]


def test_pages_of_any_size_have_the_same_news_of_imports_of_several_people(service: PreferenceService) -> None:
    people = ("hh", "Ada Example", "Ben Example")
    service.take([imported(f"vote {number}", people[number % 3]) for number in range(8)])
    service.take([imported("alone", "hh")])
    service.add_tasks(new_tasks(2))
    judge(service, "Ada", 2)
    erase(service.store, "Ben Example", remove_judgements=True)
    everything = read(service)
    assert len(everything) == 8 - 2 + 1 + 2
    assert [list(pages(service, limit)) for limit in (1, 2, 5)] == [everything] * 3


def test_what_was_imported_again_after_its_annotator_was_removed_is_news_once(service: PreferenceService) -> None:
    service.take([imported("vote", "Ben Example")])
    before = read(service)
    erase(service.store, "Ben Example", remove_judgements=True)
    service.take([imported("vote", "Ben Example")])
    (again,) = read(service)
    assert read(service, before[-1].cursor) == [again]


def forget_the_log(store: Store) -> None:
    with store.write() as connection:
        connection.execute(delete(AuditEntry))


def test_answers_older_than_the_log_come_first_and_numbers_alone_are_cursors_too(service: PreferenceService) -> None:
    service.add_tasks(new_tasks(AT_ONCE + 10))
    older = judge(service, "Ada", 2)
    forget_the_log(service.store)
    assert told(service, read(service)) == older
    newer = judge(service, "Ada", 3) + judge(service, "Ben", 2)
    everything = older + newer
    assert told(service, list(pages(service, 2))) == everything
    rows = [one.cursor.row for one in read(service)]
    for number, row in enumerate(rows, 1):
        assert told(service, read(service, f"{row}")) == everything[number:]


def test_an_old_cursor_far_down_a_long_log(file_service: PreferenceService) -> None:
    service = file_service
    service.take([imported(f"vote {number}", "hh") for number in range(3 * AT_ONCE)])
    service.add_tasks(new_tasks(5))
    given = judge(service, "Ada", 5)
    rows = [one.cursor.row for one in read(service)]
    assert told(service, read(service, f"{rows[-4]}")) == given[-3:]
    assert len(read(service, f"{rows[AT_ONCE + 7]}")) == len(rows) - AT_ONCE - 8
    assert read(service, f"{rows[-1]}") == read(service, read(service)[-1].cursor) == []


@pytest.mark.parametrize("written", ["", "-1", "1-", "1-2-3", "x", "١", "2147483648", "1-2147483648", "1\n"])
def test_what_is_no_cursor(written: str) -> None:
    assert Cursor.of(written) is None
