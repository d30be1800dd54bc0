"""What is reported: figures with their interval, or with the reason why there is none."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

CONFIDENCE = 0.95
"""Of every interval that is shown."""

STRICT = 0.99
"""Of the interval that must lie outside of what is expected before a person is pointed out: of a hundred people without
any fault about one is."""

MOST_WEIGHT = 5


@dataclass(frozen=True)
class Figure:
    """A number with its 95% interval; undefined figures have no `value` and say `why`.

    Attributes:
        value: the estimate; None where it is undefined.
        low, high: ends of the interval; None where there is none.
        n: observations that it rests on.
        why: the reason for which the value, or only its interval, is missing.
        weight: of shares, the number of yes-or-no observations that would be as certain.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    n: int = 0
    why: str | None = None
    weight: float = 0.0


def undefined(why: str, n: int = 0) -> Figure:
    """A figure that cannot be given, with the reason."""
    return Figure(None, n=n, why=why)


def share_of(yes: Sequence[bool]) -> Figure:
    """The share of yes among independent observations, with Wilson's interval."""
    value = sum(yes) / len(yes)
    return Figure(value, *wilson(value, len(yes)), n=len(yes), weight=len(yes))


def mean_share(values: Sequence[float]) -> Figure:
    """The mean of independent shares, such as the agreement of each ranking with others, with an interval.

    It is Wilson's, for as many yes-or-no observations as have the variance that the shares show (as Korn and Graubard
    1998 do for samples in clusters); for shares that are 0 or 1 that is their number. Where hardly any variance is
    seen, which may be by chance, it is at most `MOST_WEIGHT` times their number.
    """
    n = len(values)
    value = math.fsum(values) / n
    variance = math.fsum((one - value) ** 2 for one in values) / n
    weight = n * min(MOST_WEIGHT, value * (1 - value) / variance) if variance > 1e-12 else float(n)
    return Figure(value, *wilson(value, weight), n=n, weight=weight)


def wilson(value: float, n: float, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Wilson's score interval of a share of `n` observations (Wilson 1927, doi:10.1080/01621459.1927.10502953)."""
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    centre = (value + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(max(0.0, value * (1 - value) / n + z * z / (4 * n * n)))
    return max(0.0, centre - half), min(1.0, centre + half)


def correlation(first: list[float], second: list[float], least: int) -> Figure:
    """Pearson's correlation with the interval of Fisher's transformation; `least` observations are needed (4 or more).

    Undefined where either side does not vary.
    """
    import numpy as np

    n = len(first)
    if n < least:
        return undefined(f"too few yet: {n} of the {least} judgements that this needs", n)
    if np.ptp(first) < 1e-12 or np.ptp(second) < 1e-12:
        return undefined("nothing to compare: the values do not differ", n)
    value = float(np.clip(np.corrcoef(first, second)[0, 1], -1, 1))
    if abs(value) > 1 - 1e-12:
        return Figure(value, n=n, why="no range: one follows from the other without exception")
    half = NormalDist().inv_cdf(0.5 + CONFIDENCE / 2) / math.sqrt(n - 3)
    return Figure(value, math.tanh(math.atanh(value) - half), math.tanh(math.atanh(value) + half), n)
