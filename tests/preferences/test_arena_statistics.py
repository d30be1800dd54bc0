"""The arena's numbers, against values worked out by hand, against each other, and by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plumbline.preferences.arena_statistics import (
    cluster_weights,
    leave_one_out,
    length_controlled,
    ranking,
    strengths,
    win_rate,
)
from plumbline.preferences.arena_votes import Vote, counted_votes
from plumbline.preferences.leaderboard import as_text, leaderboard
from plumbline.preferences.sequential import confidence_sequence, ever_refuted, sequential_test

RESAMPLING = {"resamples": 200, "seed": 0}


def vote(score=1.0, left="dpo", right="sft", annotator="Anna", prompt="p", **fields):
    return Vote(annotator, prompt, left, right, score, **fields)


def votes_of(*scores, **fields):
    return [vote(score, prompt=f"p{number}", **fields) for number, score in enumerate(scores)]


scores = st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=1, max_size=40)


def test_strength_by_hand():
    # 6 wins, 2 losses, 2 ties: 7 to 3 wins; the virtual tie makes it 7.5 to 3.5.
    found = strengths(votes_of(*[1] * 6, 0, 0, 0.5, 0.5), "sft", **RESAMPLING)
    assert found["dpo"].value == pytest.approx(400 * math.log10(7.5 / 3.5), abs=0.1)
    assert found["sft"] == (0, None, None)
    assert found["dpo"].low < found["dpo"].value < found["dpo"].high


def test_strengths_of_three_are_fitted_together():
    votes = votes_of(1, 1, 1, 0) + votes_of(1, 0, left="ppo") + votes_of(1, 1, 0, right="ppo")
    found = strengths(votes, "sft", **RESAMPLING)
    assert list(found) == ["sft", "dpo", "ppo"]
    # At the maximum, expected and counted wins agree (virtual ties included).
    points = {name: one.value for name, one in found.items()}
    wins = {("dpo", "sft"): (3, 1), ("ppo", "sft"): (1, 1), ("dpo", "ppo"): (2, 1)}
    for name in points:
        surplus = 0.0
        for (one, other), (won, lost) in wins.items():
            won, lost = won + 0.5, lost + 0.5
            expected = (won + lost) / (1 + 10 ** ((points[other] - points[one]) / 400))
            surplus += (won - expected) * ((name == one) - (name == other))
        assert surplus == pytest.approx(0, abs=1e-3)


def test_a_policy_that_nobody_lost_to_has_a_finite_strength():
    found = strengths(votes_of(*[1] * 9), "sft", **RESAMPLING)
    assert found["dpo"].value == pytest.approx(400 * math.log10(9.5 / 0.5), abs=0.1)


def test_policies_without_a_way_to_the_baseline_have_no_strength():
    assert strengths([vote(left="a", right="b")], "sft", **RESAMPLING) == {}
    assert ranking([*votes_of(1, 0), vote(left="a", right="b")], "sft").keys() == {"sft", "dpo"}


@given(scores, st.randoms())
@settings(deadline=None, max_examples=30)
def test_sides_and_order_do_not_matter(drawn, chance):
    votes = votes_of(*drawn)
    turned = [
        vote(1 - one.score, left=one.right, right=one.left, prompt=one.prompt) if chance.random() < 0.5 else one
        for one in votes
    ]
    chance.shuffle(turned)
    assert win_rate(turned, "dpo", "sft", **RESAMPLING).value == pytest.approx(np.mean(drawn))
    assert win_rate(votes, "sft", "dpo", **RESAMPLING).value == pytest.approx(1 - np.mean(drawn))
    mine, theirs = (strengths(some, "sft", **RESAMPLING)["dpo"].value for some in (votes, turned))
    assert mine == pytest.approx(theirs, abs=1e-3)


@given(scores)
@settings(deadline=None, max_examples=30)
def test_intervals_hold_their_estimate(drawn):
    rate = win_rate(votes_of(*drawn), "dpo", "sft", **RESAMPLING)
    if rate.low is None:
        assert len(set(drawn)) == 1  # ties alone
    else:
        assert 0 <= rate.low <= rate.value <= rate.high <= 1


def test_one_person_on_one_prompt_shows_no_spread():
    votes = [vote(1), vote(0), vote(1)]
    assert win_rate(votes, "dpo", "sft", **RESAMPLING) == (pytest.approx(2 / 3), None, None)
    assert strengths(votes, "sft", **RESAMPLING)["dpo"].low is None
    text = as_text(leaderboard(votes, baseline="sft", cap=9, margin=0.05, resamples=50))
    assert "67%  " in text


def test_one_sided_votes_have_wilsons_interval():
    rate = win_rate(votes_of(1, 1, 1, 1), "dpo", "sft", **RESAMPLING)
    z = 1.959964
    assert rate == pytest.approx((1.0, 1 / (1 + z**2 / 4), 1.0), abs=1e-4)
    assert win_rate([], "dpo", "sft", **RESAMPLING) is None


def test_votes_of_one_person_are_drawn_together():
    votes = [vote(1, annotator=name, prompt=f"p{number}") for name in "ab" for number in range(2)]
    weights = cluster_weights(votes, resamples=500, seed=0)
    people = weights.reshape(-1, 2, 2)  # annotator, prompt
    assert set(np.unique(people.sum(axis=(1, 2)))) == {4.0}
    # A vote weighs as often as its person was drawn, times its prompt: the table has rank one.
    assert np.allclose(people[:, 0, 0] * people[:, 1, 1], people[:, 0, 1] * people[:, 1, 0])
    # Opinions that hang together by person make a wider interval than the same votes by many people.
    split = [vote(float(name == "a"), annotator=name, prompt=f"p{number}") for name in "ab" for number in range(20)]
    many = [vote(one.score, annotator=f"{one.annotator}{n}", prompt=f"p{n}") for n, one in enumerate(split)]
    wide, narrow = (win_rate(some, "dpo", "sft", **RESAMPLING) for some in (split, many))
    assert wide.high - wide.low > 1.5 * (narrow.high - narrow.low)


def test_length_is_taken_out():
    """Wins depend on length alone: the raw rate is far from one half, the one at equal length is not."""
    rng = np.random.default_rng(0)
    votes = []
    for number in range(600):
        words, others = int(rng.integers(20, 90)), int(rng.integers(20, 60))
        longer = math.log((words + 1) / (others + 1))
        won = rng.random() < 1 / (1 + math.exp(-3 * longer))
        votes.append(vote(float(won), prompt=f"p{number}", left_words=words, right_words=others))
    assert win_rate(votes, "dpo", "sft", **RESAMPLING).value > 0.6
    controlled = length_controlled(votes, "dpo", "sft", resamples=50, seed=0).estimate
    assert controlled.low < 0.5 < controlled.high
    assert controlled.value == pytest.approx(0.5, abs=0.06)


def test_equal_lengths_on_both_sides_change_nothing():
    lengths = [(10, 20), (20, 10)] * 5
    votes = [
        vote(score, prompt=f"p{number}", left_words=left, right_words=right)
        for number, ((left, right), score) in enumerate(zip(lengths, [1, 1, 1, 1, 0, 0, 1, 1, 0.5, 0.5], strict=True))
    ]
    controlled = length_controlled(votes, "dpo", "sft", **RESAMPLING).estimate
    assert controlled.value == pytest.approx(0.7, abs=1e-3)


@pytest.mark.parametrize(
    ("drawn", "lengths", "why"),
    [
        ((1, 1, 1), (5, 10, 20), "same way"),
        ((1, 0, 1, 0), (5, 5, 5, 5), "differ in length by the same"),
        ((0, 0, 1, 1), (5, 6, 10, 20), "cannot be told apart"),
    ],
)
def test_why_there_is_no_rate_at_equal_length(drawn, lengths, why):
    votes = [vote(score, left_words=words, right_words=8) for score, words in zip(drawn, lengths, strict=True)]
    found = length_controlled(votes, "dpo", "sft", **RESAMPLING)
    assert found.estimate is None
    assert why in found.why_not


def test_one_persons_votes_count_up_to_the_cap_and_named_ones_not_at_all():
    votes = [vote(named=True), *votes_of(1, 1, 1), *votes_of(0, 0, annotator="Bo")]
    assert [one.score for one in counted_votes(votes, cap=2)] == [1, 1, 0, 0]


def test_without_any_one_person():
    votes = votes_of(1, 1, 1, annotator="Anna") + votes_of(0, 0, annotator="Bo") + votes_of(1, 0, annotator="Chi")
    found = leave_one_out(votes, "sft")["dpo"]
    assert found.rates == pytest.approx((1 / 4, 4 / 5))
    assert found.ranks == (1, 2)
    assert found.mover == "Anna"  # 4/7 becomes 1/4
    assert leave_one_out(votes_of(1, 0), "sft") == {}


def test_the_leaderboard_as_values_and_text():
    votes = votes_of(*[1] * 40, *[0] * 4, 0.5, annotator="Anna") + votes_of(*[1, 0] * 6, left="ppo", annotator="Bo")
    votes.append(vote(0.5, both_bad=True, annotator="Bo", simulated=True))
    board = leaderboard(votes, baseline="sft", cap=100, margin=0.05, resamples=100)
    assert [(row["policy"], row["place"]) for row in board["policies"]] == [("dpo", 1), ("ppo", 2), ("sft", 2)]
    best = board["policies"][0]
    assert (best["wins"], best["losses"], best["ties"]) == (40, 4, 2)
    assert best["sequential"]["verdict"] == "better"
    assert board["votes"] | {"both_bad": None} == {
        "given": 58,
        "counted": 58,
        "named": 0,
        "over_cap": 0,
        "cap": 100,
        "simulated": 1,
        "both_bad": None,
    }
    text = as_text(board)
    assert "Enough: dpo is better than sft." in text
    assert "ppo and sft are not told apart yet" in text
    assert "by simulated annotators" in text
    assert as_text(leaderboard([], baseline="sft", cap=9, margin=0.05)) == "The arena has no votes yet."


# -- the sequential test ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ties", [0.0, 0.4])
def test_looking_after_every_vote_errs_no_more_often_than_alpha(ties):
    rng = np.random.default_rng(7)
    won = [(1 - ties) / 2, ties, (1 - ties) / 2]
    errors = sum(
        ever_refuted(rng.choice([0, 0.5, 1], p=won, size=400), np.array([0.5]), alpha=0.05)[0] for _ in range(600)
    )
    assert errors / 600 <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 600)


@pytest.mark.parametrize("rate", [0.3, 0.8])
def test_bounds_hold_the_rate_at_the_end_and_all_the_time(rate):
    rng = np.random.default_rng(3)
    missed = sum(
        ever_refuted((rng.random(300) < rate).astype(float), np.array([rate]), alpha=0.1)[0] for _ in range(400)
    )
    assert missed / 400 <= 0.1 + 2 * math.sqrt(0.09 / 400)


def test_verdicts():
    rng = np.random.default_rng(1)
    better = list((rng.random(200) < 0.75).astype(float))
    assert sequential_test(better).verdict == "better"
    assert sequential_test([1 - score for score in better]).verdict == "worse"
    same = [0.5, 1, 0.5, 0, 0.5] * 400
    assert sequential_test(same, margin=0.1).verdict == "no difference"
    assert sequential_test(same[:50], margin=0.1).verdict == "open"
    assert sequential_test([1, 0]).more is None


@pytest.mark.parametrize("losses", [3, 4])
def test_the_forecast_is_about_right_when_votes_fall_as_until_now(losses):
    rng = np.random.default_rng(5)
    told, needed = [], []
    for _ in range(20):
        tens = [rng.permutation([0.0] * losses + [1.0] * (10 - losses)) for _ in range(120)]
        drawn = list(np.concatenate(tens))
        told.append(20 + sequential_test(drawn[:20]).more)
        needed.append(next(n for n in range(20, 1200, 10) if sequential_test(drawn[:n]).verdict != "open"))
    assert 0.5 < np.median(told) / np.median(needed) < 2


@given(st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), max_size=60))
@settings(deadline=None, max_examples=40)
def test_bounds_only_narrow_and_mirror(drawn):
    values = np.array(drawn)
    low, high = confidence_sequence(values, alpha=0.05)
    earlier_low, earlier_high = confidence_sequence(values[:-1], alpha=0.05)
    assert earlier_low <= low <= high <= earlier_high
    assert confidence_sequence(1 - values, alpha=0.05) == pytest.approx((1 - high, 1 - low))


def test_a_bet_by_hand():
    """Two gamblers with half the capital each: after four wins the one who bet on more has refuted a mean of 0.1."""
    wins = np.ones(4)
    assert not ever_refuted(wins[:1], np.array([0.5]), alpha=0.05)[0]
    # Against 0.1 a bet may lose half: the share is min(bet, 0.5 / 0.1). The first: sqrt(2 ln 40 / (0.25 ln 2)).
    first = math.sqrt(2 * math.log(40) / (0.25 * math.log(2)))
    assert first > 5
    assert math.log1p(5 * 0.9) < math.log(40)  # one win is not enough,
    assert not ever_refuted(wins[:1], np.array([0.1]), alpha=0.05)[0]
    assert ever_refuted(wins, np.array([0.1]), alpha=0.05)[0]  # four are
