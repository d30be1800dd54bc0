"""Guessing passwords, on both databases: who is blocked, for how long, and who is not."""

from __future__ import annotations

import contextlib
import threading
from datetime import timedelta

import pytest
from sqlalchemy import select

from plumbline.errors import StoreError
from plumbline.preferences.account_tables import Throttle
from plumbline.preferences.accounts import Accounts, WrongPassword
from plumbline.preferences.store import Store
from plumbline.preferences.throttle import TooManyAttempts, count_request, sources_of
from tests.cheap_passwords import PASSWORD
from tests.preferences.conftest import ELSEWHERE, HERE, Clock, Visitor, rows_of


def test_400_wrong_passwords_are_blocked_after_the_fifth(accounts: Accounts, visitor: Visitor) -> None:
    accounts.create("Ada", password=PASSWORD)
    visitor.fail(5)
    blocked = 0
    for _ in range(395):
        with pytest.raises(TooManyAttempts) as refused:
            visitor.sign_in(password="wrong")
        blocked += 1
    assert blocked == 395
    assert "wait 5 s," in str(refused.value)


def test_the_right_password_waits_too_and_then_starts_afresh(
    accounts: Accounts, visitor: Visitor, clock: Clock
) -> None:
    accounts.create("Ada", password=PASSWORD)
    visitor.fail(5)
    with pytest.raises(TooManyAttempts):
        visitor.sign_in()
    clock.now += timedelta(seconds=5)
    visitor.sign_in()
    visitor.fail(5)  # five more are looked at


def test_the_wait_doubles_up_to_a_quarter_of_an_hour(accounts: Accounts, visitor: Visitor, clock: Clock) -> None:
    accounts.create("Ada", password=PASSWORD)
    visitor.fail(4)
    waits = []
    for number in range(10):
        visitor.fail(1, address=f"203.0.113.{number}")
        with pytest.raises(TooManyAttempts) as refused:
            visitor.sign_in()
        waits.append(refused.value.wait.total_seconds())
        clock.now += refused.value.wait
    assert waits == [5, 10, 20, 40, 80, 160, 320, 640, 900, 900]


def test_one_name_s_failures_do_not_block_another(accounts: Accounts, visitor: Visitor) -> None:
    accounts.create("Ada", password=PASSWORD)
    accounts.create("Bea", password=PASSWORD)
    visitor.fail(5, name="ada")
    with pytest.raises(TooManyAttempts):
        visitor.sign_in("  ADA ", address=ELSEWHERE)
    visitor.sign_in("Bea")


def test_an_address_that_tries_many_names_is_blocked(accounts: Accounts, visitor: Visitor) -> None:
    accounts.create("Ada", password=PASSWORD)
    for number in range(20):
        visitor.fail(1, name=f"name {number}")
    with pytest.raises(TooManyAttempts):
        visitor.sign_in()
    visitor.sign_in(address=ELSEWHERE)


def test_an_own_account_does_not_clear_the_address(accounts: Accounts, visitor: Visitor) -> None:
    """Else whoever has one could sign in between guesses, and guess for ever."""
    accounts.create("Mallory", password=PASSWORD)
    for number in range(19):
        visitor.fail(1, name=f"name {number}")
        visitor.sign_in("Mallory")
    visitor.fail(1, name="name 19")
    with pytest.raises(TooManyAttempts):
        visitor.sign_in("Mallory")


def test_who_signs_in_blocks_nobody_else_and_keeps_no_failure_counted(
    accounts: Accounts, visitor: Visitor, clock: Clock
) -> None:
    """Behind one address sits an office."""
    for name in ("Ada", "Bea"):
        accounts.create(name, password=PASSWORD)
    for number in range(26):
        with contextlib.suppress(TooManyAttempts):
            visitor.fail(1, name=f"name {number}")
        clock.advance(minutes=15)
    visitor.sign_in("Ada")
    visitor.sign_in("Bea")
    clock.advance(minutes=40)
    visitor.sign_in("Ada")
    clock.advance(minutes=10)  # an hour after the last failure, ten minutes after the last sign-in
    visitor.fail(1, name="name 27")
    visitor.sign_in("Bea")


def test_guesses_at_the_same_moment_count_like_guesses_in_a_row(accounts: Accounts, visitor: Visitor) -> None:
    accounts.create("Ada", password=PASSWORD)
    looked_at: list[bool] = []
    start = threading.Barrier(16)

    def guess() -> None:
        start.wait()
        try:
            visitor.sign_in(password="wrong")
        except StoreError as fault:
            looked_at.append(isinstance(fault, WrongPassword))

    threads = [threading.Thread(target=guess) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (looked_at.count(True), len(looked_at)) == (5, 16)


def test_old_failures_are_forgotten_and_their_rows_cleaned(
    accounts: Accounts, visitor: Visitor, clock: Clock, store: Store
) -> None:
    accounts.create("Ada", password=PASSWORD)
    visitor.fail(4)
    visitor.fail(1, name="somebody", address=ELSEWHERE)
    clock.advance(minutes=60)
    visitor.fail(4)
    visitor.fail(1)
    assert rows_of(store, Throttle) == 2


def test_failures_are_kept_without_names_and_addresses(visitor: Visitor, store: Store) -> None:
    visitor.fail(1, name="hunter2 typed into the wrong field")
    with store.read() as connection:
        kept = str(connection.execute(select(Throttle.__table__)).all())
    assert "hunter2" not in kept
    assert HERE not in kept


def test_a_customer_s_ipv6_network_is_one_address() -> None:
    def key(address: str) -> str:
        return sources_of("Ada", address)[1].key

    assert key("2001:db8:1:2::1") == key("2001:db8:1:2:ffff::9")
    assert key("2001:db8:1:2::1") != key("2001:db8:1:3::1")
    assert key("::ffff:192.0.2.1") == key("192.0.2.1")


def test_requests_are_counted_in_all_processes_together(store: Store, address: str, clock: Clock) -> None:
    other = Store.open(address)  # another server process has its own

    def ask(at: Store, key: str = "token:1") -> float:
        with at.write() as connection:
            return count_request(connection, key, clock(), per_minute=60, burst=3).total_seconds()

    assert [ask(at) for at in (store, other, store, other, store)] == [0, 0, 0, 1, 1]
    assert ask(other, "token:2") == 0
    clock.advance(1 / 60)
    assert [ask(other), ask(store)] == [0, 1]
    clock.advance(120)
    assert [ask(at) for at in (store, other, store, other)] == [0, 0, 0, 1]
    other.close()
