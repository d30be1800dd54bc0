"""The report on a project's quality, and the memory that keeps it cheap to ask for again and again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row, func, select

from plumbline.preferences.judgement_stream import pseudonym_of
from plumbline.preferences.kept import Kept
from plumbline.preferences.quality.agreement import (
    Agreement,
    Couples,
    agreement_by_person,
    agreement_of,
    by_judgement,
    find_couples,
)
from plumbline.preferences.quality.effects import LEAST, Effects, effects_of
from plumbline.preferences.quality.figures import Figure, correlation, undefined, wilson
from plumbline.preferences.quality.forecast import Forecast, forecast, recent_times
from plumbline.preferences.quality.notes import Limits, notes_on
from plumbline.preferences.quality.queue_state import QueueState, queue_state
from plumbline.preferences.quality.reliability import reliability_of
from plumbline.preferences.quality.sample import Facts, Overlap, latest_judgements, people_of, read_overlap
from plumbline.preferences.reading import progress_of
from plumbline.preferences.records import Progress
from plumbline.preferences.rules import RANK_ONLY, Rules
from plumbline.preferences.store import Store
from plumbline.preferences.tables import Annotator, Answer
from plumbline.preferences.turn import Facet, now_utc

WORKING = "being worked out; it is here in a moment"


@dataclass(frozen=True)
class PersonQuality:
    """What is known of one person.

    Attributes:
        annotator_id, name, simulated: who they are.
        judged, skipped, flagged: current answers.
        agreement: with the others who judged the same tasks, as a share of pairs.
        reliability: probability of the right label (Dawid and Skene).
        effects: of their latest judgements.
        speed_agreement: correlation of log-seconds and agreement: above 0, their slow judgements agree more.
        checks: share of pairs of checks got right, as the mean over checks.
        streak: checks passed in a row, up to the last one.
        paused: why they get no work; None where they do.
        notes: what the lead should look at, in words.
    """

    annotator_id: str
    name: str
    simulated: bool
    judged: int
    skipped: int
    flagged: int
    agreement: Figure
    reliability: Figure
    effects: Effects
    speed_agreement: Figure
    checks: Figure
    streak: int
    paused: str | None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class QualityReport:
    """All figures at one moment.

    Attributes:
        at: when they were computed.
        progress, forecast, queue: exact, from the store's own counts.
        agreement: of all annotators with each other.
        sampled_tasks, overlapping_tasks: agreement and reliability come from so many of the tasks that were judged more
            than once.
        people: the busiest first.
    """

    at: datetime
    progress: Progress
    forecast: Forecast
    queue: QueueState
    agreement: Agreement
    sampled_tasks: int
    overlapping_tasks: int
    people: tuple[PersonQuality, ...]

    def to_json(self, *, pseudonyms: bool = False) -> dict[str, Any]:
        """As JSON can hold it; with `pseudonyms` it names nobody, and says of a pause only that there is one."""
        report: dict[str, Any] = _plain(asdict(self))
        if pseudonyms:
            del report["progress"]["by_annotator"]
            for person in report["people"]:
                person["name"] = pseudonym_of(person["annotator_id"])
                if person["paused"] is not None:  # the reason is what the lead wrote about them
                    reason = f"paused: {person['paused']}"
                    person["notes"] = ["paused" if note == reason else note for note in person["notes"]]
                    person["paused"] = "paused"
        return report


class Quality(Facet):
    """Figures on the quality of a project's judgements; share one per process, any thread may ask.

    Args:
        store, project, clock: see `Facet`.
        rules: what the project asks of its annotators; from where on a person is pointed out comes from its checks.
    """

    def __init__(
        self, store: Store, *, project: str, rules: Rules = RANK_ONLY, clock: Callable[[], datetime] = now_utc
    ) -> None:
        super().__init__(store, project=project, clock=clock)
        self.rules = rules
        self._facts = Facts()
        self._erased: datetime | None = None
        self._figures = Kept()
        self._reliability = Kept()

    def report(self, *, wait: bool = True) -> QualityReport:
        """The figures as the store is now.

        Args:
            wait: for the annotators' reliability too. Without it that is worked out in another thread, and the figures
                are undefined, or those of the report before, until it is there.
        """
        with self.look() as turn:
            # Answers are only added, but for those of people who are erased; after that, row ids may come again.
            newest = turn.connection.execute(select(func.max(Answer.id))).scalar_one_or_none()
            erased = turn.connection.execute(select(func.max(Annotator.erased_at))).scalar_one_or_none()
            progress = progress_of(turn)
            queue = queue_state(turn, self.rules)
            tallies = people_of(turn)
        figures: _Figures = self._figures.get((newest, erased), lambda: self._compute(tallies, erased))
        reliability: Mapping[int, Figure] | None = self._reliability.get(
            (newest, erased), lambda: reliability_of(figures.overlap, figures.couples), wait=wait
        )
        now = self.clock()
        return QualityReport(
            at=now,
            progress=progress,
            forecast=forecast(figures.times, progress.missing, now, required=progress.required),
            queue=queue,
            agreement=figures.agreement,
            sampled_tasks=figures.overlap.tasks,
            overlapping_tasks=figures.overlap.all_tasks,
            people=self._people(tallies, figures, reliability),
        )

    def queue(self) -> QueueState:
        """The queue alone."""
        with self.look() as turn:
            return queue_state(turn, self.rules)

    def _compute(self, tallies: Sequence[Row[Any]], erased: datetime | None) -> _Figures:
        if erased != self._erased:
            self._facts, self._erased = Facts(), erased
        with self.look() as turn:
            overlap = read_overlap(turn)
            times = recent_times(turn)
            people = [row.annotator_id for row in tallies if row.judged]
            effects = {who: effects_of(said) for who, said in latest_judgements(turn, people, self._facts)}
        couples = find_couples(overlap)
        return _Figures(
            overlap=overlap,
            couples=couples,
            times=times,
            agreement=agreement_of(overlap, couples),
            by_person=agreement_by_person(overlap, couples),
            speed=_speed_and_agreement(overlap, couples),
            effects=effects,
        )

    def _people(
        self, tallies: Sequence[Row[Any]], figures: _Figures, reliability: Mapping[int, Figure] | None
    ) -> tuple[PersonQuality, ...]:
        people = [_person(row, figures, reliability) for row in tallies]
        checks = self.rules.checks
        limits = Limits() if checks is None else Limits(checks_after=checks.after, warn_below=checks.warn_below)
        return tuple(notes_on(people, figures.agreement, limits))


@dataclass(frozen=True)
class _Figures:
    overlap: Overlap
    couples: Couples
    times: list[datetime]
    agreement: Agreement
    by_person: dict[int, Figure]
    speed: dict[int, Figure]
    effects: dict[int, Effects]


def _person(row: Row[Any], figures: _Figures, reliability: Mapping[int, Figure] | None) -> PersonQuality:
    who = row.annotator_id
    alone = undefined("nobody else has judged their tasks yet")
    return PersonQuality(
        annotator_id=row.public_id,
        name=row.name,
        simulated=row.simulated,
        judged=row.judged,
        skipped=row.skipped,
        flagged=row.flagged,
        agreement=figures.by_person.get(who, alone),
        reliability=undefined(WORKING) if reliability is None else reliability.get(who, alone),
        effects=figures.effects.get(who) or effects_of([]),
        speed_agreement=figures.speed.get(who, alone),
        checks=_checks(row),
        streak=row.check_streak,
        paused=row.paused,
    )


def _checks(row: Row[Any]) -> Figure:
    if not row.checks_seen:
        return undefined("no checks yet")
    value = min(1.0, max(0.0, row.checks_score / row.checks_seen))
    return Figure(value, *wilson(value, row.checks_seen), n=row.checks_seen, weight=row.checks_seen)


def _speed_and_agreement(overlap: Overlap, couples: Couples) -> dict[int, Figure]:
    """Of each annotator: how the time they take goes along with their agreement with others."""
    import numpy as np

    agreed = by_judgement(len(overlap.task), couples)
    known = np.isfinite(agreed) & (overlap.seconds > 0)
    seconds = np.log(np.where(known, overlap.seconds, 1.0))
    figures = {}
    for person in np.unique(overlap.annotator):
        rows = known & (overlap.annotator == person)
        figures[int(person)] = correlation(seconds[rows].tolist(), agreed[rows].tolist(), least=LEAST)
    return figures


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value.isoformat() if isinstance(value, datetime) else value
