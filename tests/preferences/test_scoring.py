"""Scores of checks and disagreement: worked out by hand, and against brute force."""

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plumbline.preferences.schedule import CHECK, REPEATED, extra_at
from plumbline.preferences.scoring import disagreement, share_right
from plumbline.recipe_annotate import ChecksSection


@st.composite
def rankings(draw, judges):
    size = draw(st.integers(2, 6))
    ranks = st.lists(st.integers(1, 4), min_size=size, max_size=size)
    return draw(st.lists(ranks, min_size=judges, max_size=5))


@pytest.mark.parametrize(
    ("expected", "ranks", "share"),
    [
        ([1, 2], [1, 2], 1.0),
        ([1, 2], [2, 1], 0.0),
        ([1, 2], [1, 1], 0.5),
        ([1, 2, 3], [2, 1, 3], 2 / 3),
        ([1, 1, 2], [1, 2, 3], 1.0),  # how the tied ones are ordered does not matter
        ([1, 1, 2], [2, 1, 2], 0.75),
    ],
)
def test_the_share_of_expected_pairs_got_right(expected, ranks, share):
    assert share_right(expected, ranks) == pytest.approx(share)


@given(rankings(2))
def test_the_share_right_is_that_of_counting_pairs(pair):
    expected, ranks = pair[:2]
    points = []
    for one, other in combinations(range(len(expected)), 2):
        better, worse = (one, other) if expected[one] < expected[other] else (other, one)
        if expected[one] != expected[other]:
            points.append(0.5 if ranks[better] == ranks[worse] else float(ranks[better] < ranks[worse]))
    if points:
        assert share_right(expected, ranks) == pytest.approx(sum(points) / len(points))


@pytest.mark.parametrize(
    ("judged", "found"),
    [
        ([[1, 2], [1, 2]], 0.0),
        ([[1, 2], [2, 1]], 1.0),
        ([[1, 2], [1, 1]], 0.5),
        ([[1, 1], [1, 1]], 0.0),
        ([[1, 2], [1, 2], [2, 1]], 2 / 3),
        ([[1, 2, 3], [3, 2, 1]], 1.0),
        ([[1, 2, 3], [1, 3, 2]], 1 / 3),
        ([[1, 2]], None),
        ([], None),
    ],
)
def test_disagreement_by_hand(judged, found):
    assert disagreement(judged) == (found if found is None else pytest.approx(found))


@given(rankings(2))
def test_disagreement_is_the_mean_over_pairs_of_judges_and_of_responses(judged):
    def sign(ranks, one, other):
        return (ranks[one] > ranks[other]) - (ranks[one] < ranks[other])

    apart = [
        abs(sign(first, one, other) - sign(second, one, other)) / 2
        for first, second in combinations(judged, 2)
        for one, other in combinations(range(len(first)), 2)
    ]
    assert disagreement(judged) == pytest.approx(sum(apart) / len(apart))


def test_checks_and_repeats_come_at_the_wanted_rate_at_places_that_differ_between_annotators():
    rules = ChecksSection(every=20, repeat_share=0.1)
    places = {who: [extra_at(rules, "support", who, number) for number in range(4000)] for who in ("a", "b")}
    for found in places.values():
        assert found.count(CHECK) == pytest.approx(200, abs=4 * 14)  # four standard deviations
        assert found.count(REPEATED) == pytest.approx(400, abs=4 * 19)
    assert places["a"] != places["b"]
    assert places["a"] == [extra_at(rules, "support", "a", number) for number in range(4000)]
