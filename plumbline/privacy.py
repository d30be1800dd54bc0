"""Personal data in a run's data files and sampled tasks: what is found is said, and handled as the recipe says."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from plumbline.domain import Domain
from plumbline.errors import DataError, counted
from plumbline.preferences.screening import Findings, Screen, texts_of
from plumbline.preferences.validation import task_fault, task_key
from plumbline.runs import write_synced

if TYPE_CHECKING:
    from plumbline.preferences.records import NewTask

LISTED = "tasks.personal-data.jsonl"
"""In the run folder: the sampled tasks with personal data that are reported, or set aside."""

LOOKED_AT = 2_000_000
"""Characters of a data file that `plumbline check` looks at."""

_BECOMES = {
    "report": "it is stored as it is (annotate.personal_data: report)",
    "set_aside": "such rows are set aside (annotate.personal_data: set_aside)",
    "mask": "it is masked on its way into the store (annotate.personal_data: mask)",
}


def what_becomes_of_it(domain: Domain) -> str:
    """What the recipe does with personal data, for messages."""
    return _BECOMES[domain.recipe.annotate.personal_data.action]


def personal_data_notices(domain: Domain) -> list[str]:
    """What personal data the recipe's data files hold, a line a file; of a long file the beginning is looked at."""
    screen, data = Screen(domain.recipe.annotate.personal_data), domain.recipe.data
    if screen.action == "off":
        return []
    into_store = [*map(Path, data.prompts), *(file.path for file in data.preferences)]
    others = [Path(name) for name in (*data.demonstrations, *data.benchmark, *data.corpus)]
    notices = []
    for file in dict.fromkeys([*into_store, *others]):
        found, whole = _look_at(file, screen)
        if found.rows:
            part = "" if whole else " (only this beginning of the file was looked at)"
            becomes = what_becomes_of_it(domain) if file in into_store else "nothing changes it"
            notices.append(f"{file}: {found.told()}{part}; {becomes}.")
    return notices


def _look_at(file: Path, screen: Screen) -> tuple[Findings, bool]:
    """The personal data in the first `LOOKED_AT` characters of a file, and whether that is all of it."""
    from plumbline.preferences.importers.files import raw_rows

    found, characters = Findings(), 0
    try:
        for row in raw_rows(file):
            if characters > LOOKED_AT:
                return found, False
            characters += sum(map(len, texts_of(row.shown)))
            found.add(row.line, screen.kinds(row.shown))
    except DataError:  # told by the checks of the data themselves
        pass
    return found, True


class ScreenedTasks:
    """Sampled tasks on their way to the store, screened as the recipe says; what was found is told at the end."""

    def __init__(self, domain: Domain) -> None:
        self.domain = domain
        self.screen = Screen(domain.recipe.annotate.personal_data)
        self.found = Findings()
        self.lost = 0
        self.listed: list[str] = []
        self.withheld: set[str] = set()  # keys of tasks that do not enter the store as they are

    def of(self, tasks: Iterable[NewTask]) -> Iterator[NewTask]:
        """The tasks that may enter the store, masked where that is asked for.

        Responses that are the same once they are masked are shown once; a task that has one left is left out.
        """
        for number, task in enumerate(tasks, 1):
            kinds = self.screen.kinds_of_task(task)
            self.found.add(number, kinds)
            if kinds and self.screen.action in ("mask", "set_aside"):
                self.withheld.add(_key(task))
            if kinds and self.screen.action == "mask":
                masked = _distinct(self.screen.masked_task(task))
                if task_fault(masked) is None:
                    yield masked
                else:
                    self.lost += 1
                continue
            if kinds:
                self.listed.append(_listed(task, sorted(kinds)))
            if not kinds or self.screen.action == "report":
                yield task

    def tell(self, *, new: int) -> None:
        """Write the list of tasks with personal data, and say how many there are.

        Args:
            new: how many tasks went into the store now; of those that were there it was told before.
        """
        place = self.domain.run.root / LISTED
        if self.listed:
            write_synced(place, "".join(self.listed))
        else:
            place.unlink(missing_ok=True)
        if not self.found.rows or not (new or self.screen.action == "set_aside"):
            return
        told = f"sampled tasks: {self.found.told('task', lines=False)}; {_TASKS_BECOME[self.screen.action]}"
        if self.listed:
            told += f"; they are listed in {place}"
        if self.lost:
            told += f"; {counted(self.lost, 'task')} left out, whose responses are the same then"
        self.domain.notify(f"{told}.")


_TASKS_BECOME = {
    "report": "they are handed out as they are (annotate.personal_data: report)",
    "set_aside": "they are not handed out (annotate.personal_data: set_aside)",
    "mask": "it is masked on its way into the store (annotate.personal_data: mask)",
}


def _distinct(task: NewTask) -> NewTask:
    responses = {response.text.strip(): response for response in reversed(task.responses)}
    kept = [response for response in task.responses if responses[response.text.strip()] is response]
    return replace(task, responses=kept)


def _key(task: NewTask) -> str:
    return task_key(task.prompt, [response.text for response in task.responses])


def _listed(task: NewTask, kinds: list[str]) -> str:
    return json.dumps({"task_id": _key(task), "kinds": kinds, "prompt": task.prompt}, ensure_ascii=False) + "\n"
