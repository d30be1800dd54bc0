"""The arena's numbers, against values worked out by hand, against each other, and by simulation."""

from __future__ import annotations

import math

import choix
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from annotate_ui.i18n import load_texts
from plumbline.preferences.arena_statistics import (
    ELO,
    _elo,
    _rates_at_equal_length,
    cluster_weights,
    leave_one_out,
    length_controlled,
    ranking,
    strengths,
    win_rate,
)
from plumbline.preferences.arena_votes import Vote, counted_votes
from plumbline.preferences.leaderboard import as_text, leaderboard, sentences
from plumbline.preferences.sequential import LOOKS, Sequential, _half, _pooled, sequential_test

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
    assert (best["sequential"]["verdict"], best["sequential"]["among"]) == ("open", "better")
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
    assert "dpo is better than sft for the one annotator who voted: one person says nothing of others." in text
    assert "ppo and sft are not told apart yet" in text
    assert "by simulated annotators" in text
    assert as_text(leaderboard([], baseline="sft", cap=9, margin=0.05)) == "The arena has no votes yet."


# -- the sequential test ----------------------------------------------------------------------------------------------


def drawn(rng, votes, rates, ties=0.2):
    """Votes by people with these win rates (between 0.1 and 0.9, for a fifth of ties), and who gave each."""
    who = rng.integers(len(rates), size=votes)
    tied, won = rng.random(votes) < ties, rng.random(votes) < 0.5 + (np.asarray(rates)[who] - 0.5) / (1 - ties)
    return np.where(tied, 0.5, won), [f"person {one}" for one in who]


def looks_at(scores, people, **settings):
    """The test at each of its looks, as whoever stops as soon as there is a verdict sees it."""
    return [sequential_test(scores[:n], people[:n], **settings) for n in LOOKS if n <= len(scores)]


def share_of_verdicts(rates_of, runs, votes=700, of="verdict", seed=1):
    rng = np.random.default_rng(seed)
    found = (looks_at(*drawn(rng, votes, rates_of(rng))) for _ in range(runs))
    return sum(any(getattr(one, of) in ("better", "worse") for one in tests) for tests in found) / runs


def scattered(mean, deviation, people):
    return lambda rng: np.clip(rng.normal(mean, deviation, people), 0.1, 0.9)


@pytest.mark.parametrize("people", [3, 20])
@pytest.mark.parametrize("deviation", [0.0, 0.15])
def test_people_who_differ_do_not_make_a_difference_of_policies(people, deviation):
    """At any time, not in 5% of all cases; a test that takes votes as independent errs in 19% and more."""
    assert share_of_verdicts(scattered(0.5, deviation, people), runs=120) <= 0.05


def test_a_few_who_agree_do_not_speak_for_all():
    """One in five is of a very different mind: of five people often none is there, and the others agree."""
    mixed = lambda rng: np.where(rng.random(5) < 0.2, 0.1, 0.6)  # noqa: E731 - their mean is one half
    assert share_of_verdicts(mixed, runs=100) <= 0.05


def test_what_is_said_of_those_who_voted_errs_no_more_often_than_alpha():
    assert share_of_verdicts(scattered(0.5, 0.0, 4), runs=200, of="among") <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 200)


@pytest.mark.parametrize(("rate", "people", "least"), [(0.7, 10, 0.9), (0.6, 20, 0.6)])
def test_a_clear_difference_is_found(rate, people, least):
    assert share_of_verdicts(scattered(rate, 0.05, people), runs=40) >= least


def test_verdicts():
    rng = np.random.default_rng(1)
    scores, people = drawn(rng, 300, [0.75] * 15)
    assert sequential_test(scores, people).verdict == "better"
    assert sequential_test(1 - scores, people).verdict == "worse"
    same, many = drawn(rng, 2400, [0.5] * 60)
    assert sequential_test(same, many, margin=0.1).verdict == "no difference"
    assert sequential_test(same[:50], many[:50], margin=0.1).verdict == "open"
    assert sequential_test([1, 0], ["Anna", "Bo"]) == Sequential()
    assert sequential_test([], []) == Sequential()


def test_one_person_is_told_apart_from_people():
    found = sequential_test([1.0] * 60, ["Anna"] * 60)
    assert (found.verdict, found.among, found.people) == ("open", "better", 1)
    assert (found.low, found.high) == (0, 1)
    assert 1 < found.more_people < 20  # who vote as Anna does
    # Two who contradict each other make no verdict of themselves either.
    both = sequential_test([1.0] * 60 + [0.0] * 21, ["Anna"] * 60 + ["Bo"] * 21)
    assert (both.verdict, both.among) == ("open", "open")


def test_the_forecast_tells_what_decides():
    rng = np.random.default_rng(5)
    told, needed = [], []
    for _ in range(20):
        scores, people = drawn(rng, 2000, [0.63] * 20, ties=0.0)
        early = sequential_test(scores[:81], people[:81])
        if early.verdict == "open" and early.more:
            told.append(81 + early.more)
        needed.append(next((n for n in LOOKS if sequential_test(scores[:n], people[:n]).verdict != "open"), 2000))
    assert 0.4 < np.median(told) / np.median(needed) < 2.5
    few = sequential_test(*drawn(rng, 1000, [0.65] * 3))
    assert few.more is None and few.more_people > 3  # three people cannot decide, however much they vote


@given(st.lists(st.tuples(st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.sampled_from("abc")), max_size=60), st.randoms())
@settings(deadline=None, max_examples=40)
def test_bounds_mirror_and_do_not_depend_on_the_order(votes, chance):
    scores, people = [score for score, _ in votes], [who for _, who in votes]
    found = sequential_test(scores, people)
    turned = sequential_test([1 - score for score in scores], people)
    assert 0 <= found.low <= found.high <= 1
    assert (turned.low, turned.high) == pytest.approx((1 - found.high, 1 - found.low))
    looked = votes[: found.votes]
    chance.shuffle(looked)
    again = sequential_test(*([part[i] for part in looked] for i in (0, 1)))
    assert (again.low, again.high) == pytest.approx((found.low, found.high))


def test_bounds_by_hand():
    """Two people with eight votes each, rates 1/2 and 5/8."""
    votes = [1, 1, 1, 1, 0, 0, 0, 0, 1, 1, 1, 1, 1, 0, 0, 0]
    found = sequential_test(votes, ["Anna"] * 8 + ["Bo"] * 8, alpha=1.0)
    within = (8 * 1 / 4 + 5 * (3 / 8) ** 2 + 3 * (5 / 8) ** 2 + 1 / 4) / 15
    half = math.sqrt((0.01 + within / 8) / 2) / math.tan(math.pi / 40)  # Student's t with one degree of freedom
    assert half > 9 / 16
    assert (found.low, found.high) == (0, 1)
    assert _half((0.01 + within / 8) / 2, 1, 1 / 20) == pytest.approx(half)
    pooled = _pooled(np.array(votes, dtype=float), ["Anna"] * 8 + ["Bo"] * 8)
    assert pooled.rate == pytest.approx(9 / 16)
    assert pooled.variance == pytest.approx((0.01 + within / 8) / 2)


# -- many fits at once ------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 12), min_size=18, max_size=18))
@settings(deadline=None, max_examples=40)
def test_many_strengths_at_once_are_those_of_choix(wins):
    tables = np.array(wins, dtype=float).reshape(2, 3, 3) * (1 - np.eye(3))
    tables[:, 0, 1:] += 1  # everybody has met the baseline
    for table, found in zip(tables, _elo(tables), strict=True):
        virtual = ((table + table.T) > 0) * 0.5
        fitted = choix.ilsr_pairwise_dense(table + virtual, tol=1e-12)
        assert found == pytest.approx(ELO * (fitted - fitted[0]), abs=1e-3)


def test_the_regression_on_length_is_that_of_scikit_learn():
    rng = np.random.default_rng(2)
    longer, weights = rng.normal(0, 0.4, 80), rng.integers(0, 4, (5, 80)).astype(float)
    scores = np.where(rng.random(80) < 0.2, 0.5, rng.random(80) < 1 / (1 + np.exp(-0.4 - 2 * longer)))
    for row, found in zip(weights, _rates_at_equal_length(scores, longer, weights), strict=True):
        inputs, said = np.concatenate([longer, longer])[:, None], np.repeat([1, 0], 80)
        heavy = np.concatenate([row * scores, row * (1 - scores)])
        fitted = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(inputs, said, sample_weight=heavy)
        assert found == pytest.approx(1 / (1 + math.exp(-fitted.intercept_[0])), abs=1e-4)


def test_without_one_person_is_the_board_without_their_votes():
    rng = np.random.default_rng(4)
    votes = [
        vote(float(rng.integers(3)) / 2, *pair, annotator=f"person {rng.integers(6)}", prompt=f"p{number}")
        for number in range(120)
        for pair in [[("dpo", "sft"), ("sft", "ppo"), ("ppo", "dpo")][rng.integers(3)]]
    ]
    found = leave_one_out(votes, "sft")
    rests = [[one for one in votes if one.annotator != who] for who in {one.annotator for one in votes}]
    for name in ("dpo", "ppo"):
        ranks = [ranking(rest, "sft")[name] for rest in rests]
        rates = [win_rate(rest, name, "sft", **RESAMPLING).value for rest in rests]
        assert found[name].ranks == (min(ranks), max(ranks))
        assert found[name].rates == pytest.approx((min(rates), max(rates)))


# -- what the board says of it ----------------------------------------------------------------------------------------


def board_of(votes, **settings):
    return leaderboard(votes, baseline="sft", cap=1000, margin=0.05, resamples=200, **settings)


def by_people(people, *, prompts=1000, rate=0.75, each=12, seed=0):
    rng = np.random.default_rng(seed)
    return [
        vote(float(rng.random() < rate), annotator=f"person {who}", prompt=f"p{rng.integers(prompts)}")
        for _ in range(each)
        for who in range(people)
    ]


def test_alpha_is_shared_by_all_policies_of_the_recipe_from_the_first_vote_on():
    rows = [board_of(by_people(12), compared=number)["policies"][0]["sequential"] for number in (1, 4)]
    assert rows[1]["low"] < rows[0]["low"] < rows[0]["high"] < rows[1]["high"]


def test_no_verdict_beside_an_interval_that_leaves_it_open():
    """The test is of people; the interval is of prompts too, and here three prompts decide all."""
    votes = [
        vote(float(number % 3 > 0) if number % 7 else 0.5, annotator=f"person {number % 20}", prompt=f"p{number % 3}")
        for number in range(280)
    ]
    row = next(one for one in board_of(votes)["policies"] if one["policy"] == "dpo")
    assert row["win_rate"]["low"] <= 0.5 < row["win_rate"]["high"]
    assert sequential_test([one.score for one in votes], [one.annotator for one in votes]).verdict == "better"
    assert (row["sequential"]["verdict"], row["sequential"]["at_odds"]) == ("open", True)
    text = as_text(board_of(votes))
    assert "Enough" not in text and "the interval of the win rate leaves it open" in text


def test_sentences_say_of_whom():
    assert "for people like these 12 annotators" in as_text(board_of(by_people(12, rate=0.85)))
    alone = as_text(board_of(by_people(1, each=60)))
    assert "for the one annotator who voted: one person says nothing of others" in alone
    three = as_text(board_of(by_people(3, each=60)))
    assert "dpo is better than sft for these 3 annotators; for people like them it is open." in three
    assert "more annotators decide" in three
    assert "too few votes" in as_text(board_of(by_people(3, each=2))).lower()
    worse = as_text(board_of(by_people(12, rate=0.2)))
    assert "dpo is worse than sft" in worse
    assert "(−" in worse or " −" in worse  # strengths have a real minus sign, as all numbers


def test_every_sentence_is_told_in_german():
    texts = load_texts("de")
    verdicts = ["better", "worse", "no difference", "open"]
    tests = [Sequential(verdict, among=among, people=people, votes=16, **more)
             for verdict in verdicts for among in ("better", "worse", "open") for people in (1, 3)
             for more in ({}, {"more": 40}, {"more_people": 4}, {"at_odds": True})]  # fmt: skip
    for test in [*tests, Sequential()]:
        for said in sentences("dpo", "sft", test, 0.05):
            assert texts.of_service(said) != said
