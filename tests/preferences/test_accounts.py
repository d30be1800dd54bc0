"""Accounts and sessions, on both databases: who gets in, who does not, and what ends a session."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func, select, update

from plumbline.errors import StoreError
from plumbline.preferences.account_tables import Account as AccountRow
from plumbline.preferences.account_tables import LoginSession, Throttle
from plumbline.preferences.accounts import ADMIN, ANNOTATOR, LEAD, Accounts, WrongPassword
from plumbline.preferences.login_sessions import LoginSessions
from plumbline.preferences.passwords import Passwords
from plumbline.preferences.records import Assignment
from plumbline.preferences.service import PreferenceService
from plumbline.preferences.store import Store
from plumbline.preferences.tables import Annotator
from plumbline.preferences.throttle import TooManyAttempts, sources_of
from tests.cheap_passwords import PASSWORD, cheap_passwords
from tests.preferences.conftest import Clock, new_tasks

OTHER = "nine green lanterns"
HERE, ELSEWHERE = "192.0.2.1", "198.51.100.7"


@pytest.fixture
def accounts(store: Store, clock: Clock) -> Accounts:
    return Accounts(store, clock=clock, passwords=cheap_passwords())


@pytest.fixture
def sessions(store: Store, clock: Clock) -> LoginSessions:
    return LoginSessions(store, accounts=True, clock=clock)


class Visitor:
    """Tries passwords from one address."""

    def __init__(self, accounts: Accounts, sessions: LoginSessions) -> None:
        self.accounts, self.sessions = accounts, sessions

    def sign_in(self, name: str = "Ada", password: str = PASSWORD, address: str = HERE) -> str:
        return self.accounts.sign_in(name, password, address=address, sessions=self.sessions)[1]

    def fail(self, times: int, name: str = "Ada", address: str = HERE) -> None:
        for _ in range(times):
            with pytest.raises(WrongPassword):
                self.sign_in(name, "wrong", address)


@pytest.fixture
def visitor(accounts: Accounts, sessions: LoginSessions) -> Visitor:
    return Visitor(accounts, sessions)


# -- accounts ----------------------------------------------------------------------------------------------------


def test_the_right_password_gives_a_session_with_the_role(
    accounts: Accounts, visitor: Visitor, sessions: LoginSessions
) -> None:
    made = accounts.create("Ada", LEAD, password=PASSWORD)
    found = sessions.read(visitor.sign_in(" ada "))
    assert found is not None
    assert (found.annotator_id, found.name, found.role, found.one_time) == (made.annotator_id, "Ada", "lead", False)


def test_what_is_wrong_is_not_told(accounts: Accounts, visitor: Visitor) -> None:
    accounts.create("Ada", password=PASSWORD)
    accounts.create("Closed", password=PASSWORD)
    accounts.deactivate(accounts.named("Closed").annotator_id)
    accounts.create("None yet")
    told = set()
    for name, password in (("Ada", "wrong"), ("Nobody", PASSWORD), ("Closed", PASSWORD), ("None yet", ""), ("", "")):
        with pytest.raises(WrongPassword) as refused:
            visitor.sign_in(name, password)
        told.add(str(refused.value))
    assert len(told) == 1


@pytest.mark.parametrize("name", ["Nobody", "", "x\0y", "\ud800", "n" * 5000, "Closed", "None yet"])
def test_a_hash_is_verified_whoever_asks(accounts: Accounts, visitor: Visitor, monkeypatch: Any, name: str) -> None:
    """So that the time does not tell which names there are: the work is the same, whatever the clock shows."""
    accounts.create("Closed", password=PASSWORD)
    accounts.deactivate(accounts.named("Closed").annotator_id)
    accounts.create("None yet")
    verified: list[str] = []
    whole = accounts.passwords._hasher.verify

    class Watched:
        def verify(self, kept: str, given: str) -> bool:
            verified.append(kept.rsplit("$", 2)[0])
            return whole(kept, given)

    cost = accounts.passwords.hash("any").rsplit("$", 2)[0]
    assert accounts.passwords._nobodys
    monkeypatch.setattr(accounts.passwords, "_hasher", Watched())
    with pytest.raises(WrongPassword):
        visitor.sign_in(name, "wrong")
    assert verified == [cost]


def test_accounts_are_listed_without_hashes(accounts: Accounts) -> None:
    accounts.create("Bea", ADMIN, password=PASSWORD)
    accounts.create("Ada")
    assert [(one.name, one.role, one.password) for one in accounts.all()] == [
        ("Ada", "annotator", "none"),
        ("Bea", "admin", "own"),
    ]
    assert "argon2" not in str(accounts.all())


def test_an_account_takes_over_the_name_s_earlier_judgements(accounts: Accounts, service: PreferenceService) -> None:
    earlier = service.sign_in("Ada")
    assert accounts.create("ADA").annotator_id == earlier.annotator_id


def test_faulty_accounts_are_refused(accounts: Accounts, service: PreferenceService) -> None:
    accounts.create("Ada")
    service.sign_in("robot", simulated=True)
    for name, role, password in (
        ("ada", ANNOTATOR, None),
        ("Bea", "owner", None),
        ("Bea", ANNOTATOR, "short"),
        ("robot", ANNOTATOR, None),
        ("file:Ada", ANNOTATOR, None),
        ("  ", ANNOTATOR, None),
    ):
        with pytest.raises(StoreError):
            accounts.create(name, role, password=password)
    assert [one.name for one in accounts.all()] == ["Ada"]


def test_an_erased_person_s_pseudonym_gets_no_account(accounts: Accounts, service: PreferenceService) -> None:
    service.sign_in("erased-1")
    with service.turn() as turn:
        turn.connection.execute(update(Annotator).values(erased_at=turn.now))
    with pytest.raises(StoreError, match="erased"):
        accounts.create("erased-1")


def test_a_hash_at_an_older_cost_is_renewed_at_sign_in(
    store: Store, clock: Clock, sessions: LoginSessions, accounts: Accounts
) -> None:
    accounts.create("Ada", password=PASSWORD)
    dearer = Accounts(store, clock=clock, passwords=cheap_passwords(time_cost=2))
    dearer.sign_in("Ada", PASSWORD, address=HERE, sessions=sessions)
    with store.read() as connection:
        assert "t=2" in connection.execute(select(AccountRow.password)).scalar_one()
    Accounts(store, clock=clock, passwords=cheap_passwords()).sign_in("Ada", PASSWORD, address=HERE, sessions=sessions)


def test_the_last_active_admin_stays(accounts: Accounts) -> None:
    ada, bea = accounts.create("Ada", ADMIN), accounts.create("Bea", ADMIN)
    accounts.deactivate(bea.annotator_id)
    for refused in (
        lambda: accounts.deactivate(ada.annotator_id),
        lambda: accounts.set_role(ada.annotator_id, LEAD),
    ):
        with pytest.raises(StoreError, match="Ada is the only active admin"):
            refused()
    accounts.activate(bea.annotator_id)
    accounts.set_role(ada.annotator_id, ANNOTATOR)
    assert [one.role for one in accounts.all()] == ["annotator", "admin"]


def test_two_admins_cannot_take_each_other_away_at_the_same_moment(accounts: Accounts) -> None:
    for _ in range(5):
        for name in ("Ada", "Bea"):
            if name not in [one.name for one in accounts.all()]:
                accounts.create(name, ADMIN)
            accounts.activate(accounts.named(name).annotator_id)
        ids = [one.annotator_id for one in accounts.all()]
        refused: list[str] = []
        start = threading.Barrier(2)

        def remove(annotator_id: str, start: threading.Barrier = start, refused: list[str] = refused) -> None:
            start.wait()
            try:
                accounts.deactivate(annotator_id)
            except StoreError as fault:
                refused.append(str(fault))

        threads = [threading.Thread(target=remove, args=(one,)) for one in ids]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(refused) == 1
        assert sum(one.active for one in accounts.all()) == 1


def test_deactivating_ends_sessions_and_hands_the_task_back(
    accounts: Accounts, visitor: Visitor, sessions: LoginSessions, service: PreferenceService
) -> None:
    service.add_tasks(new_tasks(1))
    ada = accounts.create("Ada", password=PASSWORD)
    token = visitor.sign_in()
    assert isinstance(service.lease_next(ada.annotator_id), Assignment)
    bea = service.sign_in("Bea")
    assert not isinstance(service.lease_next(bea.annotator_id), Assignment)
    accounts.deactivate(ada.annotator_id)
    assert sessions.read(token) is None
    assert isinstance(service.lease_next(bea.annotator_id), Assignment)
    accounts.activate(ada.annotator_id)
    assert sessions.read(token) is None
    visitor.sign_in()


def test_a_role_counts_from_the_next_call_on(accounts: Accounts, visitor: Visitor, sessions: LoginSessions) -> None:
    ada = accounts.create("Ada", LEAD, password=PASSWORD)
    token = visitor.sign_in()
    accounts.set_role(ada.annotator_id, ANNOTATOR)
    found = sessions.read(token)
    assert found is not None
    assert found.role == "annotator"


def test_every_change_is_recorded_in_its_transaction(store: Store, clock: Clock) -> None:
    entries: list[tuple[Any, ...]] = []

    def record(connection: Any, *, project: Any, actor: Any, action: str, subject: Any, details: Any) -> None:
        assert connection.in_transaction()
        entries.append((actor, action, subject, details))

    accounts = Accounts(store, clock=clock, passwords=cheap_passwords(), record=record)
    ada = accounts.create("Ada", ADMIN, by="cli").annotator_id
    accounts.create("Bea", ADMIN)
    accounts.issue_password(ada, by="b")
    accounts.set_password(ada, PASSWORD)
    accounts.set_role(ada, LEAD)
    accounts.deactivate(ada)
    accounts.activate(ada)
    assert [action for _, action, subject, _ in entries if subject == ada] == [
        "account created",
        "password set",
        "password set",
        "role changed",
        "account deactivated",
        "account activated",
    ]
    assert entries[0] == ("cli", "account created", ada, {"role": "admin"})
    assert PASSWORD not in str(entries)
    assert "argon2" not in str(entries)


# -- passwords ---------------------------------------------------------------------------------------------------


def test_a_one_time_password_only_lets_choose_another(
    accounts: Accounts, visitor: Visitor, sessions: LoginSessions
) -> None:
    ada = accounts.create("Ada")
    given = accounts.issue_password(ada.annotator_id)
    found = sessions.read(visitor.sign_in(password=given))
    assert found is not None
    assert found.one_time
    for weak in ("short", "AdaAdaAdaAda", given):
        with pytest.raises(StoreError):
            accounts.change_password(ada.annotator_id, weak, current=None, address=HERE, sessions=sessions)
    token = accounts.change_password(ada.annotator_id, PASSWORD, current=None, address=HERE, sessions=sessions)
    changed = sessions.read(token)
    assert changed is not None
    assert not changed.one_time
    with pytest.raises(WrongPassword):
        visitor.sign_in(password=given)
    # Only the one-time password let them do without the present one.
    with pytest.raises(StoreError, match="present password"):
        accounts.change_password(ada.annotator_id, OTHER, current=None, address=HERE, sessions=sessions)


def test_a_one_time_password_expires(accounts: Accounts, visitor: Visitor, clock: Clock) -> None:
    given = accounts.issue_password(accounts.create("Ada").annotator_id)
    clock.advance(minutes=7 * 24 * 60 + 1)
    with pytest.raises(StoreError, match="expired"):
        visitor.sign_in(password=given)


def test_changing_the_password_ends_all_other_sessions(
    accounts: Accounts, visitor: Visitor, sessions: LoginSessions
) -> None:
    ada = accounts.create("Ada", password=PASSWORD)
    before = [visitor.sign_in(), visitor.sign_in()]
    with pytest.raises(StoreError, match="present password is wrong"):
        accounts.change_password(ada.annotator_id, OTHER, current="wrong", address=HERE, sessions=sessions)
    assert all(sessions.read(token) for token in before)
    after = accounts.change_password(ada.annotator_id, OTHER, current=PASSWORD, address=HERE, sessions=sessions)
    assert [sessions.read(token) for token in before] == [None, None]
    assert sessions.read(after)
    visitor.sign_in(password=OTHER)


def test_a_stolen_session_cannot_guess_the_present_password(accounts: Accounts, sessions: LoginSessions) -> None:
    ada = accounts.create("Ada", password=PASSWORD)
    refused = []
    for _ in range(7):
        with pytest.raises(StoreError) as fault:
            accounts.change_password(ada.annotator_id, OTHER, current="wrong", address=HERE, sessions=sessions)
        refused.append(isinstance(fault.value, TooManyAttempts))
    assert refused == [False] * 5 + [True] * 2


def test_a_password_that_changes_while_it_is_compared_lets_nobody_in(
    accounts: Accounts, visitor: Visitor, monkeypatch: Any, store: Store
) -> None:
    ada = accounts.create("Ada", password=PASSWORD)
    slow = Passwords.match

    def match_late(self: Passwords, kept: str | None, given: str) -> bool:
        found = slow(self, kept, given)
        monkeypatch.setattr(Passwords, "match", slow)
        accounts.set_password(ada.annotator_id, OTHER)
        return found

    monkeypatch.setattr(Passwords, "match", match_late)
    with pytest.raises(WrongPassword):
        visitor.sign_in()
    assert rows_of(store, LoginSession) == 0


# -- sessions ----------------------------------------------------------------------------------------------------


def rows_of(store: Store, table: Any) -> int:
    with store.read() as connection:
        return connection.execute(select(func.count()).select_from(table)).scalar_one()


def test_a_session_survives_a_restart_and_is_known_to_other_processes(
    accounts: Accounts, visitor: Visitor, address: str, clock: Clock
) -> None:
    accounts.create("Ada", password=PASSWORD)
    token = visitor.sign_in()
    other = Store.open(address, create=False)
    try:
        assert LoginSessions(other, accounts=True, clock=clock).read(token)
    finally:
        other.close()


def test_a_session_expires_and_its_row_is_cleaned(
    accounts: Accounts, visitor: Visitor, sessions: LoginSessions, clock: Clock, store: Store
) -> None:
    accounts.create("Ada", password=PASSWORD)
    token = visitor.sign_in()
    clock.advance(minutes=12 * 60 - 1)
    assert sessions.read(token)
    clock.advance(minutes=1)
    assert sessions.read(token) is None
    visitor.sign_in()
    assert rows_of(store, LoginSession) == 1


def test_the_store_holds_no_token(accounts: Accounts, visitor: Visitor, store: Store) -> None:
    accounts.create("Ada", password=PASSWORD)
    token = visitor.sign_in()
    assert len(token) >= 43  # 256 bits in base 64
    with store.read() as connection:
        kept = connection.execute(select(LoginSession.token_digest)).scalar_one()
    assert token not in kept
    assert len(kept) == 64


def test_forged_tokens_and_digests_are_no_sessions(
    accounts: Accounts, visitor: Visitor, sessions: LoginSessions, store: Store
) -> None:
    accounts.create("Ada", password=PASSWORD)
    token = visitor.sign_in()
    with store.read() as connection:
        digest = connection.execute(select(LoginSession.token_digest)).scalar_one()
    for forged in ("", token[:-1], token + "A", token.swapcase(), digest, "\ud800", "'; --", "\0"):
        assert sessions.read(forged) is None
    sessions.end("no token")
    assert sessions.read(token)


def test_sessions_by_name_and_by_password_are_strangers(
    accounts: Accounts, visitor: Visitor, sessions: LoginSessions, store: Store, clock: Clock
) -> None:
    """Who signed in by name alone is not signed in as that account once passwords are asked for."""
    ada = accounts.create("Ada", ADMIN, password=PASSWORD)
    by_name = LoginSessions(store, accounts=False, clock=clock)
    token = by_name.start(ada.annotator_id)
    found = by_name.read(token)
    assert found is not None
    assert found.role == "lead"
    assert sessions.read(token) is None
    assert by_name.read(visitor.sign_in()) is None


def test_ending_one_session_leaves_the_others(accounts: Accounts, visitor: Visitor, sessions: LoginSessions) -> None:
    ada = accounts.create("Ada", password=PASSWORD)
    first, second = visitor.sign_in(), visitor.sign_in()
    sessions.end(first)
    assert sessions.read(first) is None
    assert sessions.read(second)
    sessions.end_all(ada.annotator_id)
    assert sessions.read(second) is None


def test_an_erased_person_is_signed_out(
    accounts: Accounts, visitor: Visitor, sessions: LoginSessions, store: Store, clock: Clock
) -> None:
    accounts.create("Ada", password=PASSWORD)
    token = visitor.sign_in()
    with store.write() as connection:
        connection.execute(update(Annotator).values(erased_at=clock()))
    assert sessions.read(token) is None
    with pytest.raises(WrongPassword):
        visitor.sign_in()


# -- guessing ----------------------------------------------------------------------------------------------------


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
