"""Win rates with ties, a bootstrap over prompts, and a win rate at equal length.

Shapes: `(prompts, responses)` for what is known of each response, `(prompts, responses, responses)` for every pair of a
policy's and a baseline's response to the same prompt. Prompts are the independent observations: all that belongs to one
prompt is drawn together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from reward.accuracy import wilson_interval

Floats = NDArray[np.float64]

BLOCK = 1 << 22
"""Most numbers of one block of resamples, to bound the memory."""

CONTROL_RESAMPLES = 2000
"""Most resamples of the length-controlled win rate: each is a regression."""


class Interval(NamedTuple):
    """An estimate with its confidence interval."""

    estimate: float
    low: float
    high: float


class WinRate(NamedTuple):
    """How often a policy's responses were preferred; a tie counts as half a win.

    Attributes:
        n: prompts.
        win_rate, low, high: the share of wins and its interval, ties counted half.
        ties: share of ties among all pairs.
    """

    n: int
    win_rate: float
    low: float
    high: float
    ties: float


class ControlledWinRate(NamedTuple):
    """What the win rate would be between responses of the same length."""

    win_rate: float
    low: float
    high: float


def pair_outcomes(policy: Floats, baseline: Floats, *, tie: float = 0.0) -> Floats:
    """Compare every response of a policy with every response of a baseline to the same prompt.

    Args:
        policy, baseline: scores `(prompts, responses)`.
        tie: scores that differ by no more than this are equal.

    Returns:
        `(prompts, responses, responses)`: 1 for a win of the policy, 0.5 for a tie, 0 for a loss.
    """
    difference = policy[:, :, None] - baseline[:, None, :]
    return np.where(np.abs(difference) <= tie, 0.5, (difference > 0).astype(float))


def win_rate_with_ties(outcomes: Floats, *, resamples: int, seed: int, confidence: float = 0.95) -> WinRate:
    """The win rate over all pairs, with a percentile bootstrap over prompts.

    Where every pair went the same way, resampling sees no spread at all; the interval is then Wilson's.

    Args:
        outcomes: `(prompts, responses, responses)` from `pair_outcomes`.
        resamples: of the bootstrap.
        seed: of its random state.
        confidence: of the interval.
    """
    per_prompt = outcomes.mean(axis=(1, 2))
    rate, low, high = paired_bootstrap(per_prompt, resamples=resamples, seed=seed, confidence=confidence)
    if rate in (0.0, 1.0):
        low, high = wilson_interval(rate, len(per_prompt))
    return WinRate(len(per_prompt), rate, low, high, float((outcomes == 0.5).mean()))


def paired_bootstrap(
    sums: Floats, counts: Floats | None = None, *, resamples: int, seed: int, confidence: float = 0.95
) -> Interval:
    """Percentile bootstrap over prompts of a mean, or of a ratio of two sums.

    Paired: what is resampled belongs to a prompt and already holds both sides of a comparison.

    Args:
        sums: `(prompts,)`.
        counts: `(prompts,)`, what the sums are divided by, such as tokens; ones by default.
        resamples: number of them.
        seed: of the random state.
        confidence: of the interval.
    """
    weights = np.ones_like(sums) if counts is None else counts
    estimate = float(sums.sum() / weights.sum())
    drawn = []
    for indices in _resampled(len(sums), resamples, seed):
        below = weights[indices].sum(axis=1)
        drawn.append(np.divide(sums[indices].sum(axis=1), below, out=np.full(len(below), np.nan), where=below > 0))
    low, high = _percentiles(np.concatenate(drawn), confidence)
    return Interval(estimate, min(low, estimate), max(high, estimate))


def _resampled(n: int, resamples: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Blocks `(some resamples, n)` of indices drawn with replacement."""
    rng = np.random.default_rng(seed)
    size = max(1, BLOCK // n)
    for start in range(0, resamples, size):
        yield rng.integers(n, size=(min(size, resamples - start), n))


def _percentiles(values: Floats, confidence: float) -> tuple[float, float]:
    tail = 50 * (1 - confidence)
    low, high = np.nanpercentile(values, [tail, 100 - tail])
    return float(low), float(high)


def distinct_n(texts: Sequence[Sequence[str]], n: int) -> float:
    """Distinct n-grams over all n-grams of a set of texts (arXiv:1510.03055); 0 where there are none.

    Args:
        texts: the words of each text.
        n: words of an n-gram.
    """
    grams = [tuple(words[start : start + n]) for words in texts for start in range(len(words) - n + 1)]
    return len(set(grams)) / len(grams) if grams else 0.0


def length_controlled_win_rate(
    outcomes: Floats, differences: Floats, *, resamples: int, seed: int, confidence: float = 0.95
) -> ControlledWinRate:
    """The win rate at equal length, after arXiv:2404.04475 without its terms for several policies and instructions.

    A logistic regression explains the outcome by a constant and by tanh of the length difference over its standard
    deviation; its prediction at difference 0 is the answer. Both coefficients have a weak Gaussian prior (precision
    0.1), so that it has a finite answer where length tells wins from losses without fault.

    Args:
        outcomes: `(prompts, responses, responses)`.
        differences: of the same shape, length of the policy's response less that of the baseline's.
        resamples: of the bootstrap over prompts; `CONTROL_RESAMPLES` at most.
        seed: of its random state.
        confidence: of the interval.
    """
    prompts = len(outcomes)
    won, spread = outcomes.reshape(prompts, -1), float(differences.std())
    longer = np.tanh(differences / spread).reshape(prompts, -1) if spread else np.zeros_like(won)
    estimate = _fit_at_equal_length(won, longer, np.ones((1, prompts)))
    blocks = _resampled(prompts, min(resamples, CONTROL_RESAMPLES), seed)
    drawn = [_fit_at_equal_length(won, longer, _times_drawn(indices)) for indices in blocks]
    low, high = _percentiles(np.concatenate(drawn), confidence)
    return ControlledWinRate(float(estimate[0]), low, high)


def _times_drawn(indices: NDArray[np.int64]) -> Floats:
    """How often each prompt is in each resample, `(resamples, prompts)`."""
    counts = np.zeros(indices.shape)
    np.add.at(counts, (np.arange(len(indices))[:, None], indices), 1)
    return counts


def _fit_at_equal_length(won: Floats, longer: Floats, weights: Floats, *, precision: float = 0.1) -> Floats:
    """Fit one logistic regression for each row of weights by Newton's method; return sigmoid of the constants.

    Args:
        won: outcomes `(prompts, pairs)`.
        longer: the regressor, of the same shape.
        weights: of the prompts, `(fits, prompts)`; the pairs of a prompt share its weight.
        precision: of the prior on both coefficients.
    """
    y, x = won.ravel(), longer.ravel()
    w = np.repeat(weights / won.shape[1], won.shape[1], axis=1)
    constant, slope = np.zeros(len(weights)), np.zeros(len(weights))
    for _ in range(30):
        p = 1 / (1 + np.exp(-(constant[:, None] + slope[:, None] * x)))
        residual, curvature = w * (y - p), w * p * (1 - p)
        gradient = residual.sum(1) - precision * constant, residual @ x - precision * slope
        a, b, c = curvature.sum(1) + precision, curvature @ x, curvature @ x**2 + precision
        determinant = a * c - b * b
        step = (c * gradient[0] - b * gradient[1]) / determinant, (a * gradient[1] - b * gradient[0]) / determinant
        # A bounded step cannot overshoot where nearly all outcomes are the same.
        constant, slope = constant + np.clip(step[0], -2, 2), slope + np.clip(step[1], -2, 2)
        if max(np.abs(step[0]).max(), np.abs(step[1]).max()) < 1e-9:
            break
    return 1 / (1 + np.exp(-constant))
