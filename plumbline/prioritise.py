"""Active selection: the tasks that a reward model is least sure of are judged first.

How uncertain the model is of a task is the mean over its pairs of responses of 1 - |2·sigmoid(d) - 1|, with d the
difference of their scores: 1 where it cannot tell, near 0 where it is sure.

Preferences that were chosen in this way say nothing unbiased about the model. So every fifth place of the queue goes to
the next task in the order of the tasks' hashes: at whatever point collecting stops, the tasks with the lowest hashes, a
fifth of what was judged or more, are all judged, and they are a random sample of all tasks.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, islice
from typing import TYPE_CHECKING

from plumbline.domain import Domain
from plumbline.errors import UserError

if TYPE_CHECKING:
    from plumbline.preferences.queue_control import OpenTask
    from reward import RewardModel

RANDOM_EVERY = 5
"""Every fifth place of the queue, from the first on, is a random task's."""

TASKS_AT_ONCE = 32


@dataclass(frozen=True)
class Prioritised:
    """What was done: `tasks` were put in order, `random` of them at random; the mean `uncertainty` of all."""

    tasks: int
    random: int
    uncertainty: float


def prioritise_tasks(domain: Domain) -> Prioritised:
    """Put the open tasks of a run in order by its reward model. Tasks that are added later come after these.

    Raises:
        UserError: the run has no finished reward model, or no task is open.
    """
    from reward import RewardModel

    model = RewardModel.load(domain.model_of("reward"))
    with domain.service(create=False) as service:
        found = dict(uncertainties(model, service.control.open_tasks()))
        if not found:
            raise UserError("no task is open, so there is nothing to put in order: sample responses first.")
        order = mixed_order(found)
        service.control.set_priorities({task: len(order) - place for place, task in enumerate(order)})
    return Prioritised(len(order), -(-len(order) // RANDOM_EVERY), sum(found.values()) / len(found))


def uncertainties(model: RewardModel, tasks: Iterable[OpenTask]) -> Iterator[tuple[str, float]]:
    """Each task's id with how uncertain the model is of it; 0 where its texts do not fit into the model."""
    stream = iter(tasks)
    while batch := list(islice(stream, TASKS_AT_ONCE)):
        try:
            yield from _scored(model, batch)
        except UserError:  # one conversation is too long: the others are scored all the same
            for task in batch:
                try:
                    yield from _scored(model, [task])
                except UserError:
                    yield task.task_id, 0.0


def uncertainty(scores: Sequence[float]) -> float:
    """How uncertain a model with these scores is of their order: 1 where all are equal, near 0 where none are near."""
    # 1 - |2·sigmoid(d) - 1| is 1 - |tanh(d / 2)|, which does not overflow.
    pairs = [1 - abs(math.tanh((first - second) / 2)) for first, second in combinations(scores, 2)]
    return sum(pairs) / len(pairs)


def mixed_order(found: dict[str, float]) -> list[str]:
    """Tasks by falling uncertainty, but for every fifth place, which goes to the next task in the order of hashes."""
    by_chance = iter(sorted(found, key=_hashed))
    by_uncertainty = iter(sorted(found, key=lambda task: (-found[task], _hashed(task))))
    order: dict[str, None] = {}
    while len(order) < len(found):
        source = by_uncertainty if len(order) % RANDOM_EVERY else by_chance
        order[next(task for task in source if task not in order)] = None
    return list(order)


def _hashed(task: str) -> str:
    return hashlib.sha256(f"prioritise:{task}".encode()).hexdigest()


def _scored(model: RewardModel, tasks: Sequence[OpenTask]) -> Iterator[tuple[str, float]]:
    conversations = [
        [*task.prompt, {"role": "assistant", "content": text}] for task in tasks for text in task.responses
    ]
    scores = iter(model.score(conversations).tolist())
    for task in tasks:
        yield task.task_id, uncertainty(list(islice(scores, len(task.responses))))
