"""What annotators get while the disk is full, the store cannot be written, or PostgreSQL restarts; and afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.annotate.checks import faults
from benchmarks.annotate.client import Outcome, load
from benchmarks.annotate.levels import fill
from benchmarks.annotate.server import Server
from plumbline.preferences.store import Store

ITEMS = 3_000
SECONDS_BEFORE, SECONDS_OF_OUTAGE, SECONDS_AFTER = 2.0, 3.0, 3.0
HEAD = (
    "| outage | acknowledged before, meanwhile, after | answers meanwhile | first acknowledged after the end, s "
    "| faults in the store |\n|---|---|---|---|---|"
)


@dataclass
class Seen:
    """What annotators saw of an outage."""

    name: str
    counts: tuple[int, int, int]
    answers: dict[str, int]
    resumed: float
    wrong: str

    def row(self) -> str:
        """As a line of a Markdown table under `HEAD`."""
        answers = "; ".join(f"{number} times {what}" for what, number in self.answers.items()) or "none"
        return f"| {self.name} | {self.counts} | {answers} | {self.resumed:.2f} | {self.wrong or 'none'} |"


def disk_full() -> Seen:
    """The store's file system has no room left, until something is removed from it."""
    with _small_disk() as folder:

        @contextlib.contextmanager
        def outage() -> Iterator[None]:
            filler = folder / "filler"
            with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
                while True:
                    file.write(bytes(4096))
            yield
            filler.unlink()

        return _observe("disk full", str(folder / "preferences.db"), outage)


def read_only() -> Seen:
    """The store's files cannot be written (`chattr +i`), until they can be again."""
    folder = Path(tempfile.mkdtemp(prefix="pl-load-"))
    place = folder / "preferences.db"

    @contextlib.contextmanager
    def outage() -> Iterator[None]:
        files = [place, Path(f"{place}-wal")]
        subprocess.run(["chattr", "+i", *files], check=True)
        try:
            yield
        finally:
            subprocess.run(["chattr", "-i", *files], check=True)

    return _observe("store read-only", str(place), outage)


def restarted(url: str, stop: Callable[[], None], start: Callable[[], None]) -> Seen:
    """PostgreSQL is stopped, and started again."""

    @contextlib.contextmanager
    def outage() -> Iterator[None]:
        stop()
        yield
        start()

    return _observe("PostgreSQL stopped and started", url, outage)


def _observe(name: str, place: str, outage: Callable[[], AbstractContextManager[None]]) -> Seen:
    store = Store.open(place)
    fill(store, ITEMS)
    counts: list[int] = []
    resumed = [0.0]

    async def happen(outcome: Outcome) -> None:
        await asyncio.sleep(SECONDS_BEFORE)
        manager = outage()
        await asyncio.to_thread(manager.__enter__)
        counts.append(len(outcome.acknowledged))
        await asyncio.sleep(SECONDS_OF_OUTAGE)
        counts.append(len(outcome.acknowledged) - counts[0])
        await asyncio.to_thread(manager.__exit__, None, None, None)
        ended, there = time.perf_counter(), len(outcome.acknowledged)
        while len(outcome.acknowledged) == there and time.perf_counter() - ended < 30:
            await asyncio.sleep(0.005)
        resumed[0] = time.perf_counter() - ended
        await asyncio.sleep(SECONDS_AFTER)
        counts.append(len(outcome.acknowledged) - there)
        outcome.stopped = True

    with Server(place) as server:
        outcome = asyncio.run(load(server.port, 8, 120.0, meanwhile=happen))
    found = faults(store, outcome)
    store.close()
    wrong = "; ".join(f"{value} {what}" for what, value in found.items())
    answers = dict((outcome.refusals + outcome.errors).most_common())
    return Seen(name, (counts[0], counts[1], counts[2]), answers, resumed[0], wrong)


@contextlib.contextmanager
def _small_disk() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="pl-disk-"))
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        raise OSError(errno.EPERM, f"a small disk cannot be mounted here: {mounted.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)
        folder.rmdir()
