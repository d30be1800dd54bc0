"""Errors that a user can mend: one clear sentence each, shown without a traceback, exit status 2.

Everything else that is raised is a fault of plumbline and keeps its traceback.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from textwrap import indent
from typing import ParamSpec, TypeVar

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class UserError(Exception):
    """A mistake or a state that the user can mend; the message says what is wrong, where, and what to do."""


class DataError(UserError, ValueError):
    """A data file has a fault.

    Args:
        path: the file.
        line: the 1-based line (or row) number, where there is one.
        what: what is wrong with it and what to do.
    """

    def __init__(self, path: str | Path, line: int | None, what: str) -> None:
        self.path, self.line, self.what = Path(path), line, what
        super().__init__(f"{path}:{line}: {what}" if line else f"{path}: {what}")


class RecipeError(UserError, ValueError):
    """A recipe has faults; all of them are told at once, each with file and line."""

    def __init__(self, faults: Sequence[str]) -> None:
        self.faults = list(faults)
        super().__init__(_listed("the recipe has", self.faults))


class Faults:
    """What independent checks refuse, collected, so that a user is told all of it at once."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def attempt(
        self, check: Callable[Arguments, Result], *given: Arguments.args, **named: Arguments.kwargs
    ) -> Result | None:
        """What `check` returns; None where it raises a UserError, whose message is kept."""
        try:
            return check(*given, **named)
        except UserError as error:
            self.found.append(str(error))
            return None

    def raise_together(self, head: str) -> None:
        """Raise what was found, if anything: one fault as it is, several in a list under `head` and their number.

        Raises:
            UserError: there are faults.
        """
        if len(self.found) == 1:
            raise UserError(self.found[0])
        if self.found:
            raise UserError(_listed(head, self.found))


def _listed(head: str, faults: Sequence[str]) -> str:
    number = "a fault" if len(faults) == 1 else f"{len(faults)} faults"
    return "\n".join([f"{head} {number}:", *(indent(fault, "  ") for fault in faults)])


def counted(number: int, noun: str) -> str:
    """A number with its noun, for messages: `1 prompt`, `2 prompts`, `1,600 prompts`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


class MismatchError(UserError):
    """Two things that must fit do not: another tokenizer, another chat template, an adapter over another base."""


class RunLockedError(UserError):
    """Another process works on the same run folder."""

    def __init__(self, folder: Path, pid: int | None) -> None:
        self.folder, self.pid = folder, pid
        who = f"process {pid}" if pid else "another process"
        super().__init__(f"{folder} is in use by {who}: wait until it ends, or give this run another name with --run.")


class StoreError(UserError):
    """The preference store refuses: written by a newer version, lease lost, unknown response, and the like."""


class StoreUnavailable(StoreError):
    """The store cannot be read or written just now, and nothing of the last change was saved; it may heal by itself.

    Args:
        message: for who runs the program; may name files, addresses and what the database said.
        why: the same in a few words for everybody, without these.
    """

    def __init__(self, message: str, why: str = "the store cannot be used") -> None:
        self.why = why
        super().__init__(message)


class StoreConflict(StoreUnavailable):
    """Two changes got in each other's way, and this one was undone: the same again will do."""


class NoStoreError(StoreError):
    """There is no preference store yet, where one is only to be read.

    Attributes:
        place: where it would be: a file, or a database's address without its password.
    """

    def __init__(self, place: str) -> None:
        self.place = place
        super().__init__(f"{place}: there is no preference store: collect or import preferences first.")


class WaitingForPeople(Exception):
    """The chain stands at the annotation stage: judgements are missing. Not an error.

    Attributes:
        missing: how many judgements are still missing.
        required: how many are needed in all.
    """

    def __init__(self, missing: int, required: int, arguments: str, *, skipped: int = 0, flagged: int = 0) -> None:
        self.missing, self.required = missing, required
        message = (
            f"still missing: {missing} of {counted(required, 'judgement')}. Open the annotation app with\n"
            f"  plumbline annotate {arguments}\n"
            f"then go on with\n  plumbline run {arguments}"
        )
        if flagged:
            message += (
                f"\n{counted(flagged, 'flag')}: what is flagged is neither handed out nor waited for "
                "(`plumbline export … --format flags` lists it)"
            )
        if skipped:
            enough = max(required - missing, 1)
            message += (
                f"\nskipped: {counted(skipped, 'task')}; to go on with what there is, set annotate.required={enough}"
            )
        super().__init__(message)
