"""What plumbline prints: one console on standard error, and progress bars with rate and time left."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

Item = TypeVar("Item")

console = Console(stderr=True)
"""Progress and notes for people; results go to standard output."""


class RateColumn(ProgressColumn):
    """Items a second, or seconds an item where it is slow."""

    def render(self, task: Task) -> Text:
        """Draw the rate of one task."""
        speed = task.finished_speed or task.speed
        if not speed:
            return Text("")
        unit = task.fields.get("unit", "it")
        return Text(f"{speed:.1f} {unit}/s" if speed >= 1 else f"{1 / speed:.1f} s/{unit}", style="dim")


def amount(size: float) -> str:
    """Bytes in words: `19.3 MiB`, `1.2 GiB`."""
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.1f} MiB"


def progress_bar() -> Progress:
    """A progress display: what is being done, how far, the rate, the time spent and the time left.

    Tasks may carry `unit="prompts"` (shown in the rate) and `note="loss 1.23"` (shown at the end).
    """
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        RateColumn(),
        TimeElapsedColumn(),
        TextColumn("left", style="dim"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", style="dim"),
        console=console,
        transient=not console.is_terminal,
    )


def track(items: Iterable[Item], what: str, *, total: int | None = None, unit: str = "it") -> Iterator[Item]:
    """Yield `items` while a progress bar called `what` counts them."""
    with progress_bar() as bar:
        size = total if total is not None else getattr(items, "__len__", lambda: None)()
        task = bar.add_task(what, total=size, unit=unit, note="")
        for item in items:
            yield item
            bar.advance(task)
