"""A store with believable annotators, some of them with a planted fault, for screenshots and for a look at the app.

    python -m benchmarks.annotate.planted_store planted.db

Eleven people rank the four responses to 240 questions, three people each, on three days. Most see how good a response
is, with some noise; Ines takes the first card, Jonas the longest response, Kira hurries and guesses.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from sqlalchemy import insert, select, update

from plumbline.preferences.records import REPEAT, WORK, Assignment, NewResponse, NewTask
from plumbline.preferences.service import PreferenceService
from plumbline.preferences.store import Store
from plumbline.preferences.tables import Annotator, Answer, Tally, Task

PROJECT = "support"
QUESTIONS = 240
OVERLAP = 3
SHARE_DONE = 0.8
ABOUT = (
    "my refund",
    "a parcel that is late",
    "changing my address",
    "an invoice with the wrong name",
    "closing my account",
)
SENTENCES = (
    "I am sorry for the trouble.",
    "You find this under *Orders*, then **Details**.",
    "It takes three to five working days.",
    "Please send us the number of your order.",
    "We have passed this on to the carrier.",
    "You can also call us between 8 and 18 h.",
    "The amount goes back to the card that you paid with.",
    "Please look into your spam folder as well.",
)


@dataclass(frozen=True)
class Person:
    """How somebody judges: noise, how much the first card and length count, and how fast they read."""

    name: str
    noise: float = 0.7
    first: float = 0.0
    longer: float = 0.0
    words_per_minute: float = 240
    repeats_alike: float = 0.9
    checks: tuple[int, int] = (0, 0)


PEOPLE = (
    Person("Amara Okafor", checks=(14, 15)),
    Person("Ben Fischer", noise=0.9, checks=(11, 13)),
    Person("Chen Wei", noise=0.5, words_per_minute=210, checks=(16, 16)),
    Person("Dilan Yıldız", noise=0.8, checks=(12, 14)),
    Person("Elena Rossi", noise=0.6, checks=(15, 16)),
    Person("Farid Haddad", noise=1.0, words_per_minute=290, checks=(10, 12)),
    Person("Greta Lindqvist", noise=0.7, checks=(13, 14)),
    Person("Hugo Martín", noise=0.9, checks=(12, 13)),
    Person("Ines Duarte", noise=0.8, first=2.2, checks=(9, 14)),
    Person("Jonas Weber", noise=0.7, longer=0.05, checks=(10, 14)),
    Person("Kira Novak", noise=8.0, words_per_minute=1400, repeats_alike=0.3, checks=(5, 13)),
)


def fill(store: Store, now: datetime) -> None:
    """Add questions, people and what they said to an empty store; `now` is when the last of it was said."""
    rng = random.Random(4)
    moment = [now - timedelta(days=3)]
    service = PreferenceService(store, project=PROJECT, clock=lambda: moment[0])
    service.set_overlap(OVERLAP)
    worth: dict[str, float] = {}
    service.add_tasks([_task(rng, number, worth) for number in range(QUESTIONS)])
    ids = {person.name: service.sign_in(person.name).annotator_id for person in PEOPLE}
    times = _times(now, int(QUESTIONS * OVERLAP * SHARE_DONE))
    for number, moment[0] in enumerate(times):
        person = PEOPLE[rng.randrange(len(PEOPLE))]
        work = service.lease_next(ids[person.name])
        if not isinstance(work, Assignment):
            continue
        if number % 83 == 40:
            note = "The second answer ends in the middle of a sentence."
            service.flag(work.lease_id, ids[person.name], kind="broken", note=note, idempotency_key=work.lease_id)
            continue
        ranking = _ranking(person, work, worth, rng)
        words = sum(len(card.text.split()) for card in work.cards) + len(work.prompt[0]["content"].split())
        seconds = round(60 * words / person.words_per_minute * rng.lognormvariate(0.15, 0.35), 1)
        reason = "The first is short and says all that is needed." if rng.random() < 0.05 else None
        service.judge(
            work.lease_id,
            ids[person.name],
            ranking,
            idempotency_key=work.lease_id,
            seconds=seconds,
            reason=reason,
        )
    moment[0] = now - timedelta(minutes=4)
    for person in PEOPLE[:3]:
        service.lease_next(ids[person.name])
    _repeats_and_checks(store, rng)


def _task(rng: random.Random, number: int, worth: dict[str, float]) -> NewTask:
    responses = []
    for policy in range(4):
        text = f"{' '.join(rng.sample(SENTENCES, rng.randint(1, 6)))} (Case {number}-{policy + 1}.)"
        worth[text] = rng.gauss(0.3 * policy, 1.0)
        responses.append(NewResponse(text, f"policy-{policy}"))
    question = f"Question {number + 1}: I need help with {ABOUT[number % len(ABOUT)]}. What do I have to do?"
    return NewTask([{"role": "user", "content": question}], responses, PROJECT)


def _times(now: datetime, judgements: int) -> list[datetime]:
    """Moments on three days, four hours of work each, the last one now."""
    per_day = judgements // 3
    days = [now - timedelta(days=day) for day in (2, 1, 0)]
    return [end - timedelta(hours=4) * (1 - place / per_day) for end in days for place in range(per_day)]


def _ranking(person: Person, work: Assignment, worth: dict[str, float], rng: random.Random) -> dict[str, int]:
    seen: Callable[..., float] = lambda card: (  # noqa: E731
        worth[card.text]
        + person.noise * rng.gauss(0, 1)
        + person.first * (card.position == 0)
        + person.longer * len(card.text.split())
    )
    scores = {card.response_id: seen(card) for card in work.cards}
    order = sorted(scores, key=lambda response: -scores[response])
    ranking = {order[0]: 1}
    for better, worse in pairwise(order):
        ranking[worse] = ranking[better] + (scores[better] - scores[worse] > 0.15)
    return ranking


def _repeats_and_checks(store: Store, rng: random.Random) -> None:
    """What silent repeats and checks would have left: every fifth judgement was asked for again."""
    with store.write() as connection:
        for person in PEOPLE:
            who = connection.execute(select(Annotator.id).where(Annotator.name == person.name)).scalar_one()
            passed, seen = person.checks
            counts = {
                "checks_seen": seen,
                "checks_passed": passed,
                "checks_score": passed + 0.4 * (seen - passed),
                "check_streak": 3 if passed < seen else seen,
            }
            connection.execute(update(Tally).where(Tally.annotator_id == who).values(**counts))
            query = select(Answer.__table__).where(Answer.annotator_id == who, Answer.purpose == WORK)
            for row in connection.execute(query.where(Answer.kind == "judgement")).all()[::4]:
                ranks = list(row.ranks)
                if rng.random() > person.repeats_alike:
                    rng.shuffle(ranks)
                again = dict(row._mapping) | {"answer_id": rng.randbytes(16).hex(), "purpose": REPEAT, "ranks": ranks}
                again = {name: value for name, value in again.items() if name not in ("id", "lease_id")}
                connection.execute(insert(Answer).values(again))
        connection.execute(update(Task).where(Task.judged >= OVERLAP, Task.id % 23 == 0).values(disagreement=0.6))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Make a store with believable annotators.")
    parser.add_argument("store", help="a file that is not there yet, or the URL of an empty PostgreSQL database")
    store = Store.open(parser.parse_args().store)
    fill(store, datetime.now(UTC))
    store.close()


if __name__ == "__main__":
    main()
