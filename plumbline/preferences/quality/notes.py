"""What the lead should look at: people whose figures lie clearly outside of what is expected."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from plumbline.preferences.quality.agreement import Agreement
from plumbline.preferences.quality.effects import WORDS_PER_MINUTE
from plumbline.preferences.quality.figures import STRICT, Figure, wilson

if TYPE_CHECKING:
    from plumbline.preferences.quality.report import PersonQuality


@dataclass(frozen=True)
class Limits:
    """From where on a person is pointed out; a 99% interval must lie beyond.

    Attributes:
        checks_after, warn_below: the recipe's `annotate.checks`.
        too_fast: share of judgements given faster than the texts can be read.
        behind: how far agreement is below that of all.
        reliability: probability of the right label.
    """

    checks_after: int = 10
    warn_below: float = 0.7
    too_fast: float = 0.1
    behind: float = 0.05
    reliability: float = 0.6


def notes_on(people: Sequence[PersonQuality], together: Agreement, limits: Limits) -> Iterator[PersonQuality]:
    """Each person with notes on what to look at."""
    longer = _middle(person.effects.longer_wins for person in people)
    for person in people:
        yield replace(person, notes=tuple(_notes(person, together, longer, limits)))


def _notes(person: PersonQuality, together: Agreement, longer: float | None, limits: Limits) -> Iterator[str]:
    effects = person.effects
    if person.paused:
        yield f"paused: {person.paused}"
    passed = person.checks.value
    if passed is not None and person.checks.n >= limits.checks_after and passed < limits.warn_below:
        yield "fails checks"
    low, high = _strict(effects.first_wins)
    if effects.first_expected is not None and low > effects.first_expected:
        yield "prefers the card shown first"
    if effects.first_expected is not None and high < effects.first_expected:
        yield "avoids the card shown first"
    low, high = _strict(effects.longer_wins)
    if longer is not None and low > max(longer, 0.5):
        yield "prefers longer responses more than others do"
    if longer is not None and high < min(longer, 0.5):
        yield "prefers shorter responses more than others do"
    if _strict(effects.too_fast)[0] > limits.too_fast:
        yield f"often faster than anybody can read ({WORDS_PER_MINUTE} words a minute)"
    if together.pairwise.value is not None and _strict(person.agreement)[1] < together.pairwise.value - limits.behind:
        yield "agrees with others less than the rest"
    if person.reliability.value is not None and person.reliability.value < limits.reliability:
        yield "is often contradicted by the others (low reliability)"
    if together.pairwise.value is not None and _strict(effects.consistency)[1] < together.pairwise.value:
        yield "contradicts earlier answers of their own more than people contradict each other"


def _strict(figure: Figure) -> tuple[float, float]:
    """The 99% interval of a share; all there is, where it is undefined."""
    return (0.0, 1.0) if figure.value is None else wilson(figure.value, figure.weight, STRICT)


def _middle(figures: Iterable[Figure]) -> float | None:
    """The median person's value, which the outlying ones do not move."""
    values = sorted(figure.value for figure in figures if figure.value is not None)
    return values[len(values) // 2] if values else None
