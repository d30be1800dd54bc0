"""Rates and times of the app with 1, 8, 32 and 64 annotators, without pause and at a human pace."""

from __future__ import annotations

import asyncio
import contextlib
import random
import resource
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.annotate.client import Outcome, load
from benchmarks.annotate.server import PROJECT, Server
from plumbline.preferences.records import NewResponse, NewTask
from plumbline.preferences.service import PreferenceService
from plumbline.preferences.store import Store

WORDS = ("the", "model", "should", "answer", "with", "care", "about", "cost", "time", "data", "people", "clear")


@dataclass(frozen=True)
class Level:
    """What was measured at one number of annotators; times in milliseconds, processor time in cores."""

    annotators: int
    pace: float
    rate: float
    p50: float
    p95: float
    p99: float
    most: float
    errors: int
    refusals: int
    server_cpu: float
    client_cpu: float
    memory_mb: float

    def row(self) -> str:
        """As a line of a Markdown table under `HEAD`."""
        pace = f"one in {self.pace:g} s" if self.pace else "none"
        times = " / ".join(f"{time:.0f}" for time in (self.p50, self.p95, self.p99, self.most))
        return (
            f"| {self.annotators} | {pace} | {self.rate:.1f} | {times} "
            f"| {self.errors} | {self.refusals} | {self.server_cpu:.2f} + {self.client_cpu:.2f} "
            f"| {self.memory_mb:.0f} |"
        )


HEAD = (
    "| annotators | pause | judgements/s | p50 / p95 / p99 / most, ms | errors | refusals "
    "| cores: server + client | MB |\n"
    "|---|---|---|---|---|---|---|---|"
)


def words(rng: random.Random, characters: int = 300) -> str:
    """Random words, about this long in all."""
    return " ".join(rng.choices(WORDS, k=characters // 5))


def fill(store: Store, items: int, *, responses: int = 2, overlap: int = 1) -> None:
    """Add items of about 300 characters a text."""
    rng = random.Random(0)
    service = PreferenceService(store, project=PROJECT)
    service.set_overlap(overlap)
    service.add_tasks(
        NewTask(
            [{"role": "user", "content": f"{number}: {words(rng)}"}],
            [NewResponse(words(rng), f"policy-{index}") for index in range(responses)],
            PROJECT,
        )
        for number in range(items)
    )


@contextlib.contextmanager
def sqlite_file() -> Iterator[str]:
    """Where a store can be made; gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="pl-load-"))
    try:
        yield str(folder / "preferences.db")
    finally:
        shutil.rmtree(folder)


def measure(
    server: Server, annotators: int, seconds: float, pace: float = 0.0, warm_up: float = 2.0
) -> tuple[Outcome, Level]:
    """One level on a running server."""
    used = server.cpu_seconds(), _own_cpu()
    fresh = 5 if server.workers > 1 else 0  # so that sessions move between the processes
    outcome = asyncio.run(load(server.port, annotators, seconds, pace=pace, warm_up=warm_up, fresh_every=fresh))
    wall = outcome.seconds + warm_up
    return outcome, Level(
        annotators,
        pace,
        outcome.rate,
        *percentiles(outcome),
        sum(outcome.errors.values()),
        sum(outcome.refusals.values()),
        (server.cpu_seconds() - used[0]) / wall,
        (_own_cpu() - used[1]) / wall,
        server.memory() / 1e6,
    )


def percentiles(outcome: Outcome) -> tuple[float, float, float, float]:
    """The 50th, 95th and 99th percentile and the most of the submits' times, in milliseconds."""
    times = sorted(outcome.times) or [0.0]
    p50, p95, p99 = (1000 * times[min(len(times) - 1, int(share * len(times)))] for share in (0.5, 0.95, 0.99))
    return p50, p95, p99, 1000 * times[-1]


def _own_cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
