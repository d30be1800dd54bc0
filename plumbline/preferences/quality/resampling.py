"""A bootstrap over clusters for whatever can be computed from sums over them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from plumbline.preferences.quality.figures import CONFIDENCE

Floats = NDArray[np.float64]

RESAMPLES = 1000
SEED = 20_240_601
BLOCK = 1 << 22
"""Most numbers of one block of resamples, to bound the memory."""

LEAST_CLUSTERS = 10
"""With fewer prompts than this the interval of a percentile bootstrap is far too narrow."""


def resampled_sums(sums: Floats, *, resamples: int = RESAMPLES, seed: int = SEED) -> Floats:
    """Sums over clusters that were drawn with replacement, as many as there are.

    Args:
        sums: `(clusters, D)`, what each cluster adds.

    Returns:
        `(resamples, D)`; the same for the same input, whenever and wherever it is called.
    """
    clusters = len(sums)
    rng = np.random.default_rng(seed)
    drawn = []
    size = max(1, BLOCK // clusters)
    for start in range(0, resamples, size):
        rows = min(size, resamples - start)
        indices = rng.integers(clusters, size=(rows, clusters)) + clusters * np.arange(rows)[:, None]
        weights = np.bincount(indices.ravel(), minlength=rows * clusters).reshape(rows, clusters)
        drawn.append(weights @ sums)
    return np.concatenate(drawn)


def percentiles(drawn: Floats, statistic: Callable[[Floats], Floats], value: float) -> tuple[float, float] | None:
    """The percentile interval of a statistic of resampled sums.

    Args:
        drawn: `(resamples, D)` from `resampled_sums`.
        statistic: from `(resamples, D)` to `(resamples,)`, nan where undefined.
        value: the estimate itself, which the interval always holds.

    Returns:
        None where it is undefined in most resamples.
    """
    values = statistic(drawn)
    values = values[np.isfinite(values)]
    if len(values) < len(drawn) / 2:
        return None
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(values, [tail, 100 - tail])
    return min(float(low), value), max(float(high), value)


def ratio(above: int, below: int) -> Callable[[Floats], Floats]:
    """The statistic that divides one column of sums by another."""

    def divide(sums: Floats) -> Floats:
        parts = sums[:, below]
        return np.divide(sums[:, above], parts, out=np.full(len(sums), np.nan), where=parts > 0)

    return divide
