"""Statistics of the comparison, against sums by hand, brute force and scipy."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from plumbline.compare import statistics
from plumbline.compare.statistics import (
    distinct_n,
    length_controlled_win_rate,
    pair_outcomes,
    paired_bootstrap,
    win_rate_with_ties,
)

score_tables = (
    st.integers(1, 5)
    .flatmap(
        lambda responses: st.lists(
            st.lists(st.integers(-3, 3).map(float), min_size=responses, max_size=responses), min_size=1, max_size=8
        )
    )
    .map(np.array)
)


def rate(policy: np.ndarray, baseline: np.ndarray, *, tie: float = 0.0) -> statistics.WinRate:
    return win_rate_with_ties(pair_outcomes(policy, baseline, tie=tie), resamples=300, seed=1)


def column(*values: float) -> np.ndarray:
    """Scores of one response to each prompt."""
    return np.array(values, dtype=float)[:, None]


def test_win_rate_by_hand() -> None:
    # win, loss, tie, win: (1 + 0 + 1/2 + 1) / 4 = 0.625, one tie of four
    found = rate(column(3, 1, 2, 5), column(2, 2, 2, 1))
    assert (found.n, found.win_rate, found.ties) == (4, 0.625, 0.25)
    assert 0 <= found.low < 0.625 < found.high <= 1


def test_scores_within_the_tolerance_are_ties() -> None:
    assert rate(column(1.0, 1.0), column(1.05, 1.2), tie=0.1).win_rate == 0.25


@given(score_tables, st.integers(0, 5))
@settings(max_examples=40, deadline=None)
def test_all_pairs_of_a_prompt_count_and_sides_mirror(policy: np.ndarray, seed: int) -> None:
    baseline = np.random.default_rng(seed).permutation(policy.ravel()).reshape(policy.shape)
    pairs = [
        (a > b) + 0.5 * (a == b)
        for row, other in zip(policy, baseline, strict=True)
        for a, b in itertools.product(row, other)
    ]
    found, mirrored = rate(policy, baseline), rate(baseline, policy)
    assert found.win_rate == pytest.approx(sum(pairs) / len(pairs))
    assert found.ties == pytest.approx(pairs.count(0.5) / len(pairs)) == mirrored.ties
    assert found.win_rate + mirrored.win_rate == pytest.approx(1)
    assert found.low == pytest.approx(1 - mirrored.high)


@given(score_tables)
@settings(max_examples=30, deadline=None)
def test_a_policy_against_itself_is_exactly_one_half(scores: np.ndarray) -> None:
    assert rate(scores, scores)[1:4] == (0.5, 0.5, 0.5)


def test_an_interval_is_left_where_every_prompt_was_won() -> None:
    found = rate(np.ones((20, 1)), np.zeros((20, 1)))
    # Wilson: z² = 3.8415, so low = n / (n + z²) = 20 / 23.8415
    assert found.win_rate == found.high == 1
    assert found.low == pytest.approx(20 / 23.8415, abs=1e-4)


def test_bootstrap_agrees_with_scipy(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).normal(0.3, 1, size=150)
    expected = stats.bootstrap(
        (values,), np.mean, n_resamples=10_000, method="percentile", rng=np.random.default_rng(4)
    ).confidence_interval
    found = paired_bootstrap(values, resamples=10_000, seed=3)
    assert found.estimate == pytest.approx(values.mean())
    assert found[1:] == pytest.approx((expected.low, expected.high), abs=0.01)
    monkeypatch.setattr(statistics, "BLOCK", 1000)
    assert paired_bootstrap(values, resamples=10_000, seed=3) == found  # how the work is cut does not matter


def test_bootstrap_by_brute_force() -> None:
    sums, counts = np.array([4.0, 0.0, 9.0]), np.array([2.0, 1.0, 3.0])
    every = [sums[list(draw)].sum() / counts[list(draw)].sum() for draw in itertools.product(range(3), repeat=3)]
    found = paired_bootstrap(sums, counts, resamples=20_000, seed=0, confidence=0.8)
    assert found.estimate == pytest.approx(13 / 6)
    assert found[1:] == pytest.approx(tuple(np.percentile(every, [10, 90], method="inverted_cdf")))


def test_prompts_are_drawn_whole() -> None:
    """Ten equal responses to a prompt are one observation: the interval is that of single responses."""
    single = np.random.default_rng(2).integers(0, 2, size=(40, 1)).astype(float)
    zeros = np.full((40, 1), 0.5)
    assert rate(single, zeros)[1:4] == pytest.approx(rate(single.repeat(10, 1), zeros.repeat(10, 1))[1:4])


def test_distinct_n_by_hand() -> None:
    texts = [["a", "b", "a", "b"], ["a", "b"]]
    assert distinct_n(texts, 1) == 2 / 6
    assert distinct_n(texts, 2) == 2 / 4  # ab, ba, ab and ab
    assert distinct_n(texts, 3) == 1
    assert distinct_n(texts, 5) == 0
    assert distinct_n([], 1) == 0


def test_length_control_is_the_regression_at_equal_length() -> None:
    rng = np.random.default_rng(1)
    differences = rng.normal(10, 20, size=(200, 1, 1))
    x = np.tanh(differences.ravel() / differences.std())
    won = (rng.random(200) < 1 / (1 + np.exp(-(0.3 + 1.5 * x)))).astype(float)

    def loss(b: np.ndarray) -> float:
        eta = b[0] + b[1] * x
        return float(np.sum(np.logaddexp(0, eta) - won * eta) + 0.05 * b @ b)

    constant = optimize.minimize(loss, np.zeros(2), tol=1e-10).x[0]
    found = length_controlled_win_rate(won[:, None, None], differences, resamples=200, seed=0)
    assert found.win_rate == pytest.approx(1 / (1 + np.exp(-constant)), abs=1e-5)
    assert found.low < found.win_rate < found.high
    assert found.win_rate < won.mean()  # part of the wins was length


def test_length_control_takes_a_win_by_length_alone_away() -> None:
    """Whoever is longer wins: between equal lengths nobody is ahead, and the answer stays finite."""
    differences = np.array([30.0, 25, 40, 35, 30, 28, -30, -25])[:, None, None]
    outcomes = (differences > 0).astype(float)
    found = length_controlled_win_rate(outcomes, differences, resamples=100, seed=0)
    assert outcomes.mean() == 0.75
    assert found.win_rate == pytest.approx(0.5, abs=0.15)


def test_length_control_without_any_difference_in_length_is_the_plain_rate() -> None:
    outcomes = np.array([1.0] * 60 + [0.0] * 40)[:, None, None]
    found = length_controlled_win_rate(outcomes, np.zeros_like(outcomes), resamples=100, seed=0)
    assert found.win_rate == pytest.approx(0.6, abs=0.002)
