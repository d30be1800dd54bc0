"""The detector, on series made by hand and at random."""

from __future__ import annotations

import json
from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf.ppo.overoptimization import Comparison, OveroptimizationDetector, ScoreSums


def sums(scores: Iterable[float]) -> ScoreSums:
    values = [float(score) for score in scores]
    return ScoreSums(len(values), sum(values), sum(value * value for value in values))


def around(mean: float) -> ScoreSums:
    """Four scores with this mean and a sample variance of 4/3."""
    return sums([mean - 1, mean - 1, mean + 1, mean + 1])


def fired(detector: OveroptimizationDetector, proxy: Iterable[float], watched: Iterable[float]) -> list[int]:
    """The rollouts, counted from 1, at which it saw over-optimisation."""
    return [
        number
        for number, (one, other) in enumerate(zip(proxy, watched, strict=True), 1)
        if detector.seen(detector.update(around(one), around(other)))
    ]


def test_the_statistic_is_that_of_the_hand() -> None:
    detector = OveroptimizationDetector(window=1, threshold=5.0)
    assert detector.update(sums([0, 1, 2, 3]), sums([8, 8, 10, 10])) is None
    found = detector.update(sums([5, 5, 7, 7]), sums([1, 2, 3, 2]))
    assert found is not None
    # Variances: 5/3 and 4/3 over 4 scores each; then 4/3 and 2/3.
    assert found.proxy_z == pytest.approx((6 - 1.5) / ((5 / 3 + 4 / 3) / 4) ** 0.5)
    assert found.watched_z == pytest.approx((2 - 9) / ((4 / 3 + 2 / 3) / 4) ** 0.5)
    assert str(found) == (
        "from rollouts 1 to 1 to rollouts 2 to 2 the optimised score went from 1.5 to 6 (+5.2 standard errors) and the "
        "watched one from 9 to 2 (-9.9)"
    )
    assert found.beyond(5.0) and not found.beyond(5.5)


UP, DOWN = [0.0, 0, 0, 3, 6, 9, 12], [9.0, 9, 9, 6, 3, 0, -3]


@pytest.mark.parametrize(
    ("proxy", "watched", "expected"),
    [
        (UP, DOWN, [5]),  # windows 2 to 3 and 4 to 5: +4.5 and −4.5 at a standard error of 0.58
        (UP, UP, []),
        (DOWN, UP, []),
        (DOWN, DOWN, []),
        ([0.0] * 7, DOWN, []),
        (UP, [0.0] * 7, []),
    ],
    ids=["they part", "both rise", "the other way round", "both fall", "only one falls", "only one rises"],
)
def test_it_fires_only_when_one_rises_and_the_other_falls(
    proxy: list[float], watched: list[float], expected: list[int]
) -> None:
    assert fired(OveroptimizationDetector(window=2, threshold=5.0), proxy, watched) == expected


def test_a_slow_fall_is_measured_from_the_best_window() -> None:
    """No two neighbouring windows differ much; the watched score rose first."""
    watched = [0.0, 1, 2, *(2 - 0.1 * step for step in range(60))]
    proxy = [0.1 * step for step in range(63)]
    detector = OveroptimizationDetector(window=2, threshold=5.0)
    (first, *_) = fired(detector, proxy, watched)
    assert 30 <= first <= 35, "3 standard errors of 0.58 are 29 rollouts of 0.1"


def test_after_it_fired_only_a_further_fall_counts() -> None:
    detector = OveroptimizationDetector(window=2, threshold=5.0)
    assert fired(detector, UP + [12.0] * 20, DOWN + [-3.0] * 20) == [5]
    assert fired(detector, UP, DOWN) == [5 + 0]
    assert detector.rollouts == 34


def test_scores_without_spread_are_not_taken_for_a_change_by_rounding() -> None:
    detector = OveroptimizationDetector(window=1, threshold=5.0)
    detector.update(sums([0.1] * 3), sums([0.3] * 3))
    rounded = detector.update(sums([0.1 + 1e-9] * 3), sums([0.3 - 1e-9] * 3))
    assert rounded is not None and not rounded.beyond(5.0)
    changed = detector.update(sums([0.2] * 3), sums([0.2] * 3))
    assert changed is not None and changed.beyond(5.0)


def noisy(seed: int, rollouts: int, *, fall: float) -> int | None:
    """The first rollout of 64 episodes at which it fired; the proxy rises, the watched score falls a little each."""
    rng, detector = np.random.default_rng(seed), OveroptimizationDetector(window=5, threshold=5.0)
    for number in range(rollouts):
        proxy, watched = rng.normal(0.05 * number, 1, 64), rng.normal(-fall * number, 1, 64)
        if detector.seen(detector.update(sums(proxy), sums(watched))):
            return number
    return None


def test_noise_alone_rarely_fires() -> None:
    assert [seed for seed in range(40) if noisy(seed, 100, fall=0.0) is not None] == []


def test_a_fall_beyond_noise_fires() -> None:
    """0.02 deviations a rollout: 5 standard errors of two windows of 320 episodes are 0.4."""
    found = [noisy(seed, 100, fall=0.02) for seed in range(10)]
    assert all(number is not None and number < 60 for number in found)


scores = st.lists(st.integers(-50, 50), min_size=2, max_size=6)
series = st.lists(st.tuples(scores, scores), min_size=1, max_size=30)


@settings(max_examples=60)
@given(series, st.integers(1, 4), st.integers(0, 29))
def test_restored_state_goes_on_alike(rollouts: list[tuple[list[int], list[int]]], window: int, stop: int) -> None:
    """Whatever the series, and wherever it is interrupted; the state passes through JSON."""
    whole, resumed = OveroptimizationDetector(window, 2.0), OveroptimizationDetector(window, 2.0)
    for number, (proxy, watched) in enumerate(rollouts):
        found, again = (one.update(sums(proxy), sums(watched)) for one in (whole, resumed))
        assert found == again
        assert whole.seen(found) == resumed.seen(again)
        if number == stop:
            state = json.loads(json.dumps(resumed.state()))
            resumed = OveroptimizationDetector(window, 2.0)
            resumed.load_state(state)


@settings(max_examples=60)
@given(series, st.integers(1, 4))
def test_it_compares_the_last_window_with_the_best_of_all_before(
    rollouts: list[tuple[list[int], list[int]]], window: int
) -> None:
    """Against a search over all windows by hand."""
    detector = OveroptimizationDetector(window, threshold=1e9)
    for end in range(1, len(rollouts) + 1):
        proxy, watched = rollouts[end - 1]
        found = detector.update(sums(proxy), sums(watched))
        if end < 2 * window:
            assert found is None
            continue
        assert isinstance(found, Comparison)
        starts = range(end - 2 * window + 1)
        means = [mean_of(rollouts[start : start + window]) for start in starts]
        assert found.best.watched.mean == pytest.approx(max(means))
        assert found.now.watched.mean == pytest.approx(mean_of(rollouts[end - window : end]))
        assert (found.now.first, found.now.last) == (end - window + 1, end)
        assert found.best.first - 1 in starts


def mean_of(rollouts: list[tuple[list[int], list[int]]]) -> float:
    return float(np.mean([score for _, watched in rollouts for score in watched]))
