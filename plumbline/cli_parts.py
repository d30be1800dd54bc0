"""What the commands share: their arguments, and the chain that they work on."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from plumbline.errors import UserError
from plumbline.logs import log_to_run, quieten_libraries

if TYPE_CHECKING:
    from plumbline.chain import Chain

RUNS = Path("runs")
RecipeFile = Annotated[Path, typer.Argument(metavar="RECIPE", help="The recipe: a YAML file.")]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="SECTION.KEY=VALUE", help="Values set over the recipe's own.")
]


def _checked_name(run: str | None) -> str | None:
    """The run's name; a path would make a run where nobody looks for it."""
    from plumbline.recipe import NAME_PATTERN

    if run is not None and not re.fullmatch(NAME_PATTERN, run):
        raise UserError(
            f"--run {run}: a run's name begins with a letter or digit and has only letters, digits, '_', '.' and '-'; "
            "the folder that runs lie in is given with --runs."
        )
    return run


RunName = Annotated[
    str | None, typer.Option("--run", callback=_checked_name, help="The run's name; default: the recipe's name.")
]
RunsFolder = Annotated[Path, typer.Option("--runs", help="Where run folders lie.")]


def open_chain(
    recipe: Path, overrides: list[str] | None, run: str | None, runs: Path, command: str, *, create: bool = True
) -> Chain:
    """The chain of a command, which logs to the run folder where there is one."""
    from plumbline.chain import Chain, read_recipe
    from plumbline.console import console
    from plumbline.runs import Run

    checked = read_recipe(recipe, overrides or [])
    folder = Run(runs / (run or checked.name), create=create)
    if folder.root.is_dir():
        log_to_run(folder.root, command)
    else:
        quieten_libraries()
    return Chain(
        checked,
        recipe,
        folder,
        notify=lambda line: console.print(line, highlight=False, markup=False),
        arguments=arguments_of(recipe, overrides or [], folder.name, runs),
    )


def arguments_of(recipe: Path, overrides: Sequence[str], run: str, runs: Path) -> str:
    """What to write behind a command's name to work on the same run with the same settings, for a shell."""
    place = [] if runs == RUNS else ["--runs", str(runs)]
    shown = ["annotate.store=…" if one.startswith("annotate.store=") and "@" in one else one for one in overrides]
    return shlex.join([str(recipe), "--run", run, *place, *shown])
