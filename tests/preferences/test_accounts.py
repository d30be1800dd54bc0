"""Accounts and sessions, on both databases: who gets in, who does not, and what ends a session."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select, update

from plumbline.errors import StoreError
from plumbline.preferences.account_tables import Account as AccountRow
from plumbline.preferences.account_tables import LoginSession
from plumbline.preferences.accounts import ADMIN, ANNOTATOR, LEAD, Accounts, WrongPassword
from plumbline.preferences.login_sessions import LoginSessions
from plumbline.preferences.passwords import Passwords
from plumbline.preferences.records import Assignment
from plumbline.preferences.service import PreferenceService
from plumbline.preferences.store import Store
from plumbline.preferences.tables import Annotator
from plumbline.preferences.throttle import TooManyAttempts
from tests.cheap_passwords import PASSWORD, cheap_passwords
from tests.preferences.conftest import HERE, Clock, Visitor, new_tasks, rows_of

OTHER = "nine green lanterns"


# -- accounts ----------------------------------------------------------------------------------------------------


def test_the_right_password_gives_a_session_with_the_role(
    accounts: Accounts, visitor: Visitor, sessions: LoginSessions
) -> None:
    made = accounts.create("Ada", LEAD, password=PASSWORD)
    found = sessions.read(visitor.sign_in(" ada "))
    assert found is not None
    assert (found.annotator_id, found.name, found.role, found.one_time) == (made.annotator_id, "Ada", "lead", False)


def test_an_account_tells_when_it_was_last_seen(
    accounts: Accounts, visitor: Visitor, store: Store, clock: Clock
) -> None:
    first = clock.now
    ada, ben, _ = (accounts.create(name, password=PASSWORD).annotator_id for name in ("Ada", "Ben", "Cem"))
    service = PreferenceService(store, project="support", clock=clock)
    service.add_tasks(new_tasks(4))
    visitor.sign_in("Ada")
    for minutes, who in ((10, ben), (20, ben), (30, ada)):
        clock.now = first + timedelta(minutes=minutes)
        work = service.lease_next(who)
        assert isinstance(work, Assignment)
        service.skip(work.lease_id, who, reason="unclear", idempotency_key=work.lease_id)
    clock.advance(60)
    seen = {one.name: one.seen_at for one in accounts.all()}
    assert seen == {"Ada": first + timedelta(minutes=30), "Ben": first + timedelta(minutes=20), "Cem": None}
    visitor.sign_in("Ben")
    assert accounts.all()[1].seen_at == clock.now


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
