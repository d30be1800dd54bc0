"""The report from real stores: planted annotators are found, it is live, and everything undefined says why."""

from __future__ import annotations

import random
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import update

from plumbline.preferences.erasure import erase
from plumbline.preferences.quality import Figure, Quality
from plumbline.preferences.quality.decided import Decided
from plumbline.preferences.quality.sample import read_overlap
from plumbline.preferences.quality.text import as_lines
from plumbline.preferences.records import Assignment, NewResponse, NewTask
from plumbline.preferences.service import PreferenceService
from plumbline.preferences.source_names import MASK, SourceNames
from plumbline.preferences.store import Store
from plumbline.preferences.tables import Annotator
from tests.preferences.conftest import Clock, best_first, new_tasks

Ways = dict[str, Any]


def judge_all(service: PreferenceService, clock: Clock, people: Ways) -> None:
    """Everybody judges everything: `people` gives the score by which each ranks, of (text, position, random)."""
    rng = random.Random(3)
    ids = {name: plant(service, name) for name in people}
    for name, score in people.items():
        while isinstance(work := service.lease_next(ids[name]), Assignment):
            scores = {card.response_id: score(card.text, card.position, rng) for card in work.cards}
            order = sorted(scores, key=lambda response: -scores[response])
            ranking = {response: rank for rank, response in enumerate(order, 1)}
            clock.advance(1)
            service.judge(work.lease_id, ids[name], ranking, idempotency_key=work.lease_id, seconds=60)


def plant(service: PreferenceService, name: str) -> str:
    """An annotator whose id is their name, so that they see the responses in the same orders in every run."""
    with service.turn() as turn:
        who = service.sign_in(name).annotator_id
        turn.connection.execute(update(Annotator).where(Annotator.annotator_id == who).values(annotator_id=name))
    return name


def by_worth(text: str, position: int, rng: random.Random) -> float:
    """The responses end with how good they are."""
    return int(text.rsplit(" ", 1)[1]) + rng.gauss(0, 1.5)


def tasks(number: int) -> list[NewTask]:
    """Four responses each, how good and how long they are does not go together."""
    rng = random.Random(7)
    made = []
    for task in range(number):
        worth = rng.sample(range(1, 9, 2), 4)
        texts = [f"task {task}: {'word ' * rng.randint(1, 60)} {value}" for value in worth]
        responses = [NewResponse(text, f"policy-{index}") for index, text in enumerate(texts)]
        made.append(NewTask([{"role": "user", "content": f"task {task}"}], responses, "support"))
    return made


def test_planted_annotators_are_found(file_service: PreferenceService, clock: Clock) -> None:
    service = file_service
    service.set_overlap(6)
    service.add_tasks(tasks(80))
    judge_all(
        service,
        clock,
        {
            "Ada": by_worth,
            "Ben": by_worth,
            "Cem": by_worth,
            "First": lambda text, position, rng: by_worth(text, position, rng) - 4 * position,
            "Long": lambda text, position, rng: by_worth(text, position, rng) + len(text) / 20,
            "Dice": lambda text, position, rng: rng.random(),
        },
    )
    report = Quality(service.store, project="support", clock=clock).report()
    people = {person.name: person for person in report.people}
    assert all(people[name].notes == () for name in ("Ada", "Ben", "Cem"))
    assert "prefers the card shown first" in people["First"].notes
    assert "prefers longer responses more than others do" in people["Long"].notes
    assert "agrees with others less than the rest" in people["Dice"].notes
    assert any("low reliability" in note for note in people["Dice"].notes)
    assert min(people[name].reliability.value or 0 for name in ("Ada", "Ben", "Cem")) > 0.8
    assert (people["Dice"].reliability.value or 1) < 0.65
    agreement = report.agreement.pairwise
    assert agreement.low is not None and agreement.value is not None
    assert 0.6 < agreement.low < agreement.value < 0.8
    assert report.agreement.prompts == 80
    assert report.progress.missing == 0
    assert report.forecast.per_hour.value == pytest.approx(60, rel=0.05)


def test_an_empty_project_says_why_of_everything(service: PreferenceService, store: Store, clock: Clock) -> None:
    report = Quality(store, project="support", clock=clock).report()
    assert report.people == ()
    assert report.agreement.pairwise.value is None
    service.add_tasks(new_tasks(2))
    service.sign_in("Ada")
    assert all(figure.why for figure in figures_in(Quality(store, project="support", clock=clock).report()))


def test_one_judge_alone_has_no_agreement(service: PreferenceService, store: Store, clock: Clock) -> None:
    service.add_tasks(new_tasks(3))
    judge_all(service, clock, {"Ada": lambda text, position, rng: -position})
    report = Quality(store, project="support", clock=clock).report()
    (ada,) = report.people
    assert (ada.judged, ada.agreement.value, ada.reliability.value) == (3, None, None)
    assert ada.agreement.why and ada.reliability.why
    for figure in figures_in(report):
        assert figure.value is not None or figure.why


def test_a_correction_counts_once_and_a_judgement_shows_at_once(
    service: PreferenceService, store: Store, clock: Clock
) -> None:
    service.set_overlap(2)
    service.add_tasks(new_tasks(1))
    quality = Quality(store, project="support", clock=clock)
    ada, ben = (service.sign_in(name).annotator_id for name in ("Ada", "Ben"))
    for who in (ada, ben):
        work = service.lease_next(who)
        assert isinstance(work, Assignment)
        service.judge(work.lease_id, who, best_first(work), idempotency_key=who)
    assert quality.report().agreement.pairwise.value == 1.0
    work = service.reopen_last(ben)
    assert work is not None
    worst_first = {response: 3 - rank for response, rank in best_first(work).items()}
    service.judge(work.lease_id, ben, worst_first, idempotency_key="again")
    quality._figures._next = 0.0  # as if the rest between two reports were over
    report = quality.report()
    assert report.agreement.pairwise.value == 0.0
    assert [person.judged for person in report.people] == [1, 1]


def test_who_was_erased_with_their_judgements_counts_no_more(
    service: PreferenceService, store: Store, clock: Clock
) -> None:
    service.set_overlap(3)
    service.add_tasks(new_tasks(1))
    quality = Quality(store, project="support", clock=clock)
    for name in ("Ada", "Ben", "Cem"):
        who = service.sign_in(name).annotator_id
        work = service.lease_next(who)
        assert isinstance(work, Assignment)
        ranking = best_first(work)
        if name == "Ada":  # the newest answer stays, so that only the erasure tells that something has changed
            ranking = {response: 3 - rank for response, rank in ranking.items()}
        service.judge(work.lease_id, who, ranking, idempotency_key=who)
    assert quality.report().agreement.pairwise.value == pytest.approx(1 / 3)
    erase(store, "Ada", remove_judgements=True, clock=clock)
    quality._figures._next = 0.0  # as if the rest between two reports were over
    assert quality.report().agreement.pairwise.value == 1.0


def test_the_queue_is_told(service: PreferenceService, store: Store, clock: Clock) -> None:
    service.add_tasks(new_tasks(3))
    ada, ben = (service.sign_in(name).annotator_id for name in ("Ada", "Ben"))
    held, flagged = service.lease_next(ada), service.lease_next(ben)
    assert isinstance(held, Assignment) and isinstance(flagged, Assignment)
    service.flag(flagged.lease_id, ben, kind="broken", note="cut off", idempotency_key="f")
    queue = Quality(store, project="support", clock=clock).report().queue
    assert (queue.open, queue.held, queue.flagged) == (1, 1, 1)
    clock.advance(60)
    assert Quality(store, project="support", clock=clock).report().queue.held == 0


def test_decided_tasks_come_page_by_page_the_latest_first(
    service: PreferenceService, store: Store, clock: Clock
) -> None:
    service.set_overlap(2)
    service.add_tasks(new_tasks(5))
    judge_all(service, clock, {"Ada": lambda text, *_: -int(text[-1]), "Ben": lambda text, *_: int(text[-1])})
    decided = Decided(store, project="support", names=None, clock=clock)
    first, before = decided.page(limit=3)
    second, end = decided.page(limit=3, before=before)
    assert [task.prompt[0]["content"] for task in (*first, *second)] == [f"task {number}" for number in (4, 3, 2, 1, 0)]
    assert end is None
    assert [one.annotator for one in first[0].said] == ["Ada", "Ben"]
    assert [rank for _, _, rank in first[0].ranked] == [1.5, 1.5]
    ada = service.sign_in("Ada").annotator_id
    assert len(decided.page(annotator_id=ada)[0]) == 5


def test_decided_tasks_are_shown_with_the_masks_that_annotators_see(
    file_service: PreferenceService, clock: Clock
) -> None:
    service = file_service
    texts = [NewResponse(text, text) for text in ("I am qwen-mini.", "Two.")]
    service.add_tasks([NewTask([{"role": "user", "content": "Who are you?"}], texts, "support")])
    judge_all(service, clock, {"Ada": lambda *_: 0})
    names = SourceNames(own=("qwen-mini",))
    ((task,), _) = Decided(service.store, project="support", names=names, clock=clock).page()
    assert {text for text, _ in task.responses} == {f"I am {MASK}.", "Two."}


def test_a_sample_is_of_whole_tasks_and_stays_the_same(file_service: PreferenceService, clock: Clock) -> None:
    service = file_service
    service.set_overlap(2)
    service.add_tasks(new_tasks(40))
    judge_all(service, clock, {"Ada": lambda *_: 0, "Ben": lambda *_: 0})
    with service.look() as turn:
        first, second = read_overlap(turn, most=20), read_overlap(turn, most=20)
    assert (first.tasks, first.all_tasks, len(first.task)) == (10, 40, 20)
    assert set(first.annotator.tolist()) == {1, 2}
    assert first.ranks.tolist() == second.ranks.tolist()


def test_without_waiting_reliability_comes_later(file_service: PreferenceService, clock: Clock) -> None:
    service = file_service
    service.set_overlap(3)
    service.add_tasks(new_tasks(12))
    judge_all(service, clock, dict.fromkeys(("Ada", "Ben", "Cem"), lambda text, *_: -int(text[-1])))
    quality = Quality(service.store, project="support", clock=clock)
    soon = quality.report(wait=False).people[0].reliability
    assert soon.value is None and soon.why
    assert quality.report(wait=True).people[0].reliability.value == pytest.approx(1.0, abs=0.01)


def test_the_report_is_plain_json(file_service: PreferenceService, clock: Clock) -> None:
    import json

    report = Quality(file_service.store, project="support", clock=clock).report()
    plain = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert plain["agreement"]["pairwise"]["value"] is None
    assert datetime.fromisoformat(plain["at"]) == datetime(2026, 3, 1, 9, tzinfo=UTC)


def figures_in(value: object) -> list[Figure]:
    """All figures of a report."""
    if isinstance(value, Figure):
        return [value]
    if is_dataclass(value):
        return [figure for one in fields(value) for figure in figures_in(getattr(value, one.name))]
    return [figure for one in value for figure in figures_in(one)] if isinstance(value, tuple) else []


def test_the_terminal_shows_the_same_figures(file_service: PreferenceService, clock: Clock) -> None:
    service = file_service
    quality = Quality(service.store, project="support", clock=clock)
    lines = "\n".join(as_lines(quality.report()))
    assert "no task was judged twice" in lines
    assert "pace         too early to say: there was work in 0 quarters of an hour, and it takes 4\n" in lines
    service.set_overlap(2)
    service.add_tasks(new_tasks(12))
    judge_all(service, clock, dict.fromkeys(("Ada", "Ben"), lambda text, *_: -int(text[-1])))
    lines = "\n".join(as_lines(Quality(service.store, project="support", clock=clock).report()))
    assert "24 of 24, 0 left" in lines
    assert "done by      all is judged" in lines
    assert "pairs agreed on             100% (76–100)" in lines
    assert "reliability: needs 3 people" in lines
    assert "Ada" in lines and "nan" not in lines
