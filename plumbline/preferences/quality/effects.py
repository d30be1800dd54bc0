"""What sways a person beside the responses' quality: their place on the page, their length, and haste."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import mean, median

from plumbline.preferences.quality.agreement import agreement_of_two
from plumbline.preferences.quality.figures import Figure, mean_share, share_of, undefined
from plumbline.preferences.quality.sample import OwnJudgement

WORDS_PER_MINUTE = 600
"""Nobody reads a text faster and understands it: adults read 175 to 300 words a minute silently (Brysbaert 2019,
doi:10.1016/j.jml.2019.104047); this is twice the fastest of them."""

LEAST = 10
"""Judgements below which nothing is said of a person."""


@dataclass(frozen=True)
class Effects:
    """Of one person's latest judgements; each interval counts a judgement as one observation.

    Attributes:
        first_wins: how often the card shown first alone is the best one.
        first_expected: how often it would be, if the place did not matter: the mean of 1 / n over n responses.
        longer_wins: share of pairs (no ties) that the longer response wins, as the mean over judgements.
        seconds: median time on task; its interval is the middle half of the times.
        too_fast: share of judgements that were given faster than the texts can be read.
        consistency: share of pairs on which they say the same of a task that was shown to them again.
    """

    first_wins: Figure
    first_expected: float | None
    longer_wins: Figure
    seconds: Figure
    too_fast: Figure
    consistency: Figure


def effects_of(judgements: Sequence[OwnJudgement]) -> Effects:
    """The effects in one person's judgements."""
    first_wins, expected = _position([one for one in judgements if one.earlier is None])
    seconds, too_fast = _speed(judgements)
    return Effects(
        first_wins=first_wins,
        first_expected=expected,
        longer_wins=_length([one for one in judgements if one.earlier is None]),
        seconds=seconds,
        too_fast=too_fast,
        consistency=_consistency([one for one in judgements if one.earlier is not None]),
    )


def longer_share(ranks: Sequence[int], lengths: Sequence[int]) -> float | None:
    """Share of pairs with a preference that the longer response wins; None where no pair differs in rank and length."""
    won = [
        (ranks[i] < ranks[j]) == (lengths[i] > lengths[j])
        for i, j in combinations(range(len(ranks)), 2)
        if ranks[i] != ranks[j] and lengths[i] != lengths[j]
    ]
    return sum(won) / len(won) if won else None


def _position(judgements: Sequence[OwnJudgement]) -> tuple[Figure, float | None]:
    with_order = [one for one in judgements if one.shown_order]
    decided = [one for one in with_order if one.ranks.count(1) == 1]
    if len(decided) < LEAST:
        return undefined(_too_few(len(decided), len(judgements), "in which one response alone was ranked best")), None
    won = [one.ranks[one.shown_order[0]] == 1 for one in decided if one.shown_order]
    return share_of(won), mean(1 / len(one.ranks) for one in decided)


def _length(judgements: Sequence[OwnJudgement]) -> Figure:
    shares = [longer_share(one.ranks, one.facts.lengths) for one in judgements]
    known = [share for share in shares if share is not None]
    if len(known) < LEAST:
        return undefined(
            _too_few(len(known), len(judgements), "that prefer the longer or the shorter of two responses"), len(known)
        )
    return mean_share(known)


def _speed(judgements: Sequence[OwnJudgement]) -> tuple[Figure, Figure]:
    timed = [(one.seconds, one.facts.words) for one in judgements if one.seconds is not None]
    if len(timed) < LEAST:
        why = _too_few(len(timed), len(judgements), "of which the time was measured")
        return undefined(why, len(timed)), undefined(why, len(timed))
    times = sorted(seconds for seconds, _ in timed)
    quarter = len(times) // 4
    typical = Figure(median(times), times[quarter], times[-1 - quarter], len(times))
    fast = [seconds < 60 * words / WORDS_PER_MINUTE for seconds, words in timed]
    return typical, share_of(fast)


def _consistency(repeats: Sequence[OwnJudgement]) -> Figure:
    if not repeats:
        return undefined(
            "no task was shown to them a second time; the recipe's annotate.checks.repeat_share lets that happen"
        )
    said = [(one.ranks, one.earlier) for one in repeats if one.earlier is not None]
    agreed = [agreement_of_two(now, before) for now, before in said]
    if len(agreed) < LEAST:
        return undefined(
            f"too few yet: {len(agreed)} of the {LEAST} tasks shown a second time that this needs", len(agreed)
        )
    if all(len(set(now)) == len(set(before)) == 1 for now, before in said):
        return undefined("they said each time that all responses are equal", len(agreed))
    return mean_share(agreed)


def _too_few(n: int, judgements: int, what: str) -> str:
    if judgements and not n:
        return f"they gave no judgement {what}"
    return f"too few yet: {n} of the {LEAST} judgements {what} that this needs"
