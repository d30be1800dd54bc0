"""plumbline and Label Studio under the same load, one after the other at each number of annotators."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.annotate.checks import faults
from benchmarks.annotate.client import Outcome, load
from benchmarks.annotate.label_studio import LabelStudio
from benchmarks.annotate.levels import fill, percentiles, sqlite_file
from benchmarks.annotate.server import Server
from plumbline.preferences.store import Store

HEAD = (
    "| annotators | judgements/s, Label Studio | plumbline | ratio "
    "| p50 / p95 / p99 / most, ms, Label Studio | plumbline "
    "| errors and refusals, Label Studio | plumbline | faults in the database, Label Studio | plumbline |\n"
    "|---|---|---|---|---|---|---|---|---|---|"
)


def compare(levels: Sequence[int], seconds: float, items: int) -> None:
    """Print a table; Label Studio runs three times as long at each level, because it answers so few."""
    with tempfile.TemporaryDirectory(prefix="pl-ls-") as folder, sqlite_file() as place:
        store = Store.open(place)
        fill(store, items)
        with LabelStudio(Path(folder), max(levels)) as theirs, Server(place) as ours:
            print(HEAD, flush=True)
            outcomes = []
            for annotators in levels:
                their, wrong = theirs.load(annotators, 3 * seconds)
                outcomes.append(asyncio.run(load(ours.port, annotators, seconds)))
                print(_row(annotators, their, wrong, outcomes[-1], faults(store, *outcomes)), flush=True)
        store.close()


def _row(
    annotators: int, their: Outcome, their_faults: dict[str, int], our: Outcome, our_faults: dict[str, int | str]
) -> str:
    rates = [len(outcome.acknowledged) / outcome.seconds for outcome in (their, our)]
    times = [" / ".join(f"{time:.0f}" for time in percentiles(outcome)) for outcome in (their, our)]
    failures = [(outcome.errors + outcome.refusals).total() for outcome in (their, our)]
    wrong = [_told(found) for found in (their_faults, our_faults)]
    ratio = rates[1] / rates[0] if rates[0] else float("inf")
    return (
        f"| {annotators} | {rates[0]:.2f} | {rates[1]:.1f} | {ratio:.1f} | {times[0]} | {times[1]} "
        f"| {failures[0]} | {failures[1]} | {wrong[0]} | {wrong[1]} |"
    )


def _told(found: dict[str, int] | dict[str, int | str]) -> str:
    return ", ".join(f"{number} {what}" for what, number in found.items() if number) or "none"
