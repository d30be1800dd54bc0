"""`plumbline queue`: what the lead decides about single tasks, on the command line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Annotated

import typer

from plumbline.cli_parts import RUNS, Overrides, RecipeFile, RunName, RunsFolder, open_chain
from plumbline.errors import UserError, counted

if TYPE_CHECKING:
    from plumbline.conversations import Conversation
    from plumbline.preferences.service import PreferenceService

queue = typer.Typer(help="Single tasks: for whom they are kept, and which become gold items.", no_args_is_help=True)

TaskId = Annotated[str, typer.Argument(metavar="TASK", help="The task's id, as the lead's page and `list` show it.")]


@queue.command("list")
def list_(
    recipe: RecipeFile,
    overrides: Overrides = None,
    run: RunName = None,
    runs: RunsFolder = RUNS,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """Print the tasks that are kept for named people, and the adjudicated ones that could become gold items."""
    with _service(recipe, overrides, run, runs) as service:
        kept, settled = service.control.restricted(), service.adjudication.settled()
    if as_json:
        found = {"restricted": [asdict(task) for task in kept], "adjudicated": [asdict(task) for task in settled]}
        typer.echo(json.dumps(found, indent=2, ensure_ascii=False))
        return
    for task in kept:
        typer.echo(f"{task.task_id}  for {', '.join(task.names) or 'nobody'}: {_in_short(task.prompt)}")
    for case in settled:
        typer.echo(f"{case.task_id}  adjudicated: {_in_short(case.prompt)}")
    if not kept and not settled:
        typer.echo("No task is kept for named people, and none is adjudicated.")


@queue.command()
def restrict(
    recipe: RecipeFile,
    task: TaskId,
    overrides: Overrides = None,
    to: Annotated[list[str] | None, typer.Option("--to", metavar="NAME", help="Who may have it; repeatable.")] = None,
    everybody: Annotated[bool, typer.Option("--everybody", help="Hand it to everybody again.")] = False,
    run: RunName = None,
    runs: RunsFolder = RUNS,
) -> None:
    """Keep a task for named people; whoever holds it may finish it."""
    if bool(to) == everybody:
        raise UserError("say who may have the task: --to NAME, once for each of them, or --everybody.")
    with _service(recipe, overrides, run, runs) as service:
        people = service.control.annotators_named(to or ())
        service.control.restrict(task, None if everybody else people)
    typer.echo(
        "The task is handed to everybody." if everybody else f"The task is for {counted(len(people), 'annotator')}."
    )


@queue.command()
def gold(
    recipe: RecipeFile, task: TaskId, overrides: Overrides = None, run: RunName = None, runs: RunsFolder = RUNS
) -> None:
    """Make a gold item of an adjudicated task: annotators who have not seen it are measured by the decision."""
    with _service(recipe, overrides, run, runs) as service:
        service.checks.make_gold(task)
        checks = service.rules.checks
    typer.echo("The task is a gold item.")
    if checks is None:
        typer.echo("Checks are handed out when the recipe has a section annotate.checks (`checks: {}` is enough).")


@contextmanager
def _service(recipe: Path, overrides: list[str] | None, run: str | None, runs: Path) -> Iterator[PreferenceService]:
    with open_chain(recipe, overrides, run, runs, "queue", create=False).domain.service(create=False) as service:
        yield service


def _in_short(prompt: Conversation) -> str:
    return shorten(prompt[-1]["content"], 80, placeholder=" …")
