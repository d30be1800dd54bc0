"""Agreement against brute force, the authors' worked example, scipy, and a simulation whose truth is known."""

from __future__ import annotations

from itertools import combinations

import krippendorff
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kendalltau

from plumbline.preferences.quality.agreement import (
    ALPHA,
    agreement_by_person,
    agreement_of,
    agreement_of_two,
    alpha_of,
    coincidences,
    find_couples,
    sums_by_prompt,
)
from plumbline.preferences.quality.resampling import resampled_sums
from plumbline.preferences.quality.sample import Overlap, padded

Said = dict[int, list[list[int]]]  # of each task, the rankings by annotators 0, 1, …


def overlap_of(said: Said) -> Overlap:
    rows = [(task, who, ranks) for task, all_ranks in said.items() for who, ranks in enumerate(all_ranks)]
    several = sum(len(all_ranks) > 1 for all_ranks in said.values())
    task = np.array([row[0] for row in rows], dtype=np.int64)
    who = np.array([row[1] for row in rows], dtype=np.int64)
    ranks = padded([row[2] for row in rows])
    return Overlap(task, task.copy(), who, ranks, np.full(len(rows), np.nan), len(said), several)


def figures(said: Said):
    overlap = overlap_of(said)
    return agreement_of(overlap, find_couples(overlap))


ranking = st.lists(st.integers(1, 4), min_size=3, max_size=3)
judged = st.lists(st.lists(ranking, min_size=1, max_size=4), min_size=1, max_size=6).map(
    lambda lists: dict(enumerate(lists))
)


def brute_force(said: Said) -> float | None:
    points = [
        1.0 if (one[i] > one[j]) - (one[i] < one[j]) == (other[i] > other[j]) - (other[i] < other[j])
        else 0.5 if one[i] == one[j] or other[i] == other[j]
        else 0.0
        for rankings in said.values()
        for one, other in combinations(rankings, 2)
        for i, j in combinations(range(len(one)), 2)
    ]  # fmt: skip
    preferred = any(len(set(one)) > 1 for rankings in said.values() if len(rankings) > 1 for one in rankings)
    return sum(points) / len(points) if points and preferred else None


@given(judged)
@settings(deadline=None)
def test_pairwise_agreement_is_that_of_brute_force(said: Said) -> None:
    found, expected = figures(said).pairwise, brute_force(said)
    if expected is None:
        assert found.value is None and found.why
    else:
        assert found.value == pytest.approx(expected)


@given(judged)
@settings(deadline=None)
def test_tau_is_the_mean_of_scipy_s(said: Said) -> None:
    couples = [kendalltau(a, b).statistic for rankings in said.values() for a, b in combinations(rankings, 2)]
    expected = [tau for tau in couples if np.isfinite(tau)]
    found = figures(said).tau
    if expected:
        assert found.value == pytest.approx(np.mean(expected))
    else:
        assert found.value is None and found.why


@given(judged)
@settings(deadline=None)
def test_the_resampled_alpha_is_the_library_s(said: Said) -> None:
    overlap = overlap_of(said)
    couples = find_couples(overlap)
    found = agreement_of(overlap, couples).alpha
    if found.value is not None:
        ours = alpha_of(sums_by_prompt(overlap, couples).sum(axis=0)[None, ALPHA:])[0]
        assert found.value == pytest.approx(ours)


def test_alpha_of_krippendorff_s_worked_example() -> None:
    """Computing Krippendorff's Alpha-Reliability (2011), part C: four observers, twelve units, ordinal: 0.815."""
    nan = np.nan
    data = np.array(
        [
            [1, 2, 3, 3, 2, 1, 4, 1, 2, nan, nan, nan],
            [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, nan, 3],
            [nan, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, nan],
            [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, nan],
        ]
    )
    counts = np.stack([[(unit == rank).sum() for rank in range(1, 10)] for unit in data.T])[:, None, :]
    ours = alpha_of(coincidences(counts).sum(axis=0)[None])[0]
    assert round(ours, 3) == 0.815
    assert ours == pytest.approx(krippendorff.alpha(data, level_of_measurement="ordinal"))


def test_agreement_worked_out_by_hand() -> None:
    # Pairs (0,1), (0,2), (1,2). Against [1,2,3] the ranking [2,1,3] agrees on two; [1,1,2] on two and a half.
    assert figures({0: [[1, 2, 3], [2, 1, 3]]}).pairwise.value == pytest.approx(2 / 3)
    assert figures({0: [[1, 2, 3], [1, 1, 2]]}).pairwise.value == pytest.approx(2.5 / 3)
    assert figures({0: [[1, 2, 3], [1, 1, 2]]}).decided.value == pytest.approx(1.0)
    assert agreement_of_two([1, 2, 3], [1, 1, 2]) == pytest.approx(2.5 / 3)


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({}, "judged twice"),
        ({0: [[1, 2]], 1: [[2, 1]]}, "judged twice"),
    ],
)
def test_without_overlap_everything_says_why(said: Said, why: str) -> None:
    found = figures(said)
    for figure in (found.pairwise, found.decided, found.alpha, found.tau):
        assert figure.value is None
        assert why in (figure.why or "")


def test_where_all_are_tied_agreement_is_undefined_not_perfect() -> None:
    said = {task: [[1, 1], [1, 1]] for task in range(20)}
    overlap = overlap_of(said)
    couples = find_couples(overlap)
    found = agreement_of(overlap, couples)
    people = agreement_by_person(overlap, couples)
    for figure in (found.pairwise, found.decided, found.alpha, found.tau, people[0], people[1]):
        assert figure.value is None and figure.n == 20
        assert "equal" in (figure.why or "")


def test_one_preference_is_enough_for_those_whom_it_concerns() -> None:
    said = {0: [[1, 1], [1, 1], [1, 1]], 1: [[1, 2], [1, 1]]}  # the third person has met ties alone
    overlap = overlap_of(said)
    couples = find_couples(overlap)
    people = agreement_by_person(overlap, couples)
    assert people[0].value == people[1].value == pytest.approx(3 / 4)
    assert people[2].value is None and "equal" in (people[2].why or "")
    found = agreement_of(overlap, couples)
    assert found.pairwise.value == pytest.approx(3.5 / 4)
    assert found.decided.value is None and "tie" in (found.decided.why or "")


def test_one_person_twice_on_a_task_is_no_overlap() -> None:
    overlap = overlap_of({0: [[1, 2], [1, 2]]})
    alone = Overlap(overlap.task, overlap.prompt, np.zeros(2, dtype=np.int64), overlap.ranks, overlap.seconds, 1, 1)
    found = agreement_of(alone, find_couples(alone)).pairwise
    assert found.value is None and "one person" in (found.why or "")


def test_full_agreement_has_an_honest_interval() -> None:
    found = figures({task: [[1, 2], [1, 2]] for task in range(20)})
    assert found.pairwise.value == 1.0
    assert found.pairwise.low == pytest.approx(0.8389, abs=1e-4)  # Wilson's of 20 of 20, not 1.0
    assert found.alpha.value == pytest.approx(1.0)
    assert found.alpha.low is None and found.alpha.why


def test_few_prompts_have_no_interval() -> None:
    found = figures({0: [[1, 2, 3], [2, 1, 3]]}).pairwise
    assert found.low is None and "10 prompts" in (found.why or "")


def test_the_bootstrap_covers_the_truth() -> None:
    """Two annotators who say the truth with 0.8 and 0.7 agree on 0.8 · 0.7 + 0.2 · 0.3 = 0.62 of the pairs."""
    rng = np.random.default_rng(5)
    covered = 0
    rounds = 200
    for _ in range(rounds):
        right = rng.random((60, 2)) < [0.8, 0.7]
        found = figures(
            {task: [[1, 2] if said else [2, 1] for said in both] for task, both in enumerate(right)}
        ).pairwise
        assert found.low is not None and found.high is not None
        covered += found.low <= 0.62 <= found.high
    assert 0.90 <= covered / rounds <= 0.99


def test_prompts_are_drawn_whole_and_always_the_same_way() -> None:
    sums = np.array([[1.0, 2.0]] * 5 + [[0.0, 4.0]] * 5)
    drawn = resampled_sums(sums, resamples=50, seed=1)
    zeros = (drawn[:, 1] - 20) / 2  # how many of the ten that were drawn are of the second kind
    assert np.allclose(zeros, np.round(zeros))
    assert np.allclose(drawn[:, 0], 10 - zeros)
    assert np.array_equal(drawn, resampled_sums(sums, resamples=50, seed=1))


def test_who_disagrees_with_all_others_stands_out() -> None:
    said = {task: [[1, 2, 3], [1, 2, 3], [3, 2, 1]] for task in range(12)}
    overlap = overlap_of(said)
    people = agreement_by_person(overlap, find_couples(overlap))
    assert people[0].value == people[1].value == pytest.approx(0.5)
    assert people[2].value == 0.0
    assert people[2].n == 12
