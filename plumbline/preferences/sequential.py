"""A test of a win rate that may be looked at after every vote: whether the votes are enough, and for whom.

Votes of one person hang together, so the person is the unit. Their win rates are pooled by a random-effects model with
the variance of Hartung and Knapp and quantiles of Student's t (Hartung and Knapp 2001, doi:10.1002/sim.791); the
variance is never below that of the model, after Röver, Knapp and Friede (2015, doi:10.1186/s12874-015-0091-1). The
rates are taken to scatter by `SCATTER` at least: that a few people agree by chance does not show that all people do.

The claim is looked at anew when the votes have grown by half, at most 20 times, each time at a twentieth of alpha. So
it errs at any of these times with probability alpha at most (alpha spending, Lan and DeMets 1983,
doi:10.1093/biomet/70.3.659, with Bonferroni's bound), as far as Student's t holds for people's rates: it is an
approximation, and docs/arena.md has simulations. It speaks of people like those who voted, if how much somebody votes
does not hang on how they vote. Beside it there is a weaker claim, of those alone who voted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Verdict = Literal["better", "worse", "no difference", "open"]

LOOKS = tuple(math.ceil(16 * 1.5**number) for number in range(20))
"""Numbers of votes at which the claims are looked at, 16 to some 35,000."""

SCATTER = 0.1
"""Standard deviation of people's win rates, at least."""

MOST_PEOPLE = 1000
"""Where more would be needed, nothing is foretold."""


class Sequential(NamedTuple):
    """What may be said after the votes so far.

    Attributes:
        verdict: for people like those who voted, whether the policy is better or worse than the baseline, or no
            different by more than the margin.
        low, high: bounds of its win rate among such people.
        among: the verdict for those alone who voted, each weighing the same: better, worse or open.
        people, votes: that were looked at.
        more: about how many further votes of the same people decide, if they fall as until now.
        more_people: where these do not, about how many further people do.
        at_odds: the verdict is held back, because another interval of the same rate leaves it open.
    """

    verdict: Verdict = "open"
    low: float = 0.0
    high: float = 1.0
    among: Verdict = "open"
    people: int = 0
    votes: int = 0
    more: int | None = None
    more_people: int | None = None
    at_odds: bool = False


class _Pooled(NamedTuple):
    """Votes by person: `counts` of each, the pooled rate, its variance, and what it is made of.

    `own` is the mean of the rates of those who voted, and `noise` its variance by the votes alone.
    """

    counts: Floats
    rate: float
    variance: float
    between: float
    within: float
    own: float
    noise: float


def sequential_test(
    scores: Sequence[float], people: Sequence[str], *, alpha: float = 0.05, margin: float = 0.05
) -> Sequential:
    """Test a policy's win rate against one half, after every vote.

    Args:
        scores: in the order of the votes; 1 a win, 0.5 a tie, 0 a loss.
        people: who gave each vote.
        alpha: bound of the probability that the verdict is ever wrong.
        margin: win rates within this of one half count as no difference.
    """
    looked = max((look for look in LOOKS if look <= len(scores)), default=0)
    if not looked:
        return Sequential()
    level = alpha / len(LOOKS)
    pooled = _pooled(np.asarray(scores[:looked], dtype=float), people[:looked])
    number = len(pooled.counts)
    half = _half(pooled.variance, number - 1, level) if number > 1 else 1.0
    low, high = max(0.0, pooled.rate - half), min(1.0, pooled.rate + half)
    noise = _half(pooled.noise, looked - number + 1, level)
    verdict = _verdict(low, high, margin)
    # Without a margin: two who contradict each other are not "no different".
    among = _verdict(pooled.own - noise, pooled.own + noise, 0.0)
    found = Sequential(verdict, low, high, among, number, looked)
    if verdict != "open":
        return found
    more = _votes_to_come(pooled, len(scores), level, margin)
    return found._replace(more=more, more_people=_people_to_come(pooled, level, margin) if more is None else None)


def _pooled(scores: Floats, people: Sequence[str]) -> _Pooled:
    """The random-effects model (DerSimonian and Laird 1986) of each person's win rate."""
    _, who = np.unique(people, return_inverse=True)
    counts = np.bincount(who).astype(float)
    rates = np.bincount(who, weights=scores) / counts
    # One vote's worth of the largest variance is added: votes that are all the same are not certain.
    within = (((scores - rates[who]) ** 2).sum() + 0.25) / (len(scores) - len(counts) + 1)
    own, noise = float(rates.mean()), float(within * (1 / counts).sum() / len(counts) ** 2)
    if len(counts) < 2:
        return _Pooled(counts, own, math.inf, SCATTER**2, within, own, noise)
    weights = counts / within
    spread = (weights * (rates - scores.mean()) ** 2).sum()
    scale = weights.sum() - (weights**2).sum() / weights.sum()
    between = max(SCATTER**2, (spread - (len(counts) - 1)) / scale)
    weights = 1 / (between + within / counts)
    rate = (weights * rates).sum() / weights.sum()
    inflation = max(1.0, (weights * (rates - rate) ** 2).sum() / (len(counts) - 1))
    return _Pooled(counts, float(rate), inflation / weights.sum(), between, within, own, noise)


def _half(variance: float, freedom: int, level: float) -> float:
    """Half of an interval's width."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, 1 - level / 2)) * math.sqrt(variance)


def _verdict(low: float, high: float, margin: float) -> Verdict:
    if low > 0.5:
        return "better"
    if high < 0.5:
        return "worse"
    return "no difference" if low >= 0.5 - margin and high <= 0.5 + margin else "open"


def _decides(half: float, gap: float, margin: float) -> bool:
    """Whether bounds so far from a rate, which is itself so far from one half, decide."""
    return half < gap or gap + half <= margin


def _votes_to_come(pooled: _Pooled, votes: int, level: float, margin: float) -> int | None:
    """How many further votes of the same people decide; None where all their votes would not."""
    number, looked = len(pooled.counts), pooled.counts.sum()
    if number < 2:
        return None
    for look in LOOKS:
        precision = (1 / (pooled.between + pooled.within / (pooled.counts * look / looked))).sum()
        if look > votes and _decides(_half(1 / precision, number - 1, level), abs(pooled.rate - 0.5), margin):
            return look - votes
    return None


def _people_to_come(pooled: _Pooled, level: float, margin: float) -> int | None:
    """How many further people decide who vote as often as those before; None where that is too many to say."""
    number = len(pooled.counts)
    each = pooled.between + pooled.within / pooled.counts.mean()
    for more in range(1, MOST_PEOPLE):
        half = _half(each / (number + more), number + more - 1, level)
        if _decides(half, abs(pooled.rate - 0.5), margin):
            return more
    return None
