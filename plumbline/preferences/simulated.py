"""Simulated annotators: they stand in for people in demonstrations and tests, and are marked as simulated everywhere.

A simulated annotator perceives each response i of a task as

    perceived(i) = utility(prompt, response i)
                 + length_bias · words(i) / 100
                 + position_bias · (1 - position(i) / (n - 1))
                 + noise · G(i),                  G(i) standard Gumbel, independent

and ranks by it. That is the Plackett–Luce model: of two responses, a is preferred to b with probability
sigmoid((v(a) - v(b)) / noise), where v is all but the last term (Bradley–Terry). Neighbours in the ranking that are
perceived nearer than `tie_below` are tied. With probability `carelessness` the annotator does not look at all and
ranks at random.

What an annotator says of a task depends on the seed, on its name and on the task alone, never on the order in which
tasks are handed out; of a task that is repeated, it draws anew. All go through `PreferenceService` as people do: they
get checks and repeats too, and are paused like people.
"""

from __future__ import annotations

import hashlib
import math
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

from plumbline.conversations import Conversation
from plumbline.errors import StoreError
from plumbline.preferences.records import REPEAT, WORK, Assignment, NoWork, Ranking
from plumbline.preferences.service import PreferenceService
from plumbline.recipe import SimulatedAnnotatorSettings

JUDGEMENTS_PER_COMMIT = 50
"""Simulated judgements are committed in groups, since nobody waits for an acknowledgement of each."""


class Utility(Protocol):
    """What the simulated annotators judge by."""

    def score(self, prompt: Conversation, response: str) -> float:
        """How good the response is."""


@dataclass(frozen=True)
class SimulationReport:
    """How many judgements were given, in all and by annotator's name."""

    judgements: int
    by_annotator: dict[str, int]


Track = Callable[..., Iterable[int]]
"""Draws progress: called with (items, what, total=), yields the items."""


def simulate(
    service: PreferenceService,
    utility: Utility,
    settings: Sequence[SimulatedAnnotatorSettings],
    *,
    seed: int,
    limit: int | None = None,
    progress: Track | None = None,
) -> SimulationReport:
    """Let simulated annotators judge in turn until nothing is left for them.

    Killed and started again, it goes on with the annotator whose turn it was, so that the result is the same.

    Args:
        settings: one simulated annotator each.
        limit: stop after this many judgements; checks and repeats are not counted, here and in what is returned.
        progress: see `Track`.

    Raises:
        StoreError: a name belongs to a person, or to a simulated annotator with other settings.
    """
    annotators = {
        one.name: service.sign_in(one.name, simulated=True, settings=_as_dict(one)).annotator_id for one in settings
    }
    done: Counter[str] = Counter()
    total = service.progress().missing if limit is None else min(limit, service.progress().missing)
    steps: Iterable[int] = _judge_all(service, utility, settings, annotators, seed, limit, done)
    for _ in progress(steps, "Simulated judgements", total=total) if progress else steps:
        pass
    return SimulationReport(done.total(), dict(done))


def refused_names(service: PreferenceService, settings: Sequence[SimulatedAnnotatorSettings]) -> list[str]:
    """Why `simulate` would refuse some of these annotators, one sentence each; nothing is changed."""
    refused = []
    for one in settings:
        try:
            service.check_name(one.name, simulated=True, settings=_as_dict(one))
        except StoreError as error:
            refused.append(str(error))
    return refused


def perceived(assignment: Assignment, utility: Utility, one: SimulatedAnnotatorSettings) -> dict[str, float]:
    """What each response is worth to an annotator, by response id: the formula above without noise."""
    last = len(assignment.cards) - 1
    return {
        card.response_id: utility.score(assignment.prompt, card.text)
        + one.length_bias * len(card.text.split()) / 100
        + one.position_bias * (1 - card.position / last)
        for card in assignment.cards
    }


def ranking_of(worth: dict[str, float], one: SimulatedAnnotatorSettings, rng: random.Random) -> Ranking:
    """One draw of a ranking by an annotator to whom the responses are worth this much."""
    ids = sorted(worth)
    if rng.random() < one.carelessness:
        return {name: rank for rank, name in enumerate(rng.sample(ids, len(ids)), 1)}
    noisy = {name: worth[name] + one.noise * _gumbel(rng) for name in ids}
    order = sorted(ids, key=lambda name: -noisy[name])
    ranking = {order[0]: 1}
    for better, worse in pairwise(order):
        ranking[worse] = ranking[better] + (noisy[better] - noisy[worse] >= one.tie_below)
    return ranking


def _judge_all(
    service: PreferenceService,
    utility: Utility,
    settings: Sequence[SimulatedAnnotatorSettings],
    annotators: dict[str, str],
    seed: int,
    limit: int | None,
    done: Counter[str],
) -> Iterator[int]:
    earlier = service.progress().by_annotator
    turn = sum(earlier.get(one.name, 0) for one in settings)
    idle = 0
    while idle < len(settings) and (limit is None or done.total() < limit):
        before = done.total()
        with service.store.write():
            for _ in range(JUDGEMENTS_PER_COMMIT):
                if idle == len(settings) or done.total() == limit:
                    break
                one = settings[turn % len(settings)]
                turn += 1
                purpose = _judge_next(service, utility, one, annotators[one.name], seed)
                done[one.name] += purpose == WORK
                idle = 0 if purpose else idle + 1
        yield from range(before, done.total())


def _judge_next(
    service: PreferenceService, utility: Utility, one: SimulatedAnnotatorSettings, annotator_id: str, seed: int
) -> str | None:
    """Judge the next task of this annotator, where there is one; returns its purpose."""
    work = service.lease_next(annotator_id)
    if isinstance(work, NoWork):
        return None
    purpose = service.purpose_of(work.lease_id) if service.rules.checks else WORK
    view = f"{work.task_id}:{REPEAT}" if purpose == REPEAT else work.task_id
    rng = random.Random(hashlib.sha256(f"{seed}:{one.name}:{view}".encode()).digest())
    ranking = ranking_of(perceived(work, utility, one), one, rng)
    service.judge(work.lease_id, annotator_id, ranking, idempotency_key=f"simulated:{seed}:{view}")
    return purpose


def _gumbel(rng: random.Random) -> float:
    """A standard Gumbel draw: minus the logarithm of an exponential one."""
    return -math.log(max(rng.expovariate(1.0), sys.float_info.min))


def _as_dict(one: Any) -> dict[str, Any]:
    names = ("noise", "length_bias", "position_bias", "carelessness", "tie_below")
    return {name: float(getattr(one, name)) for name in names}
