"""How the preference store does at scale: import, queue, snapshot and export, with time and peak memory of each.

    python benchmarks/preferences_scale.py --judgements 1000000 --folder /tmp/scale

Each step runs in a process of its own, so that its peak memory is its own. Texts are about 300 characters a response.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from plumbline.preferences.counting import LiveCounts
from plumbline.preferences.exporters import export_preferences
from plumbline.preferences.importers import import_preferences
from plumbline.preferences.pace import Pace
from plumbline.preferences.pairs import load_pairs
from plumbline.preferences.records import Assignment, NewResponse, NewTask
from plumbline.preferences.service import PreferenceService
from plumbline.preferences.snapshot import write_snapshot
from plumbline.preferences.store import Store

WORDS = ("parcel", "refund", "order", "late", "account", "please", "invoice", "number", "where", "change", "today")
OPEN_TASKS = 100_000
TURNS = 500


def sentence(rng: random.Random, words: int) -> str:
    """Words at random, about six characters each."""
    return " ".join(rng.choices(WORDS, k=words))


def make_file(service: PreferenceService, folder: Path, judgements: int) -> str:
    """Write the file to import; not part of what is measured."""
    rng = random.Random(0)
    with (folder / "in.jsonl").open("w") as file:
        for number in range(judgements):
            row = {
                "prompt": [{"role": "user", "content": f"{number}: {sentence(rng, 20)}"}],
                "chosen": [{"role": "assistant", "content": sentence(rng, 48)}],
                "rejected": [{"role": "assistant", "content": sentence(rng, 48)}],
                "annotator": f"annotator {number % 20}",
            }
            file.write(json.dumps(row) + "\n")
    return f"{(folder / 'in.jsonl').stat().st_size / 1e6:.0f} MB"


def take(service: PreferenceService, folder: Path, judgements: int) -> str:
    """Import the file."""
    return f"{import_preferences(folder / 'in.jsonl', service).taken} taken"


def take_again(service: PreferenceService, folder: Path, judgements: int) -> str:
    """Import it a second time: nothing goes in."""
    return f"{import_preferences(folder / 'in.jsonl', service).present} present"


def annotate(service: PreferenceService, folder: Path, judgements: int) -> str:
    """Hand out and judge among many open tasks, beside all that is stored; times in ms."""
    texts = [NewResponse("one", "a"), NewResponse("two", "b")]
    service.add_tasks(
        NewTask([{"role": "user", "content": f"open {number}"}], texts, "scale") for number in range(OPEN_TASKS)
    )
    who = service.sign_in("Anna").annotator_id
    pace = Pace(service.store, project=service.project)
    times: dict[str, list[float]] = {"lease_next": [], "judge": [], "progress": [], "counts": []}

    def timed(name: str, call: Callable[[], object]) -> object:
        start = time.perf_counter()
        result = call()
        times[name].append(1000 * (time.perf_counter() - start))
        return result

    for _ in range(TURNS):
        work = timed("lease_next", lambda: service.lease_next(who))
        assert isinstance(work, Assignment)
        lease, ranking = work.lease_id, {card.response_id: card.position + 1 for card in work.cards}
        timed("judge", lambda lease=lease, ranking=ranking: service.judge(lease, who, ranking, idempotency_key=lease))  # type: ignore[misc]
        timed("progress", service.progress)
        timed("counts", lambda: LiveCounts(service, pace).of(who))
    return "; ".join(
        f"{name} p50 {statistics.median(values):.1f} p95 {statistics.quantiles(values, n=20)[-1]:.1f}"
        for name, values in times.items()
    )


def snapshot(service: PreferenceService, folder: Path, judgements: int) -> str:
    """Write a snapshot."""
    return f"{write_snapshot(service, folder / 'snapshot').judgements} judgements"


def pairs(service: PreferenceService, folder: Path, judgements: int) -> str:
    """Load the snapshot's training pairs of one part."""
    return f"{len(load_pairs(folder / 'snapshot', part='policy', split='train'))} pairs"


def export(service: PreferenceService, folder: Path, judgements: int) -> str:
    """Export TRL's preference format."""
    return f"{export_preferences(service, folder / 'out.jsonl').rows} rows"


STEPS = (make_file, take, take_again, annotate, snapshot, pairs, export)


def run_step(name: str, folder: Path, judgements: int) -> None:
    """Run one step and print what it did."""
    store = Store.open(folder / "scale.db")
    service = PreferenceService(store, project="scale")
    step = next(step for step in STEPS if step.__name__ == name)
    start = time.perf_counter()
    said = step(service, folder, judgements)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{name:<12} {seconds:8.1f} s  peak {peak:5.0f} MB  {said}", flush=True)
    store.close()


def main() -> None:
    """Run all steps, each in its own process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--judgements", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, required=True, help="where files of a few GB may be written")
    parser.add_argument("--step", choices=[step.__name__ for step in STEPS], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    if arguments.step:
        run_step(arguments.step, arguments.folder, arguments.judgements)
        return
    for step in STEPS:
        subprocess.run([sys.executable, __file__, *sys.argv[1:], "--step", step.__name__], check=True)
    print(f"{'store':<12} {(arguments.folder / 'scale.db').stat().st_size / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
