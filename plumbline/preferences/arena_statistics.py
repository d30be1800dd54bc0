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
    points = _elo(matrices.sum(axis=0).reshape(size, size))
    resampled = np.array([_elo(row.reshape(size, size)) for row in drawn @ matrices])
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
    fault = _fit_fault(scores, longer, np.ones(len(own)))
    if fault:
        return Controlled(None, fault)
    value = _rate_at_equal_length(scores, longer, np.ones(len(own)))
    drawn = cluster_weights(own, resamples=min(resamples, CONTROL_RESAMPLES), seed=seed)
    defined = [row for row in drawn if not _fit_fault(scores, longer, row)]
    if len(defined) < DEFINED_AT_LEAST * len(drawn):
        return Controlled(Estimate(value, None, None))
    return Controlled(_estimate(value, np.array([_rate_at_equal_length(scores, longer, row) for row in defined])))


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
    people = sorted({vote.annotator for vote in votes})
    whole = _rates(votes, baseline)
    found: dict[str, list[tuple[int, float, str]]] = {name: [] for name in whole}
    for person in people:
        rest = [vote for vote in votes if vote.annotator != person]
        rates, ranks = _rates(rest, baseline), ranking(rest, baseline)
        for name in found:
            if name in rates:
                found[name].append((ranks[name], rates[name], person))
    return {
        name: WithoutOne(
            (min(rank for rank, _, _ in seen), max(rank for rank, _, _ in seen)),
            (min(rate for _, rate, _ in seen), max(rate for _, rate, _ in seen)),
            max(seen, key=lambda one, name=name: abs(one[1] - whole[name]))[2],  # type: ignore[misc]
        )
        for name, seen in found.items()
        if len(seen) == len(people) > 1
    }


def ranking(votes: Sequence[Vote], baseline: str) -> dict[str, int]:
    """Places by Bradley-Terry strength, 1 is best; equal strengths share the better place."""
    names = _connected(votes, baseline)
    if len(names) < 2:
        return {}
    points = np.round(_elo(_win_matrices(votes, names).sum(axis=0).reshape(len(names), -1)), 6)
    return {name: 1 + int((points > points[i]).sum()) for i, name in enumerate(names)}


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
            times = rng.multinomial(len(groups), np.full(len(groups), 1 / len(groups)), size=resamples)
            weights *= times[:, member]
    return weights[weights.sum(axis=1) > 0]


def _estimate(value: float, drawn: Floats) -> Estimate:
    """A value with the percentiles of its resamples; without bounds where these have no spread and so tell nothing."""
    if not len(drawn) or np.ptp(drawn) < 1e-9:
        return Estimate(float(value), None, None)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Estimate(float(value), min(float(low), float(value)), max(float(high), float(value)))


def _rates(votes: Sequence[Vote], baseline: str) -> dict[str, float]:
    names = {name for vote in votes for name in (vote.left, vote.right)} - {baseline}
    met = {name: between(votes, name, baseline) for name in sorted(names)}
    return {name: float(np.mean([score_of(vote, name) for vote in own])) for name, own in met.items() if own}


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
    """Strengths in Elo points above the first policy."""
    import choix

    compared = (wins + wins.T) > 0
    compared[0, 1:] = compared[1:, 0] = True  # so that a resample without a pair's votes keeps it connected
    fitted = choix.ilsr_pairwise_dense(wins + compared * VIRTUAL_TIES / 2)
    points: Floats = ELO * (fitted - fitted[0])
    return points


def _log_ratio(vote: Vote, policy: str) -> float:
    longer = math.log((vote.left_words + 1) / (vote.right_words + 1))
    return longer if vote.left == policy else -longer


def _fit_fault(scores: Floats, longer: Floats, weights: Floats) -> str:
    """Why the regression has no finite answer; empty where it has one."""
    there = weights > 0
    won, lost = longer[there & (scores > 0)], longer[there & (scores < 1)]
    if not len(won) or not len(lost):
        return "all votes went the same way"
    if np.ptp(longer[there]) == 0:
        return "all texts differ in length by the same share"
    if won.max() <= lost.min() or lost.max() <= won.min():
        return "length tells wins from losses without fault, so the two cannot be told apart"
    return ""


def _rate_at_equal_length(scores: Floats, longer: Floats, weights: Floats) -> float:
    from sklearn.linear_model import LogisticRegression

    # Each vote is a win and a loss, weighted by its score.
    inputs = np.concatenate([longer, longer])[:, None]
    outcomes = np.repeat([1, 0], len(scores))
    weighted = np.concatenate([weights * scores, weights * (1 - scores)])
    kept = weighted > 0
    fitted = LogisticRegression(C=np.inf).fit(inputs[kept], outcomes[kept], sample_weight=weighted[kept])
    return float(1 / (1 + math.exp(-fitted.intercept_[0])))
