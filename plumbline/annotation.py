"""Between sampling and the reward model: fill the preference store, import what people judged elsewhere, simulate."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from plumbline.domain import Domain
from plumbline.errors import UserError, counted
from plumbline.runs import Run, write_synced

if TYPE_CHECKING:
    from plumbline.preferences.records import NewTask, Progress
    from plumbline.preferences.service import PreferenceService
    from plumbline.preferences.simulated import SimulationReport
    from plumbline.recipe import SimulatedSection

FILLED = ".tasks.json"
"""In the run folder: the keys of the tasks that this run has put into the store, and that are not retired."""

LOCK = ".tasks.lock"
"""In the run folder: locked while a process fills the store."""


def fill_store(domain: Domain) -> None:
    """Put the sampled responses into the store as tasks, and ask for as many judgements of each as the recipe says.

    Tasks that are there already are left alone. Those that this run put there before, and whose responses are no longer
    among the sampled ones, are retired: a new policy was sampled. Tasks of other runs that share store and project are
    none of this run's business; where one of them asked for the very same responses, its next call of this opens the
    task again. The recipe's file of checks becomes the project's checks, beside gold items that leads have made.
    """
    from plumbline.preferences.checks_file import read_checks
    from plumbline.preferences.validation import task_key
    from plumbline.privacy import ScreenedTasks

    if domain.run.manifest("sample") is None:
        return
    checks = domain.recipe.annotate.checks
    screened = ScreenedTasks(domain)
    with _one_at_a_time(domain.run):
        memory = domain.run.root / FILLED
        earlier = set(json.loads(memory.read_text())) if memory.exists() else set()
        tasks = list(screened.of(_tasks(domain)))
        sampled = {task_key(task.prompt, [response.text for response in task.responses]) for task in tasks}
        with domain.service() as service:
            write_synced(memory, json.dumps(sorted(earlier | sampled)))  # first, so that a kill forgets no task
            service.set_overlap(domain.recipe.annotate.judgements_per_prompt)
            added = service.add_tasks(tasks)
            retired = service.retire(earlier - sampled)
            service.retire((earlier & screened.withheld) - sampled, checks=True)
            file = checks.file if checks else None
            service.checks.load(read_checks(file, domain.recipe.name) if file else [])
            write_synced(memory, json.dumps(sorted(sampled)))
        screened.tell(new=added.new)
    if retired:
        domain.notify(
            f"closed unfinished: {counted(retired, 'task')} with earlier responses; what was judged of them stays."
        )


def publish_guideline(domain: Domain, service: PreferenceService) -> str | None:
    """Bring the recipe's guideline into force where its text is new; returns the one that is in force, if any."""
    from plumbline.datafiles import read_text

    file = domain.recipe.annotate.guideline
    if file is not None:
        service.guidelines.publish(read_text(file), from_file=True)
    current = service.guidelines.current()
    return current.text if current else None


@contextmanager
def _one_at_a_time(run: Run) -> Iterator[None]:
    """Wait until no other process fills the store from this run.

    Who comes later reads the responses later, so the newest ones are those that are handed out in the end. This is not
    the run's lock, because the annotation app opens beside a run that holds it.
    """
    with (run.root / LOCK).open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _tasks(domain: Domain) -> Iterator[NewTask]:
    """One task for each prompt, with the responses of all policies.

    Responses with the same text are shown once, those that cannot be shown (empty, no valid Unicode) not at all.
    """
    from itertools import groupby

    from plumbline.preferences.records import NewResponse, NewTask
    from plumbline.preferences.validation import text_fault
    from plumbline.sampling import read_responses

    rows = read_responses(domain.run.folder("sample"))
    for _, group in groupby(rows, key=lambda row: row["prompt_key"]):
        responses: dict[str, NewResponse] = {}
        for row in group:
            if text_fault(row["response"]) is None:
                source = NewResponse(text=row["response"], source=row["policy"], source_hash=row["policy_hash"])
                responses.setdefault(row["response"].strip(), source)
        if len(responses) >= 2:
            yield NewTask(
                prompt=row["prompt"],
                responses=list(responses.values()),
                project=domain.recipe.name,
                meta=json.loads(row["meta"] or "{}"),
                origin="sample",
            )


def collect_judgements(domain: Domain) -> Progress:
    """Put sampled responses and imported preferences into the store; say how many judgements are missing."""
    fill_store(domain)
    import_named_files(domain)
    with domain.service() as service:
        return service.progress()


def import_named_files(domain: Domain) -> None:
    """Import the files of `data.preferences`; what was imported before is not taken twice."""
    if not domain.recipe.data.preferences:
        return
    from plumbline.preferences.importers import import_preferences
    from plumbline.preferences.screening import Screen
    from plumbline.privacy import what_becomes_of_it

    screen = Screen(domain.recipe.annotate.personal_data)
    with domain.service() as service:
        for file in domain.recipe.data.preferences:
            report = import_preferences(file.path, service, format=file.format, screen=screen)
            if report.taken or report.rejected:
                domain.notify(f"{file.path.name}: {counted(report.taken, 'judgement')} imported as {report.format}")
            if report.rejected:
                rejected = counted(report.rejected, "row")
                domain.notify(f"{file.path.name}: {rejected} set aside in {report.rejected_path}")
            if report.personal.rows and report.taken:
                domain.notify(f"{file.path.name}: {report.personal.told()}; {what_becomes_of_it(domain)}")


def simulated_settings(domain: Domain) -> SimulatedSection:
    """Who the simulated annotators are, and what they judge by.

    Raises:
        UserError: the recipe has no `annotate.simulated`.
    """
    settings = domain.recipe.annotate.simulated
    if settings is None:
        raise UserError("the recipe has no `annotate.simulated` section: it says who the simulated annotators are.")
    return settings


def simulate_annotators(domain: Domain, limit: int | None = None) -> SimulationReport:
    """Let the recipe's simulated annotators judge what is waiting, through the same service as people.

    Raises:
        UserError: the recipe has no `annotate.simulated`, or nothing was sampled yet.
    """
    from plumbline.console import track
    from plumbline.preferences.simulated import simulate
    from plumbline.utility import Utility

    settings = simulated_settings(domain)
    if domain.run.manifest("sample") is None and domain.recipe.data.prompts:
        raise UserError("there is nothing to judge yet: run `plumbline run RECIPE --until sample` first.")
    fill_store(domain)
    utility = Utility.load(settings.utility)
    with domain.service() as service:
        required = domain.recipe.annotate.required
        if limit is None and required is not None:
            limit = max(required - service.progress().done, 0)
        return simulate(service, utility, settings.annotators, seed=domain.recipe.seed, limit=limit, progress=track)
