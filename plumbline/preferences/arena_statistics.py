"""How strong the arena's policies are, from votes: Bradley-Terry, win rates, and both as if texts were equally long.

A tie, and a vote for "both bad", is half a win for each side. Intervals are percentiles of a bootstrap that draws
annotators and prompts, each with replacement and independently of each other (the pigeonhole bootstrap, Owen 2007,
arXiv:0712.1111): votes of one person, or of one prompt, hang together. Shapes: `n` votes, `R` resamples.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from plumbline.preferences.arena_votes import Vote

Floats = NDArray[np.float64]

ELO = 400 / math.log(10)
"""Points of the usual scale for one unit of Bradley-Terry strength: 400 points are odds of 10 to 1."""

VIRTUAL_TIES = 1.0
"""Ties added to each pair that was compared, so that a policy that won or lost all has a finite strength."""

CONTROL_RESAMPLES = 200
"""Most resamples of the win rate at equal length: each is a regression."""

DEFINED_AT_LEAST = 0.8
"""Share of resamples in which an estimate must be defined, to have an interval."""

MOST_STEPS, LONGEST_STEP, CLOSE = 100, 2.0, 1e-9
"""Of Newton's method, in units of log-odds."""

FIT_FAULTS = (
    "",
    "all votes went the same way",
    "all texts differ in length by the same share",
    "length tells wins from losses without fault, so the two cannot be told apart",
)
"""Why there is no regression on length; the first means that there is one."""


class Estimate(NamedTuple):
    """A number with its 95% interval; the bounds are None where resampling shows no spread or is not defined."""

    value: float
    low: float | None
    high: float | None


class Controlled(NamedTuple):
    """A win rate at equal length, or why there is none."""

    estimate: Estimate | None
    why_not: str = ""


def strengths(votes: Sequence[Vote], baseline: str, *, resamples: int, seed: int) -> dict[str, Estimate]:
    """Bradley-Terry strengths in Elo points above the baseline, of every policy that is connected with it by votes."""
    names = _connected(votes, baseline)
    if len(names) < 2:
        return {}
    matrices = _win_matrices(votes, names)  # (n, policies²), one vote each
    drawn = cluster_weights(votes, resamples=resamples, seed=seed)
    size = len(names)
    points = _elo(matrices.sum(axis=0).reshape(1, size, size))[0]
    resampled = _elo((drawn @ matrices).reshape(-1, size, size))
    return {name: _estimate(points[i], resampled[:, i]) for i, name in enumerate(names)}


def win_rate(votes: Sequence[Vote], policy: str, baseline: str, *, resamples: int, seed: int) -> Estimate | None:
    """The policy's win rate over the baseline, a tie counted half; None without votes between the two.

    Where every vote went the same way, resampling sees no spread: the interval is then Wilson's, which takes votes as
    independent.
    """
    own = between(votes, policy, baseline)
    if not own:
        return None
    scores = np.array([score_of(vote, policy) for vote in own])
    rate = float(scores.mean())
    if rate in (0.0, 1.0):
        from scipy.stats import binomtest

        bounds = binomtest(round(scores.sum()), len(scores)).proportion_ci(method="wilson")
        return Estimate(rate, float(bounds.low), float(bounds.high))
    drawn = cluster_weights(own, resamples=resamples, seed=seed)
    return _estimate(rate, drawn @ scores / drawn.sum(axis=1))


def length_controlled(votes: Sequence[Vote], policy: str, baseline: str, *, resamples: int, seed: int) -> Controlled:
    """What the win rate would be between texts of the same length (after arXiv:2404.04475).

    A logistic regression without regularisation explains the score by a constant and by the difference of the
    log-lengths in words; its prediction at no difference is the answer. A tie is half a win and half a loss.
    """
    own = between(votes, policy, baseline)
    scores = np.array([score_of(vote, policy) for vote in own])
    longer = np.array([_log_ratio(vote, policy) for vote in own])
    once = np.ones((1, len(own)))
    fault = FIT_FAULTS[_fit_faults(scores, longer, once)[0]]
    if fault:
        return Controlled(None, fault)
    value = float(_rates_at_equal_length(scores, longer, once)[0])
    drawn = cluster_weights(own, resamples=min(resamples, CONTROL_RESAMPLES), seed=seed)
    defined = drawn[_fit_faults(scores, longer, drawn) == 0]
    if len(defined) < DEFINED_AT_LEAST * len(drawn):
        return Controlled(Estimate(value, None, None))
    return Controlled(_estimate(value, _rates_at_equal_length(scores, longer, defined)))


class WithoutOne(NamedTuple):
    """What becomes of a policy when the votes of any one annotator are left out.

    `ranks` and `rates` are the lowest and highest; `mover` is whose votes move its win rate the most.
    """

    ranks: tuple[int, int]
    rates: tuple[float, float]
    mover: str


def leave_one_out(votes: Sequence[Vote], baseline: str) -> dict[str, WithoutOne]:
    """For every policy but the baseline, the range of its rank and its win rate without any one annotator.

    Policies that lose all their votes with one annotator, and everything where only one annotator voted, are left out.
    """
    names = _connected(votes, baseline)
    people, who = np.unique([vote.annotator for vote in votes], return_inverse=True)
    if len(names) < 2 or len(people) < 2:
        return {}
    size = len(names)
    own = np.zeros((len(people), size * size))
    np.add.at(own, who, _win_matrices(votes, names))
    wins = (own.sum(axis=0) - own).reshape(-1, size, size)
    whole = own.sum(axis=0).reshape(size, size)
    ranks, (rates, met) = _ranks(wins), _against_first(wins)
    all_rates, _ = _against_first(whole[None])
    return {
        name: WithoutOne(
            (int(ranks[:, i].min()), int(ranks[:, i].max())),
            (float(rates[:, i].min()), float(rates[:, i].max())),
            str(people[np.abs(rates[:, i] - all_rates[0, i]).argmax()]),
        )
        for i, name in enumerate(names)
        if i and met[:, i].all()
    }


def ranking(votes: Sequence[Vote], baseline: str) -> dict[str, int]:
    """Places by Bradley-Terry strength, 1 is best; equal strengths share the better place."""
    names = _connected(votes, baseline)
    if len(names) < 2:
        return {}
    size = len(names)
    ranks = _ranks(_win_matrices(votes, names).sum(axis=0).reshape(1, size, size))[0]
    return {name: int(ranks[i]) for i, name in enumerate(names)}


def between(votes: Iterable[Vote], policy: str, other: str) -> list[Vote]:
    """The votes in which these two met."""
    return [vote for vote in votes if {vote.left, vote.right} == {policy, other}]


def score_of(vote: Vote, policy: str) -> float:
    """What the vote gives to this policy."""
    return vote.score if vote.left == policy else 1 - vote.score


def cluster_weights(votes: Sequence[Vote], *, resamples: int, seed: int) -> Floats:
    """How often each vote is in each resample `(R, n)`: the times its annotator was drawn, by those of its prompt.

    Where there is one annotator (or one prompt) alone, the other is resampled. Resamples without any vote are left out.
    """
    rng = np.random.default_rng(seed)
    weights = np.ones((resamples, len(votes)))
    for names in ([vote.annotator for vote in votes], [vote.prompt for vote in votes]):
        groups, member = np.unique(names, return_inverse=True)
        if len(groups) > 1:
            drawn = rng.integers(len(groups), size=(resamples, len(groups)))
            drawn += len(groups) * np.arange(resamples)[:, None]
            times = np.bincount(drawn.ravel(), minlength=drawn.size).reshape(drawn.shape)
            weights *= times[:, member]
    return weights[weights.sum(axis=1) > 0]


def _estimate(value: float, drawn: Floats) -> Estimate:
    """A value with the percentiles of its resamples; without bounds where these have no spread and so tell nothing."""
    if not len(drawn) or np.ptp(drawn) < 1e-9:
        return Estimate(float(value), None, None)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Estimate(float(value), min(float(low), float(value)), max(float(high), float(value)))


def _connected(votes: Sequence[Vote], baseline: str) -> list[str]:
    """The policies that are connected with the baseline by votes, the baseline first."""
    reached = [baseline]
    for name in reached:  # grows while it is walked
        for vote in votes:
            if name in (vote.left, vote.right):
                reached += [other for other in (vote.left, vote.right) if other not in reached]
    return reached


def _win_matrices(votes: Sequence[Vote], names: Sequence[str]) -> Floats:
    """For each vote its matrix of wins `[i, j]`, how often i won against j, flattened: `(n, policies²)`."""
    place = {name: index for index, name in enumerate(names)}
    wins = np.zeros((len(votes), len(names), len(names)))
    for row, vote in enumerate(votes):
        if vote.left in place and vote.right in place:
            left, right = place[vote.left], place[vote.right]
            wins[row, left, right], wins[row, right, left] = vote.score, 1 - vote.score
    return wins.reshape(len(votes), -1)


def _elo(wins: Floats) -> Floats:
    """Bradley-Terry strengths in Elo points above the first policy, `(R, policies)`, of wins `(R, policies, policies)`.

    All R at once by Newton's method: fitting hundreds of resamples one by one takes seconds.
    """
    compared = (wins + wins.swapaxes(1, 2)) > 0
    compared[:, 0, 1:] = compared[:, 1:, 0] = True  # so that a resample without a pair's votes keeps it connected
    wins = wins + compared * VIRTUAL_TIES / 2
    games, own = wins + wins.swapaxes(1, 2), np.arange(wins.shape[1])
    fitted = np.zeros(wins.shape[:2])
    for _ in range(MOST_STEPS):
        expected = 1 / (1 + np.exp(fitted[:, None, :] - fitted[:, :, None]))
        slope = (wins - games * expected).sum(axis=2)
        bend = -games * expected * (1 - expected)
        bend[:, own, own] = -bend.sum(axis=2)
        step = np.linalg.solve(bend[:, 1:, 1:], slope[:, 1:, None])[:, :, 0].clip(-LONGEST_STEP, LONGEST_STEP)
        fitted[:, 1:] += step
        if np.abs(step).max() < CLOSE:
            break
    points: Floats = ELO * fitted
    return points


def _ranks(wins: Floats) -> NDArray[np.int64]:
    """Places by strength, `(R, policies)`, among the policies that are connected with the first one in each row."""
    met = (wins + wins.swapaxes(1, 2)) > 0
    reached = np.zeros(wins.shape[:2], dtype=bool)
    reached[:, 0] = True
    for _ in range(wins.shape[1]):
        reached |= (met & reached[:, None, :]).any(axis=2)
    points = np.round(_elo(wins * (reached[:, :, None] & reached[:, None, :])), 6)
    points[~reached] = -np.inf
    return 1 + (points[:, None, :] > points[:, :, None]).sum(axis=2)


def _against_first(wins: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    """Win rates over the first policy, `(R, policies)`, and whether there are votes between the two."""
    games = wins[:, :, 0] + wins[:, 0, :]
    return np.divide(wins[:, :, 0], games, out=np.zeros_like(games), where=games > 0), games > 0


def _log_ratio(vote: Vote, policy: str) -> float:
    longer = math.log((vote.left_words + 1) / (vote.right_words + 1))
    return longer if vote.left == policy else -longer


def _fit_faults(scores: Floats, longer: Floats, weights: Floats) -> NDArray[np.int64]:
    """Why the regression of each row of weights `(R, n)` has no finite answer, as indexes into `FIT_FAULTS`."""
    there = weights > 0
    won, lost = there & (scores > 0), there & (scores < 1)

    def range_of(some: NDArray[np.bool_]) -> tuple[Floats, Floats]:
        return np.where(some, longer, np.inf).min(axis=1), np.where(some, longer, -np.inf).max(axis=1)

    (won_least, won_most), (lost_least, lost_most) = range_of(won), range_of(lost)
    least, most = range_of(there)
    one_way = ~won.any(axis=1) | ~lost.any(axis=1)
    told_apart = (won_most <= lost_least) | (lost_most <= won_least)
    return np.select([one_way, least == most, told_apart], [1, 2, 3], 0)


def _rates_at_equal_length(scores: Floats, longer: Floats, weights: Floats) -> Floats:
    """The regression's prediction at no difference, for each row of weights `(R, n)`; by Newton's method."""
    inputs = np.column_stack([np.ones(len(longer)), longer / longer.std()])
    products = inputs[:, :, None] * inputs[:, None, :]
    fitted = np.zeros((len(weights), 2))
    for _ in range(MOST_STEPS):
        expected = 1 / (1 + np.exp(-fitted @ inputs.T))
        slope = (weights * (scores - expected)) @ inputs
        bend = np.tensordot(weights * expected * (1 - expected), products, axes=1)
        step = np.linalg.solve(bend, slope[:, :, None])[:, :, 0].clip(-LONGEST_STEP, LONGEST_STEP)
        fitted += step
        if np.abs(step).max() < CLOSE:
            break
    rates: Floats = 1 / (1 + np.exp(-fitted[:, 0]))
    return rates
