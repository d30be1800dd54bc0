"""Two numbers about rankings: how many expected pairs one gets right, and on how many pairs several disagree."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations


def share_right(expected: Sequence[int], ranks: Sequence[int]) -> float:
    """The share of the strictly ordered expected pairs that a ranking orders the same way; its ties count half.

    Args:
        expected: ranks of the responses, 1 is best; not all equal.
        ranks: the annotator's, in the same order.

    Returns:
        From 0 (all pairs the other way round) to 1.
    """
    right = total = 0.0
    for first, second in combinations(range(len(expected)), 2):
        wanted = _sign(expected, first, second)
        if wanted:
            total += 1
            right += (1 + wanted * _sign(ranks, first, second)) / 2
    return right / total


def disagreement(rankings: Sequence[Sequence[int]]) -> float | None:
    """How far rankings of the same responses disagree: the mean over pairs of judges and pairs of responses.

    A pair of responses counts 1 where one judge prefers one and the other judge the other, a half where only one of
    them ties the two, and 0 where they agree, on a tie too.

    Returns:
        From 0 to 1; None for fewer than two rankings.
    """
    judges = len(rankings) * (len(rankings) - 1) // 2
    if not judges:
        return None
    apart = pairs = 0.0
    for first, second in combinations(range(len(rankings[0])), 2):
        signs = [_sign(ranks, first, second) for ranks in rankings]
        one, other, tied = (signs.count(sign) for sign in (1, -1, 0))
        apart += one * other + tied * (one + other) / 2
        pairs += judges
    return apart / pairs


def _sign(ranks: Sequence[int], first: int, second: int) -> int:
    """1 where the first is preferred, -1 where the second is, 0 for a tie."""
    return (ranks[first] < ranks[second]) - (ranks[first] > ranks[second])
