"""Active selection: the tasks that a reward model is least sure of are judged first.

How uncertain the model is of a task is the mean over its pairs of responses of 1 - |2·sigmoid(d) - 1|, with d the
difference of their scores: 1 where it cannot tell, near 0 where it is sure.

Preferences that were chosen in this way say nothing unbiased about the model. So every fifth place of the queue goes to
a task of a random fifth of all (`preferences.selection`), in random order, and the other places to the others: at
whatever point collecting stops, the judged tasks of that fifth are a random sample of all tasks. Exports name them.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, islice
from typing import TYPE_CHECKING

from plumbline.domain import Domain
from plumbline.errors import UserError
from plumbline.preferences.selection import ONE_IN, by_chance, in_random_sample, note_active

if TYPE_CHECKING:
    from plumbline.preferences.queue_control import OpenTask
    from reward import RewardModel

TASKS_AT_ONCE = 32


@dataclass(frozen=True)
class Prioritised:
    """What was done: `tasks` were put in order, `random` of them by chance; the mean `uncertainty` of all."""

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
        with service.control.turn() as turn:
            service.control.set_priorities({task: len(order) - place for place, task in enumerate(order)})
            note_active(turn)
    return Prioritised(len(order), sum(map(in_random_sample, order)), sum(found.values()) / len(found))


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
    """Tasks by falling uncertainty, but for every fifth place, which goes to the next one of the random sample.

    Where there are no more of the one kind, the others follow.
    """
    sample = deque(sorted(filter(in_random_sample, found), key=by_chance))
    unsure = deque(sorted(found.keys() - set(sample), key=lambda task: (-found[task], by_chance(task))))
    order: list[str] = []
    while sample or unsure:
        first, second = (unsure, sample) if len(order) % ONE_IN else (sample, unsure)
        order.append((first or second).popleft())
    return order


def _scored(model: RewardModel, tasks: Sequence[OpenTask]) -> Iterator[tuple[str, float]]:
    conversations = [
        [*task.prompt, {"role": "assistant", "content": text}] for task in tasks for text in task.responses
    ]
    scores = iter(model.score(conversations).tolist())
    for task in tasks:
        yield task.task_id, uncertainty(list(islice(scores, len(task.responses))))
