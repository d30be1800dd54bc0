"""A test of a win rate that may be looked at after every vote: it stays valid whenever one stops.

Confidence sequences by betting, after Waudby-Smith and Ramdas, "Estimating means of bounded random variables by
betting" (JRSS B 86, 2024; arXiv:2010.09686), the hedged capital process with predictable plug-in bets (section 4.4):
for each candidate mean m, two gamblers bet that the mean is higher, or lower; m is refuted when their capital reaches
1/alpha, which under m happens with probability at most alpha, at all times together (Ville's inequality). Scores in
[0, 1] of any kind are allowed, so ties count as 0.5. What it needs is that every next score has the same mean, given
those before: it speaks of voters and prompts like those who voted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Verdict = Literal["better", "worse", "no difference", "open"]

GRID = np.linspace(0.0, 1.0, 401)
"""Candidate means; one half is among them."""

BOLDNESS = 0.5
"""Largest share of the capital that a bet may lose."""

BLOCK = 1024

FORETELL_FROM, FAR = 10, 100_000
"""With fewer votes, or when more than so many are needed, nothing is foretold."""


class Sequential(NamedTuple):
    """What may be said after the votes so far.

    Attributes:
        verdict: whether the policy is better or worse than the baseline, or no different by more than the margin.
        low, high: bounds of its win rate, valid at all times together.
        votes: that were looked at.
        more: about how many further votes decide, if they fall as until now; 0 when decided, None when nobody can say.
    """

    verdict: Verdict
    low: float
    high: float
    votes: int
    more: int | None


def sequential_test(scores: Sequence[float], *, alpha: float = 0.05, margin: float = 0.05) -> Sequential:
    """Test a policy's win rate against one half, after every vote.

    Args:
        scores: in the order of the votes; 1 a win, 0.5 a tie, 0 a loss.
        alpha: bound of the probability that the true win rate ever lies outside of the bounds.
        margin: win rates within this of one half count as no difference.
    """
    values = np.asarray(scores, dtype=float)
    low, high = confidence_sequence(values, alpha=alpha)
    verdict: Verdict = "open"
    if low > 0.5:
        verdict = "better"
    elif high < 0.5:
        verdict = "worse"
    elif low >= 0.5 - margin and high <= 0.5 + margin:
        verdict = "no difference"
    more = 0 if verdict != "open" else _votes_to_come(values, alpha, margin)
    return Sequential(verdict, low, high, len(values), more)


def confidence_sequence(scores: Floats, *, alpha: float) -> tuple[float, float]:
    """Bounds of the mean of scores in [0, 1] at the end of the sequence; they hold at all its times together."""
    refuted = ever_refuted(scores, GRID, alpha=alpha)
    kept = GRID[~refuted]
    if not len(kept):  # no mean fits, so scores did not come from one; nothing is claimed
        return 0.0, 1.0
    return float(kept[0]), float(kept[-1])


def ever_refuted(scores: Floats, means: Floats, *, alpha: float) -> NDArray[np.bool_]:
    """For each candidate mean, whether the capital of those who bet against it ever reached 1/alpha.

    Args:
        scores: `(votes,)` in [0, 1].
        means: `(candidates,)` in [0, 1].
        alpha: level.

    Returns:
        `(candidates,)`.
    """
    bets = _bets(scores, alpha)
    threshold = math.log(2 / alpha)  # each gambler begins with half of the capital
    up, down = np.zeros(len(means)), np.zeros(len(means))
    refuted = np.zeros(len(means), dtype=bool)
    with np.errstate(divide="ignore"):
        most_up = BOLDNESS / means  # infinite at 0, and at 1 below: there no bet can lose more than allowed
        most_down = BOLDNESS / (1 - means)
    for start in range(0, len(scores), BLOCK):
        drawn, bet = scores[start : start + BLOCK, None], bets[start : start + BLOCK, None]
        rising = up + np.log1p(np.minimum(bet, most_up) * (drawn - means)).cumsum(axis=0)
        falling = down + np.log1p(-np.minimum(bet, most_down) * (drawn - means)).cumsum(axis=0)
        refuted |= (np.maximum(rising, falling) >= threshold).any(axis=0)
        up, down = rising[-1], falling[-1]
    return refuted


def _bets(scores: Floats, alpha: float) -> Floats:
    """The predictable plug-in bets: each depends on earlier scores alone."""
    count = np.arange(1, len(scores) + 1)
    mean = (0.5 + scores.cumsum()) / (count + 1)
    variance = (0.25 + ((scores - mean) ** 2).cumsum()) / (count + 1)
    before = np.concatenate([[0.25], variance[:-1]])
    return np.sqrt(2 * math.log(2 / alpha) / (before * count * np.log(count + 1)))


def _votes_to_come(scores: Floats, alpha: float, margin: float) -> int | None:
    """About how many further votes decide, if they fall as until now; None when too few or too many to say."""
    if len(scores) < FORETELL_FROM:
        return None
    # The rate and spread seen so far, drawn a little to the middle.
    mean = (1 + scores.sum()) / (2 + len(scores))
    variance = (0.5 + ((scores - mean) ** 2).sum()) / (2 + len(scores))
    gap = abs(mean - 0.5)
    # To show a difference the bounds must come nearer than the gap; to show none, they must fit into the margin.
    needed = [_votes_for(width, variance, alpha) for width in (gap, margin - gap) if width > 0.002]
    total = min(needed, default=FAR)
    return max(total - len(scores), 1) if total < FAR else None


def _votes_for(width: float, variance: float, alpha: float) -> int:
    """Votes after which the bounds are about `width` from the mean.

    The best fixed bet needs 2 variance log(2/alpha) / width². The bets above, which know nothing beforehand, need more
    by a factor that grows with the logarithm of the votes; its constants are fitted to simulations.
    """
    votes = ideal = 2 * variance * math.log(2 / alpha) / width**2
    for _ in range(50):
        votes = ideal * max(1.3, math.log(votes + 1) / 2.8) + 2
        if votes > FAR:
            return FAR
    return math.ceil(votes)
