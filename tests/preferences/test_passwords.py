"""Which passwords are accepted, how they are kept, and one-time passwords."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plumbline.errors import StoreError
from plumbline.preferences.passwords import COMMONEST, SHORTEST, Passwords, check_password, one_time_password
from tests.cheap_passwords import PASSWORD, cheap_passwords


@pytest.mark.parametrize(
    ("password", "why"),
    [
        ("ninechars", "at least 10"),
        ("", "at least 10"),
        ("x" * 1025, "at most 1,024"),
        ("aaaaaaaaaaaaaaaa", "repeats"),
        ("121212121212", "repeats"),
        ("Password1234", "commonest"),
        ("QWERTYUIOP", "commonest"),
        ("Bartholomew", "is the name"),
        ("bartholomewBARTHOLOMEW", "is the name"),
        ("1Bartholomew2026!", "is the name"),
        ("ｂａｒｔｈｏｌｏｍｅｗ", "is the name"),  # full width: NFKC
        ("seven blue \ud800 kettles", "cannot be read"),
    ],
)
def test_passwords_that_are_quickly_guessed_are_refused(password: str, why: str) -> None:
    with pytest.raises(StoreError, match=why):
        check_password(password, "Bartholomew")


@pytest.mark.parametrize(
    "password", [PASSWORD, "bartholomew's dog", "contraseña larga", "密码密码一二三四五六七八", "x1y2z3w4v5"]
)
def test_others_are_accepted(password: str) -> None:
    check_password(password, "Bartholomew")


def test_a_name_without_letters_refuses_itself_only() -> None:
    check_password("9182736450", "1234567899")
    with pytest.raises(StoreError, match="is the name"):
        check_password("1234567899", "1234567899")


def test_the_list_holds_only_what_the_other_rules_let_through() -> None:
    assert all(len(password) >= SHORTEST and password == password.casefold() for password in COMMONEST)


def test_a_password_is_kept_as_argon2id_and_found_again() -> None:
    passwords = cheap_passwords()
    kept = passwords.hash(PASSWORD)
    assert kept.startswith("$argon2id$")
    assert PASSWORD not in kept
    assert passwords.hash(PASSWORD) != kept  # salted
    assert passwords.match(kept, PASSWORD)
    assert not passwords.match(kept, PASSWORD + " ")


def test_the_cost_is_that_of_rfc_9106() -> None:
    assert Passwords().hash(PASSWORD).startswith("$argon2id$v=19$m=65536,t=3,p=4$")


def test_the_same_password_on_another_keyboard_is_the_same() -> None:
    passwords = cheap_passwords()
    composed, decomposed = "caf\u00e9 au lait, deux", "cafe\u0301 au lait, deux"
    assert passwords.match(passwords.hash(composed), decomposed)


@given(st.text(max_size=1100))
def test_nothing_that_is_typed_breaks_the_comparison(typed: str) -> None:
    passwords = cheap_passwords()
    assert not passwords.match(passwords.hash(PASSWORD), typed) or typed == PASSWORD
    assert not passwords.match(None, typed)
    assert not passwords.match("no hash", typed)


def test_a_hash_at_another_cost_is_outdated() -> None:
    kept = cheap_passwords(time_cost=1).hash(PASSWORD)
    assert not cheap_passwords(time_cost=1).outdated(kept)
    assert cheap_passwords(time_cost=2).outdated(kept)


def test_one_time_passwords_are_long_random_and_pass_the_rules() -> None:
    made = {one_time_password() for _ in range(200)}
    assert len(made) == 200
    for password in made:
        assert len(password.replace("-", "")) == 16
        check_password(password, "Ada")
