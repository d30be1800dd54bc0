"""`plumbline users`: accounts on the command line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import plumbline.cli
from plumbline.cli_parts import open_chain
from plumbline.cli_users import need_an_admin
from plumbline.errors import UserError
from plumbline.preferences.accounts import Accounts
from plumbline.preferences.login_sessions import LoginSessions
from plumbline.preferences.store import Store
from tests.cheap_passwords import PASSWORD, cheap_passwords

RECIPE = Path(__file__).parents[2] / "domains/support/recipe.yaml"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr("plumbline.preferences.accounts.Passwords", cheap_passwords)
    monkeypatch.chdir(tmp_path)
    return str(tmp_path / "accounts.db")


def users(store: str, command: str, *arguments: str, typed: str = "") -> Any:
    given = ["users", command, str(RECIPE), *arguments, f"annotate.store={store}"]
    return CliRunner().invoke(plumbline.cli.app, given, input=typed)


def sign_in(store: str, name: str, password: str) -> str:
    opened = Store.open(store, create=False)
    try:
        sessions = LoginSessions(opened, accounts=True)
        accounts = Accounts(opened, passwords=cheap_passwords())
        return accounts.sign_in(name, password, address="192.0.2.1", sessions=sessions)[0].password
    finally:
        opened.close()


def test_accounts_from_making_to_closing(store: str) -> None:
    made = users(store, "add", "Ada", "--role", "admin", typed=f"{PASSWORD}\n{PASSWORD}\n")
    assert made.exit_code == 0, made.output
    assert PASSWORD not in made.output
    assert "Ada has an account (admin)." in made.output
    assert sign_in(store, "Ada", PASSWORD) == "own"

    generated = users(store, "add", "Bob", "--generate").output
    password = re.search(r"asks for another: (\S+)", generated)
    assert password
    assert sign_in(store, "Bob", password[1]) == "one-time"
    assert "Bob: lead" in users(store, "role", "Bob", "lead").output
    listed = users(store, "list").output.splitlines()
    assert listed == ["Ada  admin      own password", "Bob  lead       one-time password"]

    assert "new password" in users(store, "password", "Bob", typed=f"{PASSWORD}\n{PASSWORD}\n").output
    assert sign_in(store, "Bob", PASSWORD) == "own"
    assert "cannot sign in" in users(store, "deactivate", "Bob").output
    with pytest.raises(UserError):
        sign_in(store, "Bob", PASSWORD)
    assert "can sign in again" in users(store, "activate", "bob").output
    assert sign_in(store, "Bob", PASSWORD) == "own"


def test_what_cannot_be_is_one_sentence(store: str) -> None:
    users(store, "add", "Ada", "--role", "admin", "--generate")
    for command, arguments, sentence in (
        ("add", ["ada", "--generate"], "Ada has an account already"),
        ("add", ["Bob", "--role", "owner", "--generate"], "there is no role 'owner'"),
        ("role", ["Ada", "annotator"], "Ada is the only active admin"),
        ("deactivate", ["Nobody"], "there is no account 'Nobody'"),
    ):
        refused = users(store, command, *arguments)
        assert isinstance(refused.exception, UserError)
        assert sentence in str(refused.exception)
    weak = users(store, "password", "Ada", typed="short\nshort\n")
    assert "at least 10 characters" in str(weak.exception)


def test_a_password_is_no_argument(store: str) -> None:
    for command in ("add", "password"):
        assert "--password" not in CliRunner().invoke(plumbline.cli.app, ["users", command, "--help"]).output


def test_a_store_is_made_for_a_new_account_only(store: str) -> None:
    assert "there is no preference store" in str(users(store, "list").exception)
    assert not Path(store).exists()


def test_the_app_asks_for_an_admin_first(store: str, tmp_path: Path) -> None:
    overrides = [f"annotate.store={store}", "annotate.accounts=true"]
    chain = open_chain(RECIPE, overrides, None, tmp_path / "runs", "annotate", create=False)
    with pytest.raises(UserError) as refused:
        need_an_admin(chain)
    command = str(refused.value).splitlines()[-1]
    assert command.startswith(f"  plumbline users add {RECIPE} NAME --run ")
    assert command.endswith("--role admin")
    users(store, "add", "Ada", "--generate")  # an annotator
    with pytest.raises(UserError):
        need_an_admin(chain)
    users(store, "role", "Ada", "admin")
    need_an_admin(chain)
