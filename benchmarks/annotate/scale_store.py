"""Fill a store with as many judgements as a large project has, without going through the queue.

    python -m benchmarks.annotate.scale_store big.db                    # 100,000 items, 1,000,000 judgements
    python -m benchmarks.annotate.scale_store big.db --items 1000 --judgements 10000

Annotators rank by a common utility with noise of their own; two of them always prefer what is shown first, two rank at
random, so that statistics have something to find. The first items of the queue are full, the rest is open.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from sqlalchemy import insert, select, text, update

from plumbline.conversations import prompt_key
from plumbline.preferences.service import PreferenceService
from plumbline.preferences.store import Store
from plumbline.preferences.tables import Annotator, Answer, Lease, Project, Tally, Task
from plumbline.preferences.validation import dense_ranks, response_key, task_key

WORDS = ("the", "answer", "customer", "can", "with", "care", "order", "refund", "parcel", "late", "account", "people")
BATCH = 500
FIRST_DAY = datetime(2026, 1, 5, 8, tzinfo=UTC)


@dataclass(frozen=True)
class Scale:
    """How large the store becomes; each judged item has `overlap` judgements by different annotators."""

    items: int = 100_000
    judgements: int = 1_000_000
    annotators: int = 100
    overlap: int = 12
    project: str = "support"
    seed: int = 0


def fill(store: Store, scale: Scale) -> list[str]:
    """Add items, judgements and annotators of `scale` to an empty store; returns the annotators' ids.

    Raises:
        ValueError: there are fewer annotators than judgements of an item, or fewer items than the judgements need.
    """
    if scale.annotators < scale.overlap or scale.items * scale.overlap < scale.judgements:
        raise ValueError("too few annotators for this overlap, or too few items for these judgements")
    service = PreferenceService(store, project=scale.project)
    service.set_overlap(scale.overlap)
    people = [service.sign_in(f"annotator {number:03}").annotator_id for number in range(scale.annotators)]
    with store.read() as connection:
        project = connection.execute(select(Project.id).where(Project.name == scale.project)).scalar_one()
        rows = connection.execute(select(Annotator.id).where(Annotator.annotator_id.in_(people)).order_by(Annotator.id))
        annotators = np.array(rows.scalars().all())
    for tasks, leases, answers in _batches(scale, project, annotators):
        with store.write() as connection:
            connection.execute(insert(Task), tasks)
            if answers:
                connection.execute(insert(Lease), leases)
                connection.execute(insert(Answer), answers)
    _count(store, project)
    return people


def _batches(scale: Scale, project: int, annotators: np.ndarray) -> Iterator[tuple[list[Any], list[Any], list[Any]]]:
    rng = np.random.default_rng(scale.seed)
    noise = rng.uniform(0.3, 1.2, len(annotators))  # (annotators,), in units of the utility's own spread
    noise[:2] = 50.0
    first = np.zeros(len(annotators))
    first[2:4] = 3.0
    given = 0
    for start in range(0, scale.items, BATCH):
        tasks: list[dict[str, Any]] = []
        leases: list[dict[str, Any]] = []
        answers: list[dict[str, Any]] = []
        for number in range(start, min(start + BATCH, scale.items)):
            task = _task(rng, project, number + 1, scale.overlap)
            size = len(task["responses"])
            wanted = min(scale.overlap, scale.judgements - given)
            task |= {"taken": wanted, "judged": wanted}
            tasks.append(task)
            if not wanted:
                continue
            who = rng.permutation(len(annotators))[:wanted]
            shown = rng.random((wanted, size)).argsort(axis=1)  # (judgements, responses): position to response
            utility = rng.normal(size=size) + noise[who, None] * rng.normal(size=(wanted, size))
            utility[np.arange(wanted), shown[:, 0]] += first[who]
            steps = np.round(-2 * utility).astype(int).tolist()  # coarse, so that there are ties
            seconds = np.round(rng.lognormal(3.3, 0.5, wanted), 1).tolist()
            for place in range(wanted):
                given += 1
                at = FIRST_DAY + timedelta(seconds=5 * given)
                values = {"project_id": project, "task_id": task["id"], "annotator_id": int(annotators[who[place]])}
                order = shown[place].tolist()
                leases.append(_lease(rng, given, values, order, at))
                answers.append(_answer(rng, given, values, order, at, dense_ranks(steps[place]), seconds[place]))
        yield tasks, leases, answers


def _task(rng: np.random.Generator, project: int, number: int, wanted: int) -> dict[str, Any]:
    prompt = [{"role": "user", "content": f"Question {number}: {_words(rng, 40)}?"}]
    texts = [f"Answer {index}: {_words(rng, 60)}." for index in range(int(rng.integers(2, 5)))]
    key = task_key(prompt, texts)
    responses = [
        {"id": response_key(key, text), "text": text, "source": f"policy-{index}", "source_hash": None, "meta": {}}
        for index, text in enumerate(texts)
    ]
    return {
        "id": number,
        "project_id": project,
        "prompt_key": prompt_key(prompt),
        "key": key,
        "prompt": prompt,
        "responses": sorted(responses, key=lambda response: str(response["id"])),
        "meta": {},
        "origin": "sample",
        "wanted": wanted,
        "created_at": FIRST_DAY,
    }


def _words(rng: np.random.Generator, number: int) -> str:
    return " ".join(WORDS[index] for index in rng.integers(0, len(WORDS), number))


def _lease(
    rng: np.random.Generator, row: int, values: dict[str, int], order: list[int], at: datetime
) -> dict[str, Any]:
    times = {"created_at": at - timedelta(seconds=30), "expires_at": at + timedelta(minutes=15)}
    state = {"state": "answered", "slot": True, "supersedes_id": None, "shown_order": order}
    return {"id": row, "lease_id": rng.bytes(16).hex(), **values, **state, **times}


def _answer(
    rng: np.random.Generator,
    row: int,
    values: dict[str, int],
    order: list[int],
    at: datetime,
    ranks: tuple[int, ...],
    seconds: float,
) -> dict[str, Any]:
    said = {"ranks": list(ranks), "shown_order": order, "judged_at": at, "seconds": seconds}
    return {"id": row, "answer_id": rng.bytes(16).hex(), "kind": "judgement", **values, "lease_id": row, **said}


def _count(store: Store, project: int) -> None:
    """Bring the annotators' tallies, and on PostgreSQL the sequences of row ids, up to the rows."""
    judged = select(Answer.id).where(Answer.annotator_id == Tally.annotator_id).with_only_columns(text("count(*)"))
    with store.write() as connection:
        connection.execute(update(Tally).where(Tally.project_id == project).values(judged=judged.scalar_subquery()))
        if not store.is_sqlite:
            for name in ("tasks", "leases", "answers"):
                highest = f"(SELECT max(id) FROM {name})"
                connection.execute(text(f"SELECT setval(pg_get_serial_sequence('{name}', 'id'), {highest})"))
            connection.execute(text("ANALYZE"))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Fill a store with many judgements.")
    parser.add_argument("store", help="a file that is not there yet, or the URL of an empty PostgreSQL database")
    defaults = Scale()
    for name in ("items", "judgements", "annotators", "overlap", "seed"):
        parser.add_argument(f"--{name}", type=int, default=getattr(defaults, name))
    arguments = vars(parser.parse_args())
    began = time.perf_counter()
    store = Store.open(arguments.pop("store"))
    fill(store, Scale(**arguments))
    store.close()
    print(f"{arguments['items']:,} items, {arguments['judgements']:,} judgements: {time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
