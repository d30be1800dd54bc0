"""`plumbline export`, `audit`, `erase`, `retain`, `tokens`: what leaves the store, what stays, and who may read it."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from plumbline.cli_parts import RUNS, Overrides, RecipeFile, RunName, RunsFolder, open_chain
from plumbline.errors import UserError, counted
from plumbline.preferences.formats import EXPORTED
from plumbline.preferences.records import FLAG, JUDGEMENT, SKIP

if TYPE_CHECKING:
    from plumbline.chain import Chain
    from plumbline.domain import Domain
    from plumbline.preferences.erasure import Erased
    from plumbline.preferences.retention import DueNow
    from plumbline.preferences.service import PreferenceService
    from plumbline.recipe_privacy import RetentionSection
    from plumbline.trained_on import Traces

log = logging.getLogger(__name__)
tokens = typer.Typer(help="Tokens that let other programs read a project through the app.", no_args_is_help=True)


def add_commands(app: typer.Typer) -> None:
    """Add the commands to `plumbline`."""
    app.command()(export)
    app.command()(audit)
    app.command()(erase)
    app.command()(retain)
    app.add_typer(tokens, name="tokens")


def export(
    recipe: RecipeFile,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to write.")],
    overrides: Overrides = None,
    format: Annotated[str, typer.Option(help=f"The format to write: {', '.join(EXPORTED)}.")] = EXPORTED[0],
    run: RunName = None,
    runs: RunsFolder = RUNS,
    force: Annotated[bool, typer.Option("--force", help="Replace files that are there.")] = False,
    pseudonyms: Annotated[bool, typer.Option("--pseudonyms", help="Put random names in place of people's.")] = False,
    people_only: Annotated[bool, typer.Option("--people-only", help="Leave simulated annotators out.")] = False,
    split: Annotated[
        str | None, typer.Option("--split", help="Only prompts of this split: train, validation or test.")
    ] = None,
) -> None:
    """Export the preferences of a run, with a manifest beside the file."""
    from plumbline.preferences.exporters import ExportOptions, export_preferences

    if split not in (None, "train", "validation", "test"):
        raise UserError(f"--split {split}: there are train, validation and test.")
    domain = open_chain(recipe, overrides, run, runs, "export", create=False).domain
    data = domain.recipe.data
    options = ExportOptions(
        pseudonyms=pseudonyms,
        simulated=not people_only,
        split=split,  # type: ignore[arg-type]
        validation=data.validation,
        test=data.test,
    )
    with domain.service(create=False) as service:
        report = export_preferences(service, file, format=format, replace=force, options=options)
    _tell(f"{file}: {counted(report.rows, 'row')} written as {format}")
    _tell(f"beside it: {', '.join(path.name for path in report.files[1:])}")


def audit(
    recipe: RecipeFile,
    overrides: Overrides = None,
    run: RunName = None,
    runs: RunsFolder = RUNS,
    contents: Annotated[
        bool, typer.Option("--contents", help="Also compare every answer with what the log says of it.")
    ] = False,
    expect: Annotated[
        str | None,
        typer.Option("--expect", metavar="DIGEST", help="A digest that an earlier check named: the log must have it."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON, and nothing else.")] = False,
) -> None:
    """Verify the audit log of a run's store; exit status 4 where it does not hold."""
    from dataclasses import asdict

    from plumbline.preferences.audit_check import verify

    domain = open_chain(recipe, overrides, run, runs, "audit", create=False).domain
    with domain.service(create=False) as service:
        report = verify(service.store, contents=contents, expected=expect)
    if as_json:
        typer.echo(json.dumps({**asdict(report), "holds": report.holds}, indent=2))
    else:
        typer.echo(f"{report.entries:,} entries; the newest has the digest {report.head}")
        if report.broken:
            typer.echo(f"BROKEN at entry {report.broken.number}: {report.broken.what}.")
        if report.expected_found is False:
            typer.echo(f"MISSING: no entry has the digest {expect}: entries were cut off, or the log was written anew.")
        if contents:
            typer.echo(f"{counted(report.answers, 'answer')} compared with the log: {report.differing:,} differ.")
        for fault in report.faults:
            typer.echo(f"  {f'entry {fault.number}: ' if fault.number else ''}{fault.what}")
        if report.before_the_log:
            typer.echo(f"{counted(report.before_the_log, 'answer')} from before the log began: not compared.")
        if report.holds:
            typer.echo("The log holds.")
    if not report.holds:
        raise typer.Exit(4)


def erase(
    recipe: RecipeFile,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The person's name, as they sign in.")],
    overrides: Overrides = None,
    run: RunName = None,
    runs: RunsFolder = RUNS,
    keep: Annotated[
        bool, typer.Option("--keep-judgements", help="Keep what they judged, under a random name.")
    ] = False,
    remove: Annotated[
        bool, typer.Option("--remove-judgements", help="Remove what they judged; the tasks are handed out again.")
    ] = False,
    keep_texts: Annotated[
        bool, typer.Option("--keep-texts", help="Keep reasons and edited responses of kept judgements.")
    ] = False,
    rewrite: Annotated[
        bool, typer.Option("--rewrite-snapshots", help="Erase them from the snapshots in the run folders too.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Erase a person from the store of a run; list the models that learned from their judgements."""
    from plumbline.preferences import erasure
    from plumbline.unfinished import Unfinished

    if keep == remove:
        raise UserError("say what becomes of their judgements: --keep-judgements or --remove-judgements.")
    if keep_texts and remove:
        raise UserError("--keep-texts keeps texts of kept judgements: it does not go with --remove-judgements.")
    domain = open_chain(recipe, overrides, run, runs, "erase", create=False).domain
    what = "remove all their judgements" if remove else "put a random name in place of theirs"
    if not yes and not typer.confirm(f"Erase {name!r} from {domain.store} and {what}? This cannot be undone"):
        raise UserError("nothing was changed.")
    with domain.service(create=False) as service:
        unfinished = Unfinished(runs, service.store, rewrite=rewrite)
        if unfinished.has(name):
            clean = erasure.clean_files(service.store)
        else:
            clean = erasure.erase(
                service.store,
                name,
                remove_judgements=remove,
                keep_texts=keep_texts,
                before_commit=unfinished.add,
            ).clean
    for erased in unfinished.erasures:
        _tell_erased(erased, domain, recipe, runs, rewrite=unfinished.rewrite)
    _tell_clean(clean)
    unfinished.forget()


def retain(
    recipe: RecipeFile,
    overrides: Overrides = None,
    run: RunName = None,
    runs: RunsFolder = RUNS,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what is due, and change nothing.")] = False,
    rewrite: Annotated[
        bool, typer.Option("--rewrite-snapshots", help="Take the names out of snapshots in the run folders too.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Delete records, and put random names in place of people's, that are older than `annotate.retention` says."""
    from plumbline.preferences import erasure, retention
    from plumbline.unfinished import Unfinished

    domain = open_chain(recipe, overrides, run, runs, "retain", create=False).domain
    settings = domain.recipe.annotate.retention
    if settings.names_days is None and settings.records_days is None:
        raise UserError(
            "the recipe keeps everything: set annotate.retention.names_days or annotate.retention.records_days."
        )
    with domain.service(create=False) as service:
        due = retention.what_is_due(service.store, settings)
        unfinished = Unfinished(runs, service.store, rewrite=rewrite)
        _tell_due(due, settings)
        for erased in unfinished.erasures:
            typer.echo(f"erasing {erased.name} broke off when the store was done: to be finished in {runs}")
        if dry_run or not (due.people or due.records or unfinished.erasures):
            return
        if not yes and not typer.confirm(f"Change {domain.store} so? This cannot be undone"):
            raise UserError("nothing was changed.")
        if due.records and settings.records_days is not None:
            gone = retention.clear_records(service.store, days=settings.records_days)
            _tell(f"deleted: {retention.told(gone) or 'nothing'}")
        for erased in unfinished.erasures:
            _tell_erased(erased, domain, recipe, runs, rewrite=unfinished.rewrite)
        came_back = 0
        for person in due.people:
            one = retention.pseudonymise(service.store, person, settings, before_commit=unfinished.add)
            if one is None:
                came_back += 1
            else:
                _tell_erased(one, domain, recipe, runs, rewrite=unfinished.rewrite)
        if unfinished.erasures:
            _tell_clean(erasure.clean_files(service.store))
        unfinished.forget()
    if came_back:
        typer.echo(f"{came_back} of them came back meanwhile: left as they are.")


def tell_names_due(chain: Chain, service: PreferenceService) -> None:
    """Say, when the app opens, how many people `plumbline retain` would give a random name."""
    settings = chain.recipe.annotate.retention
    if settings.names_days is None:
        return
    from plumbline.preferences.retention import names_due

    people, _ = names_due(service.store, settings)
    if people:
        chain.notify(
            f"neither signed in nor worked for {settings.names_days} days: {counted(len(people), 'name')}; to put "
            f"random ones in their place: plumbline retain {chain.arguments}"
        )


def _tell_due(due: DueNow, settings: RetentionSection) -> None:
    if settings.records_days is not None:
        from plumbline.preferences.retention import told

        typer.echo(f"records that ended over {settings.records_days} days ago: {told(due.records) or 'none'}")
    if settings.names_days is None:
        return
    texts = "their reasons and edited responses stay" if settings.keep_texts else "without reasons and edited responses"
    what = f"they get a random name; their judgements stay, {texts}" if due.people else "nobody"
    typer.echo(f"neither signed in nor worked for {settings.names_days} days: {what}")
    for person in due.people:
        typer.echo(f"  {person.name}, last seen {person.last_seen:%Y-%m-%d}")
    for person in due.spared:
        typer.echo(f"  {person.name}, last seen {person.last_seen:%Y-%m-%d}: stays, being the last admin")


def _tell_erased(erased: Erased, domain: Domain, recipe: Path, runs: Path, *, rewrite: bool) -> None:
    """Say what became of a person, and what is left of them in the run folders."""
    from plumbline.trained_on import rewrite_snapshots, traces_of

    typer.echo(f"{erased.name} was erased; what is kept of them is called {erased.pseudonym}.")
    _tell_counts(erased)
    for tasks in erased.stranded:
        _tell(f"kept for nobody now: {tasks}; say who may have it: plumbline queue restrict, or the pool's members")
    _tell_data_files(erased, domain)
    traces = traces_of(erased, runs)
    rewritten = rewrite_snapshots(traces, erased) if rewrite else []
    _tell_traces(traces, erased, rewritten, f"{recipe}")
    report = runs / f"{erased.pseudonym}.json"
    if runs.is_dir():
        facts = {"pseudonym": erased.pseudonym, "annotator_id": erased.annotator_id, **traces.to_json()}
        report.write_text(json.dumps({**facts, "rewritten": rewritten}, indent=2) + "\n", encoding="utf-8")
        typer.echo(f"This list is in {report}")


def _tell_counts(erased: Erased) -> None:
    done = "removed" if erased.removed else "kept"
    parts = [counted(erased.answers.get(kind, 0), kind) for kind in (JUDGEMENT, SKIP, FLAG)]
    line = f"{done}: {', '.join(parts)}"
    if erased.texts_removed and not erased.removed:
        line += "; their reasons and edited responses were removed"
    if erased.reopened:
        line += f"; {counted(erased.reopened, 'task')} open again"
    typer.echo(line)


def _tell_clean(clean: bool) -> None:
    if not clean:
        typer.echo(
            "The database's files may still hold old bytes of the name: another program had them open, or the disk "
            "has no room. Run VACUUM on it when nobody works."
        )


def _tell_data_files(erased: Erased, domain: Domain) -> None:
    """Say which of the recipe's files of preferences have their judgements too."""
    from plumbline.preferences.importers import judgements_by

    for file in domain.recipe.data.preferences:
        try:
            theirs = judgements_by(erased.name, file.path, format=file.format)
        except UserError as error:
            typer.echo(f"{file.path} of data.preferences could not be looked through: {error}")
            continue
        if theirs:
            what = f"{file.path} of data.preferences has {counted(theirs, 'judgement')} under the name"
            again = "the next run takes them again" if erased.removed else "what the store has is not taken again"
            typer.echo(f"{what}; {again}: take the name out of the file, or the file out of the recipe")


def _tell_traces(traces: Traces, erased: Erased, rewritten: list[str], recipe: str) -> None:
    if traces.models:
        typer.echo("These models learned from their judgements:")
        for model in traces.models:
            share = counted(model.judgements, "judgement")
            typer.echo(f"  {model.folder} ({model.hash[:12]}), from {share} of theirs")
        again = "the judgements that are left" if erased.removed else "the same judgements, without the name"
        typer.echo(f"To have none that did, train again from {again}: plumbline run {recipe} --force preferences")
    else:
        typer.echo("No model in the run folders learned from their judgements.")
    for file, judgements in traces.snapshots.items():
        state = "was rewritten" if file in rewritten else "still has them: --rewrite-snapshots would change it"
        typer.echo(f"snapshot {file} ({counted(judgements, 'judgement')} of theirs) {state}")
    for file in traces.files:
        typer.echo(f"the name is still in {file}")
    typer.echo("Backups, exported files and what others downloaded are not reached from here.")


def _tell(line: str) -> None:
    """A result, on standard output and in the log."""
    typer.echo(line)
    log.info(line)


@tokens.command()
def add(
    recipe: RecipeFile,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What it is for, such as `dashboard`.")],
    overrides: Overrides = None,
    days: Annotated[float, typer.Option("--days", help="How long it holds.")] = 90,
    names: Annotated[
        bool, typer.Option("--names", help="Let it read annotators' names; without this it gets pseudonyms.")
    ] = False,
    run: RunName = None,
    runs: RunsFolder = RUNS,
) -> None:
    """Make a token that may read the project; it is printed this once."""
    from plumbline.preferences.tokens import Tokens

    domain = open_chain(recipe, overrides, run, runs, "tokens", create=False).domain
    with domain.service() as service:
        token = Tokens(service.store, project=service.project).add(name, days=days, names=names)
    reads = " and reads annotators' names" if names else ""
    typer.echo(f"The token {name!r}, shown this once; it holds {days:g} days{reads}:")
    typer.echo(token)


@tokens.command("list")
def list_(recipe: RecipeFile, overrides: Overrides = None, run: RunName = None, runs: RunsFolder = RUNS) -> None:
    """Print all tokens: name, state, when they end, when they were last used."""
    from plumbline.preferences.tokens import Tokens

    domain = open_chain(recipe, overrides, run, runs, "tokens", create=False).domain
    with domain.service(create=False) as service:
        found = Tokens(service.store, project=service.project).all()
    for token in found:
        ends = f"{token.expires_at:%Y-%m-%d}" if token.expires_at else "never"
        used = f"{token.used_at:%Y-%m-%d %H:%M} UTC" if token.used_at else "never"
        reads = "  reads names" if token.names else ""
        typer.echo(f"{token.name}  {token.state}  ends {ends}  last used {used}{reads}")
    if not found:
        typer.echo("There are no tokens yet.")


@tokens.command()
def revoke(
    recipe: RecipeFile,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The token's name.")],
    overrides: Overrides = None,
    run: RunName = None,
    runs: RunsFolder = RUNS,
) -> None:
    """End a token at once."""
    from plumbline.preferences.tokens import Tokens

    domain = open_chain(recipe, overrides, run, runs, "tokens", create=False).domain
    with domain.service(create=False) as service:
        Tokens(service.store, project=service.project).revoke(name)
    typer.echo(f"The token {name!r} is revoked.")
