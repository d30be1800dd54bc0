"""Intervals, reliability, effects, notes and the forecast, against values worked out by hand and planted faults."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from plumbline.preferences.quality.agreement import find_couples
from plumbline.preferences.quality.effects import effects_of, longer_share
from plumbline.preferences.quality.figures import correlation, mean_share, share_of, wilson
from plumbline.preferences.quality.forecast import forecast
from plumbline.preferences.quality.reliability import reliability_of
from plumbline.preferences.quality.sample import Overlap, OwnJudgement, TaskFacts, padded

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)


@given(st.integers(1, 500), st.data())
def test_wilson_is_scipy_s(n: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(0, n))
    expected = binomtest(k, n).proportion_ci(0.95, method="wilson")
    assert wilson(k / n, n) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_a_correlation_by_hand() -> None:
    found = correlation([1, 2, 3, 4], [1, 3, 2, 4], least=4)
    assert found.value == pytest.approx(0.8)
    assert found.low == pytest.approx(math.tanh(math.atanh(0.8) - 1.959964), abs=1e-5)
    assert correlation([1.0] * 9, list(range(9)), least=4).value is None
    assert "of the 10 judgements" in (correlation([1, 2, 3, 4], [1, 3, 2, 4], least=10).why or "")


def judged(ranks, *, order=None, seconds=30.0, lengths=None, words=100, earlier=None) -> OwnJudgement:  # type: ignore[no-untyped-def]
    lengths = tuple(lengths or range(1, len(ranks) + 1))
    return OwnJudgement(list(ranks), order, seconds, TaskFacts(words, lengths), earlier)


def test_position_counts_how_often_the_first_card_alone_is_best() -> None:
    first_best = [judged([1, 2, 3], order=[0, 1, 2])] * 9
    other_best = [judged([1, 2, 3], order=[1, 0, 2])] * 3
    tied = [judged([1, 1, 2], order=[0, 1, 2])] * 5  # nothing alone is best: left out
    found = effects_of(first_best + other_best + tied)
    assert found.first_wins.value == 0.75
    assert found.first_wins.n == 12
    assert found.first_expected == pytest.approx(1 / 3)
    assert (found.first_wins.low, found.first_wins.high) == pytest.approx(wilson(0.75, 12))


def test_the_longer_one_of_each_pair() -> None:
    assert longer_share([1, 2, 3], [30, 20, 10]) == 1.0
    assert longer_share([3, 2, 1], [30, 20, 10]) == 0.0
    assert longer_share([1, 2, 3], [20, 30, 10]) == pytest.approx(2 / 3)
    assert longer_share([1, 1], [20, 30]) is None
    assert longer_share([1, 2], [20, 20]) is None


def test_haste_is_told_by_the_words_to_read() -> None:
    # 200 words at 600 words a minute take 20 seconds.
    found = effects_of([judged([1, 2], seconds=19, words=200)] * 5 + [judged([1, 2], seconds=21, words=200)] * 15)
    assert found.too_fast.value == 0.25
    assert found.seconds.value == 21


def test_consistency_compares_a_repeat_with_what_was_said_before() -> None:
    same = [judged([1, 2, 3], earlier=[1, 2, 3])] * 9
    swapped = [judged([2, 1, 3], earlier=[1, 2, 3])] * 3
    found = effects_of(same + swapped).consistency
    assert found.value == pytest.approx((9 + 3 * 2 / 3) / 12)
    assert found.n == 12


def test_who_ties_each_time_is_not_consistent_but_unknown() -> None:
    found = effects_of([judged([1, 1, 1], earlier=[1, 1, 1])] * 12).consistency
    assert found.value is None and "equal" in (found.why or "")
    one = effects_of([judged([1, 1, 1], earlier=[1, 1, 1])] * 11 + [judged([1, 1, 1], earlier=[1, 2, 2])]).consistency
    assert one.value is not None


def test_nothing_is_said_of_too_few() -> None:
    found = effects_of([judged([1, 2], order=[0, 1])] * 3)
    for figure in (found.first_wins, found.longer_wins, found.seconds, found.too_fast, found.consistency):
        assert figure.value is None
        assert figure.why


def simulated(accuracy: list[float], tasks: int, seed: int = 0) -> Overlap:
    """Everybody judges every pair; each says what is right with a probability of their own."""
    rng = np.random.default_rng(seed)
    truth = rng.random(tasks) < 0.5
    right = rng.random((tasks, len(accuracy))) < accuracy
    rows = [
        [1, 2] if truth[task] == right[task, who] else [2, 1] for task in range(tasks) for who in range(len(accuracy))
    ]
    task = np.repeat(np.arange(tasks), len(accuracy))
    who = np.tile(np.arange(len(accuracy)), tasks)
    return Overlap(task, task, who, padded(rows), np.full(len(rows), np.nan), tasks, tasks)


def test_dawid_skene_finds_who_guesses() -> None:
    accuracy = [0.95, 0.9, 0.85, 0.8, 0.5]
    overlap = simulated(accuracy, 400)
    found = reliability_of(overlap, find_couples(overlap))
    for who, true in enumerate(accuracy):
        assert found[who].value == pytest.approx(true, abs=0.06)
        assert found[who].n == 400


def test_reliability_needs_three_people_and_some_judgements() -> None:
    two = simulated([0.9, 0.8], 50)
    assert all(
        figure.value is None and "3 people" in (figure.why or "")
        for figure in reliability_of(two, find_couples(two)).values()
    )
    few = simulated([0.9, 0.8, 0.7], 5)
    assert all(
        figure.value is None and "too few" in (figure.why or "")
        for figure in reliability_of(few, find_couples(few)).values()
    )


@pytest.mark.parametrize("ranks", [[1, 1], [1, 2]])
def test_where_all_say_the_same_of_all_nobody_is_known_to_be_reliable(ranks: list[int]) -> None:
    task, who = np.repeat(np.arange(30), 3), np.tile(np.arange(3), 30)
    overlap = Overlap(task, task, who, padded([ranks] * 90), np.full(90, np.nan), 30, 30)
    for figure in reliability_of(overlap, find_couples(overlap)).values():
        assert figure.value is None and figure.n == 30
        assert "the same of every pair" in (figure.why or "")


def test_reliability_of_a_large_sample_is_of_drawn_pairs() -> None:
    overlap = simulated([0.9, 0.9, 0.9, 0.9, 0.55], 6000)  # 30,000 labels
    found = reliability_of(overlap, find_couples(overlap))
    assert found[4].value == pytest.approx(0.55, abs=0.05)
    assert found[0].value == pytest.approx(0.9, abs=0.05)


def test_a_steady_pace_gives_the_end() -> None:
    every_minute = [NOON - timedelta(minutes=minute, seconds=1) for minute in range(120)]
    found = forecast(every_minute, 600, NOON, required=900)
    assert found.per_hour.value == pytest.approx(60)
    assert found.hours.value == pytest.approx(10)
    assert found.finish == (NOON + timedelta(hours=10), NOON + timedelta(hours=10))


def test_pauses_move_the_end_but_not_the_pace() -> None:
    morning = [
        NOON - timedelta(hours=hour, minutes=minute) for hour in (1, 2, 3, 20, 21, 22) for minute in range(0, 60, 2)
    ]
    found = forecast(morning, 300, NOON, required=600)
    assert found.per_hour.value == pytest.approx(30, rel=0.1)
    assert found.hours.low is not None and found.hours.low <= 10 <= (found.hours.high or 0)
    assert found.finish is not None
    earliest, latest = found.finish
    assert NOON + timedelta(hours=15) < earliest < NOON + timedelta(hours=38) < latest


def test_a_forecast_says_why_there_is_none() -> None:
    early = forecast([NOON - timedelta(minutes=1)], 10, NOON, required=11)
    assert "1 quarter of an hour, and it takes 4" in (early.why_not or "")
    every_minute = [NOON - timedelta(minutes=minute, seconds=1) for minute in range(120)]
    assert forecast(every_minute, 0, NOON, required=300).why_not == "all is judged"
    assert forecast([], 0, NOON, required=3).why_not == "all is judged"
    assert forecast([], 0, NOON, required=0).why_not == "no task is handed out yet"


def test_a_share_is_never_certain() -> None:
    assert share_of([True] * 5).low == pytest.approx(0.5655, abs=1e-4)
    assert mean_share([1.0] * 5).low == pytest.approx(0.5655, abs=1e-4)


def test_the_interval_of_a_mean_of_shares_covers_the_truth() -> None:
    """Agreement of rankings of four: means of six pairs each, not independent, 0.7 on average."""
    rng = np.random.default_rng(2)
    covered = 0
    for _ in range(400):
        shares = rng.beta(3.5, 1.5, size=60)
        found = mean_share(shares.tolist())
        assert found.low is not None and found.high is not None
        covered += found.low <= 0.7 <= found.high
    assert 0.92 <= covered / 400 <= 0.985


def test_shares_of_nothing_but_yes_and_no_are_a_share() -> None:
    said = [True] * 7 + [False] * 3
    assert mean_share([float(one) for one in said]).low == pytest.approx(share_of(said).low)
