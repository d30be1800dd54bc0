"""The app on 100,000 items and 1,000,000 judgements: next item, quality page, exports. Each in a process of its own."""

from __future__ import annotations

import hashlib
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from sqlalchemy import text

from benchmarks.annotate.scale_store import Scale, fill
from benchmarks.annotate.server import PROJECT, ROOT
from plumbline.preferences import account_tables, tables
from plumbline.preferences.formats import EXPORTED
from plumbline.preferences.quality import Quality
from plumbline.preferences.records import Assignment
from plumbline.preferences.service import PreferenceService
from plumbline.preferences.store import Store

CACHE = Path(__file__).parent / ".cache"
TURNS = 500
EDITED, FLAGGED = 20, 10
"""One answer in so many is edited, and one item in so many flagged, before the two exports that need it."""

NEED_PLANTS = ("demonstrations", "flags")

HEAD = "| | result | time, s | processor, s | peak memory, MB |\n|---|---|---|---|---|"


def scale_file(scale: Scale | None = None) -> Path:
    """The store at scale, made where there is none for these tables (two minutes)."""
    scale = scale or Scale()
    sources = "".join(Path(str(module.__file__)).read_text() for module in (tables, account_tables))
    name = hashlib.sha256(f"{scale}{sources}".encode()).hexdigest()[:12]
    place = CACHE / f"scale-{name}.db"
    if not place.exists():
        CACHE.mkdir(exist_ok=True)
        making = place.with_suffix(".part")
        for older in CACHE.glob("scale-*"):
            older.unlink()
        store = Store.open(making)
        fill(store, scale)
        store.close()
        making.rename(place)
    return place


def next_item(service: PreferenceService, folder: Path) -> str:
    """The next item by itself, and in one transaction with the answer before, as the page asks for it."""
    who = service.sign_in("newcomer").annotator_id
    old = service.sign_in("annotator 050").annotator_id
    alone, together = [], []
    for person in (who, old):
        work = service.lease_next(person)
        for _ in range(TURNS // 2):
            assert isinstance(work, Assignment)
            ranking = {card.response_id: card.position + 1 for card in work.cards}
            lease = work.lease_id

            def judge(lease: str = lease, ranking: dict[str, int] = ranking, person: str = person) -> str:
                return service.judge(lease, person, ranking, idempotency_key=lease)

            began = time.perf_counter()
            work = service.then_next(person, judge)
            together.append(1000 * (time.perf_counter() - began))
            assert isinstance(work, Assignment)
            service.release(work.lease_id, person)
            began = time.perf_counter()
            work = service.lease_next(person)
            alone.append(1000 * (time.perf_counter() - began))
    return f"next item {_percentiles(alone)}; answer and next item {_percentiles(together)}"


def quality_page(service: PreferenceService, folder: Path) -> str:
    """The figures of the quality page, first without and then with what the page may keep."""
    quality = Quality(service.store, project=service.project, rules=service.rules)
    times = []
    for _ in range(3):
        began = time.perf_counter()
        quality.report(wait=False)
        times.append(time.perf_counter() - began)
    return f"first {times[0]:.2f} s, again {times[1]:.2f} and {times[2]:.2f} s"


def export_of(format: str) -> Callable[[PreferenceService, Path], str]:
    """The step that exports this format."""

    def export(service: PreferenceService, folder: Path) -> str:
        from plumbline.preferences.exporters import EXPORTERS, export_preferences

        path = folder / f"{format}.{EXPORTERS[format].SUFFIX}"
        rows = export_preferences(service, path, format=format).rows
        size = path.stat().st_size
        path.unlink()
        return f"{rows:,} rows, {size / 1e9:.2f} GB"

    return export


def plant(service: PreferenceService, folder: Path) -> str:
    """Improved responses and flags, of which the store at scale has none."""
    flags = (
        "INSERT INTO answers (answer_id, kind, project_id, task_id, annotator_id, judged_at, flags, reason) "
        f"SELECT 'flag-' || id, 'flag', project_id, id, 1, created_at, '[\"off-topic\"]', 'x' FROM tasks "
        f"WHERE id % {FLAGGED} = 0"
    )
    with service.store.write() as connection:
        edited = text(f"UPDATE answers SET edited = 'A better answer' WHERE id % {EDITED} = 0")
        return f"{connection.execute(edited).rowcount:,} and {connection.execute(text(flags)).rowcount:,}"


STEPS: dict[str, Callable[[PreferenceService, Path], str]] = {
    "next item": next_item,
    "quality page": quality_page,
    **{f"export {format}": export_of(format) for format in EXPORTED if format not in NEED_PLANTS},
    "plant improved responses and flags": plant,
    **{f"export {format}": export_of(format) for format in NEED_PLANTS},
}


def run(scale: Scale | None = None) -> None:
    """Print a table of all steps, each on the same copy of the store."""
    with tempfile.TemporaryDirectory(prefix="pl-scale-") as folder:
        shutil.copy(scale_file(scale), Path(folder) / "scale.db")
        print(HEAD, flush=True)
        for name in STEPS:
            step = [sys.executable, "-m", "benchmarks.annotate.scale", folder, name]
            subprocess.run(step, cwd=ROOT, check=False)


def _percentiles(times: list[float]) -> str:
    ordered = sorted(times)
    return f"p50 {ordered[len(ordered) // 2]:.1f}, p95 {ordered[int(0.95 * len(ordered))]:.1f} ms"


def main() -> None:
    """One step in this process."""
    folder, name = Path(sys.argv[1]), sys.argv[2]
    store = Store.open(folder / "scale.db")
    began, before = time.perf_counter(), time.process_time()
    said = STEPS[name](PreferenceService(store, project=PROJECT), folder)
    seconds, processor = time.perf_counter() - began, time.process_time() - before
    store.close()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"| {name} | {said} | {seconds:.1f} | {processor:.1f} | {peak:.0f} |", flush=True)


if __name__ == "__main__":
    main()
