"""`plumbline users`: accounts of the annotation app, on the command line.

A password is never an argument, where other users of the machine would see it: it is asked for, or made by
`--generate` and printed once.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from plumbline.cli_parts import RUNS, Overrides, RecipeFile, RunName, RunsFolder, open_chain
from plumbline.errors import UserError

if TYPE_CHECKING:
    from plumbline.chain import Chain
    from plumbline.preferences.accounts import Account, Accounts

users = typer.Typer(help="Accounts of the annotation app: who may sign in, and in which role.", no_args_is_help=True)

UserName = Annotated[str, typer.Argument(metavar="NAME", help="The name to sign in with.")]
Role = Annotated[
    str, typer.Option("--role", help="annotator (ranks), lead (also quality, exports), admin (also users).")
]
Generate = Annotated[
    bool, typer.Option("--generate", help="Print a one-time password instead of asking for one; it holds 7 days.")
]


@users.command()
def add(
    recipe: RecipeFile,
    name: UserName,
    overrides: Overrides = None,
    role: Role = "annotator",
    generate: Generate = False,
    run: RunName = None,
    runs: RunsFolder = RUNS,
) -> None:
    """Make an account, with a password that you are asked for or a one-time one."""
    with _accounts(recipe, overrides, run, runs, create=True) as accounts:
        password = None if generate else _asked(name)
        account = accounts.create(name, role, password=password)
        typer.echo(f"{account.name} has an account ({account.role}).")
        if generate:
            _print_one_time(accounts, account)


@users.command("list")
def list_(recipe: RecipeFile, overrides: Overrides = None, run: RunName = None, runs: RunsFolder = RUNS) -> None:
    """Print all accounts: name, role, how they sign in."""
    with _accounts(recipe, overrides, run, runs) as accounts:
        found = accounts.all()
    width = max((len(account.name) for account in found), default=0)
    for account in found:
        state = f"{account.password} password" if account.active else "deactivated"
        typer.echo(f"{account.name:<{width}}  {account.role:<9}  {state}")
    if not found:
        typer.echo("There are no accounts yet.")


@users.command("role")
def role_(
    recipe: RecipeFile,
    name: UserName,
    role: Annotated[str, typer.Argument(metavar="ROLE", help="annotator, lead or admin.")],
    overrides: Overrides = None,
    run: RunName = None,
    runs: RunsFolder = RUNS,
) -> None:
    """Change the role of an account; it counts from the next click on."""
    with _accounts(recipe, overrides, run, runs) as accounts:
        account = accounts.named(name)
        accounts.set_role(account.annotator_id, role)
    typer.echo(f"{account.name}: {role}")


@users.command()
def password(
    recipe: RecipeFile,
    name: UserName,
    overrides: Overrides = None,
    generate: Generate = False,
    run: RunName = None,
    runs: RunsFolder = RUNS,
) -> None:
    """Set the password of an account; it is signed out everywhere."""
    with _accounts(recipe, overrides, run, runs) as accounts:
        account = accounts.named(name)
        if generate:
            _print_one_time(accounts, account)
        else:
            accounts.set_password(account.annotator_id, _asked(account.name))
            typer.echo(f"{account.name} has a new password and is signed out everywhere.")


@users.command()
def deactivate(
    recipe: RecipeFile, name: UserName, overrides: Overrides = None, run: RunName = None, runs: RunsFolder = RUNS
) -> None:
    """Close an account: signed out, the task in its hands goes back; what it judged stays."""
    with _accounts(recipe, overrides, run, runs) as accounts:
        account = accounts.named(name)
        accounts.deactivate(account.annotator_id)
    typer.echo(f"{account.name} cannot sign in any more.")


@users.command()
def activate(
    recipe: RecipeFile, name: UserName, overrides: Overrides = None, run: RunName = None, runs: RunsFolder = RUNS
) -> None:
    """Open a deactivated account again."""
    with _accounts(recipe, overrides, run, runs) as accounts:
        account = accounts.named(name)
        accounts.activate(account.annotator_id)
    typer.echo(f"{account.name} can sign in again.")


def need_an_admin(chain: Chain) -> None:
    """Refuse to open the app with accounts while nobody could sign in as an admin.

    Raises:
        UserError: with the command that makes one.
    """
    if not chain.recipe.annotate.accounts:
        return
    from plumbline.preferences.accounts import Accounts

    with chain.domain.service() as service:
        if Accounts(service.store).any_admin():
            return
    recipe, *rest = shlex.split(chain.arguments)
    command = shlex.join([recipe, "NAME", *rest, "--role", "admin"])
    raise UserError(
        "annotate.accounts is true, and there is no admin who could sign in: make one first with\n"
        f"  plumbline users add {command}"
    )


@contextmanager
def _accounts(
    recipe: Path, overrides: list[str] | None, run: str | None, runs: Path, *, create: bool = False
) -> Iterator[Accounts]:
    from plumbline.preferences.accounts import Accounts

    chain = open_chain(recipe, overrides, run, runs, "users", create=False)
    with chain.domain.service(create=create) as service:
        yield Accounts(service.store)


def _asked(name: str) -> str:
    typed: str = typer.prompt(f"Password for {name}", hide_input=True, confirmation_prompt=True)
    return typed


def _print_one_time(accounts: Accounts, account: Account) -> None:
    password = accounts.issue_password(account.annotator_id)
    typer.echo(f"One-time password, shown this once; the first sign-in asks for another: {password}")
