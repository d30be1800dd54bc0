"""The command line.

    plumbline init my-domain            a new domain with a commented recipe
    plumbline check recipe.yaml         validate it and print the plan; with --deep, measure what makes PPO fail
    plumbline run recipe.yaml           run the chain; it stops where people are needed
    plumbline annotate recipe.yaml      open the annotation app
    plumbline users add recipe.yaml ANNA --role admin    an account for it
    plumbline lineage runs/NAME/dpo     what a model was made from

Heavy libraries are imported inside the commands, so that `plumbline --help` answers at once. A user's mistake ends in
one clear sentence and exit status 2; missing judgements end in exit status 3.
"""

from __future__ import annotations

import errno
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from plumbline.allocator import reuse_freed_memory
from plumbline.cli_parts import RUNS, Overrides, RecipeFile, RunName, RunsFolder
from plumbline.cli_parts import open_chain as _chain
from plumbline.cli_queue import queue
from plumbline.cli_records import add_commands as add_record_commands
from plumbline.cli_records import tell_names_due, tokens
from plumbline.cli_users import need_an_admin, users
from plumbline.errors import UserError, WaitingForPeople, counted
from plumbline.logs import quieten
from plumbline.preferences.formats import IMPORTED

if TYPE_CHECKING:
    from annotate_ui.arena import ArenaSetup
    from plumbline.chain import Chain
    from plumbline.domain import Domain
    from plumbline.preferences.service import PreferenceService
    from plumbline.preferences.simulated import SimulationReport
    from plumbline.runs import Manifest

log = logging.getLogger(__name__)

app = typer.Typer(
    help="From human judgement to an aligned model, with numbers that show it is better.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Force = Annotated[
    list[str] | None,
    typer.Option(
        "--force",
        metavar="STAGE",
        help="Redo a stage and all that depends on it. After a kill, the same command goes on.",
    ),
]


@app.command()
def init(folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The new domain's folder.")]) -> None:
    """Make a new domain: a commented recipe, example data, a guideline."""
    from plumbline.new_domain import make_domain

    recipe = make_domain(folder)
    typer.echo(f"{recipe} is ready. Put your own data in place of the example rows, then: plumbline check {recipe}")


@app.command()
def check(
    recipe: RecipeFile,
    overrides: Overrides = None,
    run: RunName = None,
    runs: RunsFolder = RUNS,
    deep: Annotated[
        bool,
        typer.Option("--deep", help="Also measure the run's models before PPO; exit status 4 where something fails."),
    ] = False,
    samples: Annotated[int, typer.Option("--samples", min=2, help="Responses that --deep samples.")] = 32,
    as_json: Annotated[bool, typer.Option("--json", help="Print what --deep found as JSON, and nothing else.")] = False,
) -> None:
    """Validate a recipe and its data; print the plan, model sizes and estimated memory. Nothing is changed."""
    from plumbline.plan import print_plan
    from plumbline.preflight import preflight
    from plumbline.privacy import personal_data_notices

    if as_json and not deep:
        raise UserError("--json prints what --deep finds: give both.")
    if deep and run:
        _refuse_unknown_run(run, runs, "--deep measures models that a run has made")
    chain = _chain(recipe, overrides, run, runs, "check", create=False)
    found = preflight(chain.domain)
    if not as_json:
        found.notices.extend(personal_data_notices(chain.domain))
        print_plan(chain, found)
    if deep:
        _check_deeply(chain, samples, as_json)


def _check_deeply(chain: Chain, samples: int, as_json: bool) -> None:
    from plumbline.deep_check import check_entries, print_findings

    entries = check_entries(chain, samples=samples)
    if as_json:
        typer.echo(json.dumps([entry.to_json() for entry in entries], indent=2))
    else:
        print_findings(entries)
    if any(entry.fails for entry in entries):
        raise typer.Exit(4)


@app.command()
def run(
    recipe: RecipeFile,
    overrides: Overrides = None,
    until: Annotated[str | None, typer.Option("--until", metavar="STAGE", help="The last stage to run.")] = None,
    run: RunName = None,
    runs: RunsFolder = RUNS,
    force: Force = None,
    simulate: Annotated[
        bool, typer.Option("--simulate", help="Let the recipe's simulated annotators give missing judgements.")
    ] = False,
) -> None:
    """Run the chain: every stage that is not up to date, in order. It stops where judgements are missing."""
    from plumbline.annotation import simulate_annotators, simulated_settings
    from plumbline.preflight import preflight

    chain = _chain(recipe, overrides, run, runs, "run")
    if simulate:
        simulated_settings(chain.domain)  # before any work
    for notice in preflight(chain.domain, [until] if until else ()).notices:
        chain.notify(notice)
    try:
        done = chain.run_stages(until=until, force=force or ())
    except WaitingForPeople:
        if not simulate:
            raise
        _tell_simulated(simulate_annotators(chain.domain))
        done = chain.run_stages(until=until, force=force or ())
    _print_result(chain, done)


def _stage_command(name: str, stages: tuple[str, ...], what: str) -> None:
    def command(
        recipe: RecipeFile,
        overrides: Overrides = None,
        run: RunName = None,
        runs: RunsFolder = RUNS,
        force: Annotated[bool, typer.Option("--force", help="Redo it although it is up to date.")] = False,
    ) -> None:
        from plumbline.preflight import preflight

        chain = _chain(recipe, overrides, run, runs, name)
        preflight(chain.domain, stages)
        only = [stage for stage in stages if stage == "align" or stage in chain.names()]
        _print_result(chain, chain.run_stages(only=only, force=only if force else ()))

    app.command(name, help=what)(command)


_stage_command("sft", ("base", "adapt", "sft"), "Fine-tune the base model on the demonstrations.")
_stage_command("sample", ("sample",), "Sample the responses that annotators will rank.")
_stage_command(
    "reward",
    ("preferences", "reward", "judge", "watch"),
    "Train the reward model, the judge of the comparison, and the watched reward model where the recipe has one.",
)
_stage_command("align", ("align",), "Align the model by every method that the recipe lists.")
_stage_command("compare", ("compare",), "Compare the aligned models with their baselines; write the report.")


@app.command()
def annotate(
    recipe: RecipeFile,
    overrides: Overrides = None,
    run: RunName = None,
    runs: RunsFolder = RUNS,
    open_browser: Annotated[bool, typer.Option("--open", help="Open the browser.")] = False,
) -> None:
    """Open the annotation app on a run's sampled responses."""
    from annotate_ui import Setup, serve
    from plumbline.annotation import fill_store, publish_guideline

    chain = _chain(recipe, overrides, run, runs, "annotate", create=False)
    settings = chain.recipe.annotate
    _need_samples(chain)
    fill_store(chain.domain)
    need_an_admin(chain)
    with chain.domain.service() as service:
        publish_guideline(chain.domain, service)
        tell_names_due(chain, service)
        setup = Setup.of_recipe(chain.recipe)
        arena = _arena(chain, service) if settings.arena else None
        serve(
            service,
            setup,
            host=settings.host,
            port=settings.port,
            open_browser=open_browser,
            settings=settings,
            arena=arena,
        )


def _arena(chain: Chain, service: PreferenceService) -> ArenaSetup | None:
    """The run's arena; None, with the reason told, where the run is not far enough for it."""
    from plumbline.arena import open_arena

    workers = chain.recipe.annotate.workers
    if workers > 1:
        chain.notify(f"no arena: it needs a server of one process, and annotate.workers is {workers}; set it to 1.")
        return None
    try:
        return open_arena(chain.domain, service.store)
    except UserError as fault:
        chain.notify(f"no arena: {fault}")
        return None


@app.command()
def arena(
    recipe: RecipeFile,
    overrides: Overrides = None,
    run: RunName = None,
    runs: RunsFolder = RUNS,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """Print the arena's leaderboard: strengths, win rates, and whether there are enough votes."""
    from plumbline.arena import arena_results
    from plumbline.preferences.leaderboard import as_text

    board = arena_results(_chain(recipe, overrides, run, runs, "arena", create=False).domain)
    typer.echo(json.dumps(board, indent=2, ensure_ascii=False) if as_json else as_text(board))


@app.command()
def prioritise(
    recipe: RecipeFile,
    overrides: Overrides = None,
    run: RunName = None,
    runs: RunsFolder = RUNS,
) -> None:
    """Hand out first what the run's reward model is least sure of; every fifth task stays a random one."""
    from plumbline.prioritise import prioritise_tasks

    chain = _chain(recipe, overrides, run, runs, "prioritise", create=False)
    done = prioritise_tasks(chain.domain)
    typer.echo(
        f"{counted(done.tasks, 'open task')} put in order, {done.random} of them at random; the reward model's mean "
        f"uncertainty is {done.uncertainty:.2f} (0: sure, 1: it cannot tell)."
    )


@app.command()
def simulate(
    recipe: RecipeFile,
    overrides: Overrides = None,
    run: RunName = None,
    runs: RunsFolder = RUNS,
    limit: Annotated[int | None, typer.Option(help="Judge at most this many tasks.")] = None,
) -> None:
    """Let simulated annotators judge what is waiting; everything they say is marked as simulated."""
    from plumbline.annotation import simulate_annotators

    chain = _chain(recipe, overrides, run, runs, "simulate", create=False)
    _tell_simulated(simulate_annotators(chain.domain, limit))


@app.command("import")
def import_(
    recipe: RecipeFile,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A file of preferences.")],
    overrides: Overrides = None,
    format: Annotated[
        str | None, typer.Option(help=f"Its format: {', '.join(IMPORTED)}. Default: the one that its rows have.")
    ] = None,
    run: RunName = None,
    runs: RunsFolder = RUNS,
    new: Annotated[bool, typer.Option("--new", help="Let --run name a run that is not there yet.")] = False,
) -> None:
    """Import preferences that people gave elsewhere. Faulty rows are set aside in a file; nothing is taken twice."""
    from plumbline.inputs import shown_store
    from plumbline.preferences.importers import import_preferences
    from plumbline.preferences.screening import Screen
    from plumbline.privacy import what_becomes_of_it

    if run and not new:
        _refuse_unknown_run(run, runs, "give --new to make it")
    domain = _chain(recipe, overrides, run, runs, "import").domain
    with domain.service() as service:
        report = import_preferences(file, service, format=format, screen=Screen(domain.recipe.annotate.personal_data))
    _tell(f"{file}: {report.summary}")
    if report.personal.rows:
        _tell(f"{file}: {report.personal.told()}; {what_becomes_of_it(domain)}")
    if report.taken:
        _tell(f"they are in {shown_store(domain)}, project {domain.recipe.name}")
    if report.rejected:
        _tell(f"the rows set aside, with reasons, are in {report.rejected_path}")


@app.command()
def quality(
    recipe: RecipeFile,
    overrides: Overrides = None,
    run: RunName = None,
    runs: RunsFolder = RUNS,
    as_json: Annotated[bool, typer.Option("--json", help="Print all figures as JSON.")] = False,
) -> None:
    """Print how far annotators agree, how reliable each one is, and when all will be judged."""
    from plumbline.preferences.quality import Quality
    from plumbline.preferences.quality.text import as_lines

    domain = _chain(recipe, overrides, run, runs, "quality", create=False).domain
    with domain.service(create=False) as service:
        report = Quality(service.store, project=service.project, rules=service.rules).report()
    typer.echo(json.dumps(report.to_json(), indent=2) if as_json else "\n".join(as_lines(report)))


@app.command()
def lineage(
    path: Annotated[Path, typer.Argument(metavar="FOLDER", help="A finished stage folder, such as runs/NAME/dpo.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the tree as JSON.")] = False,
) -> None:
    """Print what a model was made from, back to the judgements and the data."""
    from plumbline.lineage import as_lines, lineage_of

    node = lineage_of(path)
    typer.echo(json.dumps(node.to_json(), indent=2) if as_json else "\n".join(as_lines(node)))


app.add_typer(users, name="users")
app.add_typer(queue, name="queue")
add_record_commands(app)


class _PlainUsage(TyperCommand):
    """A command whose usage line has no braces around what must be given."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """The parts of the usage line."""
        return [piece.strip("{}") for piece in super().collect_usage_pieces(ctx)]


for _group in (app, users, queue, tokens):
    for _command in _group.registered_commands:
        _command.cls = _PlainUsage


def _tell_simulated(report: SimulationReport) -> None:
    judgements, annotators = report.judgements, len(report.by_annotator)
    _tell(f"{counted(judgements, 'simulated judgement')} by {counted(annotators, 'simulated annotator')}.")


def _tell(line: str) -> None:
    """A result, on standard output and in the log."""
    typer.echo(line)
    log.info(line)


def _refuse_unknown_run(run: str, runs: Path, what_to_know: str) -> None:
    """A misspelt name must not make a run of its own, where nobody looks for what was imported."""
    from plumbline.recipe_yaml import nearest

    if not (runs / run).is_dir():
        names = [path.name for path in runs.iterdir() if path.is_dir()] if runs.is_dir() else []
        raise UserError(f"{runs} has no run {run!r}: {what_to_know}{nearest(run, names) if names else ''}")


def _need_samples(chain: Chain) -> None:
    domain: Domain = chain.domain
    if domain.recipe.data.prompts and domain.run.manifest("sample") is None:
        raise UserError(
            f"there is nothing to judge in {domain.run.root} yet: run "
            f"`plumbline run {chain.arguments} --until sample` first."
        )


def _print_result(chain: Chain, done: Sequence[Manifest]) -> None:
    """On standard output, the comparison's table and where the report lies, if the comparison was among the stages."""
    if not any(manifest.stage == "compare" for manifest in done):
        return
    folder = chain.run.folder("compare")
    from plumbline.compare import format_table

    typer.echo(format_table(json.loads((folder / "results.json").read_text(encoding="utf-8"))))
    typer.echo(f"report: {folder / 'report.html'}")


def main() -> None:
    """The entry point: users' mistakes become one sentence and exit status 2."""
    quieten()
    reuse_freed_memory()
    try:
        app()
    except UserError as error:
        _leave(f"error: {error}", 2)
    except WaitingForPeople as waiting:
        _leave(str(waiting), 3)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            _leave(f"error: the disk is full ({error.filename}): free some space and run the same command again", 2)
        if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
            _leave(f"error: {error.filename} cannot be written: change its permissions or use another place", 2)
        raise


def _leave(message: str, status: int) -> None:
    print(message, file=sys.stderr)
    sys.exit(status)


if __name__ == "__main__":
    main()
