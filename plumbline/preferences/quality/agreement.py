"""How far annotators agree: share of pairs, Krippendorff's alpha, Kendall's tau.

All three are functions of sums over prompts, so that one bootstrap over prompts gives all intervals. Of two rankings of
the same task, `couple`s below, every pair of responses is compared by its sign: +1 the first is better, 0 a tie, −1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from plumbline.preferences.quality.figures import Figure, mean_share, undefined, wilson
from plumbline.preferences.quality.resampling import LEAST_CLUSTERS, Floats, percentiles, ratio, resampled_sums
from plumbline.preferences.quality.sample import Bytes, Indexes, Overlap
from plumbline.preferences.records import MAX_RESPONSES

PUBLISHED = (0.63, 0.77)
"""Pairwise agreement that published preference data reached: about 63% between researchers and crowdworkers (Bai et al.
2022, arXiv 2204.05862), 72.6 ± 1.5% and 77.3 ± 1.3% between labelers (Ouyang et al. 2022, arXiv 2203.02155, 3.4),
73 ± 4% and 77 ± 2% with researchers (Stiennon et al. 2020, arXiv 2009.01325, 3.3)."""

FIRST, SECOND = (np.array(side) for side in zip(*combinations(range(MAX_RESPONSES), 2), strict=True))
AGREED, PAIRS, SAME, CHOSEN, TAU, TAUS, ALPHA = range(7)  # columns of the sums; ALPHA is the first of 9 × 9

ALL_EQUAL = "everybody says that all responses are equal"
"""Why there is no agreement where nobody prefers anything: whoever does not look, says the same."""


class Couples(NamedTuple):
    """Each two judgements of the same task by two annotators.

    Attributes:
        a, b: `(C,)`, rows of the judgements.
        agreed: `(C,)`, pairs of responses on which they agree; one half where one of them says tie.
        pairs: `(C,)`, pairs of responses.
        same, chosen: `(C,)`, pairs on which neither says tie, and those of them with the same choice.
        tau: `(C,)`, Kendall's tau-b; nan where one of them ranks all responses the same.
        prefers: `(C,)`, whether one of them at least prefers one response to another.
    """

    a: Indexes
    b: Indexes
    agreed: Floats
    pairs: Floats
    same: Floats
    chosen: Floats
    tau: Floats
    prefers: NDArray[np.bool_]


@dataclass(frozen=True)
class Agreement:
    """How far the annotators agree, each figure with a bootstrap interval over prompts.

    Attributes:
        pairwise: share of response pairs on which two annotators agree; a tie against a choice counts one half.
        decided: the same without pairs that one of the two calls a tie.
        alpha: Krippendorff's alpha, ordinal, of the ranks in a task.
        tau: mean of Kendall's tau-b over all two judgements of a task.
        prompts: in how many prompts annotators overlap.
    """

    pairwise: Figure
    decided: Figure
    alpha: Figure
    tau: Figure
    prompts: int


def signs(ranks: Bytes) -> Bytes:
    """Each pair of responses, `(N, 36)`: +1 the first is ranked better, −1 worse, 0 for a tie or no such response."""
    first, second = ranks[:, FIRST], ranks[:, SECOND]
    return np.where((first > 0) & (second > 0), np.sign(second - first), 0).astype(np.int8)


def find_couples(overlap: Overlap) -> Couples:
    """All two judgements of a task by different annotators."""
    a, b = _rows_of_couples(overlap.task, overlap.annotator)
    sign = signs(overlap.ranks)
    one, other = sign[a], sign[b]
    size = (overlap.ranks[a] > 0).sum(axis=1)
    pairs = (size * (size - 1) / 2).astype(np.float64)
    both = (one != 0) & (other != 0)
    product = (one * other).sum(axis=1, dtype=np.float64)
    spread = np.sqrt(np.abs(one).sum(axis=1, dtype=np.float64) * np.abs(other).sum(axis=1, dtype=np.float64))
    return Couples(
        a,
        b,
        agreed=pairs - np.abs(one - other).sum(axis=1, dtype=np.float64) / 2,
        pairs=pairs,
        same=(both & (one == other)).sum(axis=1).astype(np.float64),
        chosen=both.sum(axis=1).astype(np.float64),
        tau=np.divide(product, spread, out=np.full(len(a), np.nan), where=spread > 0),
        prefers=(one != 0).any(axis=1) | (other != 0).any(axis=1),
    )


def agreement_of(overlap: Overlap, couples: Couples) -> Agreement:
    """Agreement of the annotators with each other."""
    if not len(couples.a):
        why = _why_none(overlap)
        return Agreement(undefined(why), undefined(why), undefined(why), undefined(why), 0)
    sums = sums_by_prompt(overlap, couples)
    if not couples.prefers.any():
        nothing = undefined(ALL_EQUAL, len(sums))
        return Agreement(nothing, nothing, nothing, nothing, len(sums))
    drawn = resampled_sums(sums) if len(sums) >= LEAST_CLUSTERS else None
    total = sums.sum(axis=0)
    return Agreement(
        pairwise=_share(total, drawn, AGREED, PAIRS, len(sums), "no pair of responses was judged twice"),
        decided=_share(total, drawn, SAME, CHOSEN, len(sums), "of each pair, somebody calls it a tie"),
        alpha=_alpha(overlap, total, drawn, len(sums)),
        tau=_tau(total, drawn, len(sums)),
        prompts=len(sums),
    )


def sums_by_prompt(overlap: Overlap, couples: Couples) -> Floats:
    """What each prompt with overlap adds: `(prompts, 6 + 81)`, the last ones its coincidences (see `coincidences`)."""
    defined = np.isfinite(couples.tau)
    of_couples = [
        couples.agreed,
        couples.pairs,
        couples.same,
        couples.chosen,
        np.where(defined, couples.tau, 0),
        defined,
    ]
    prompts = int(overlap.prompt.max()) + 1
    prompt = overlap.prompt[couples.a]
    columns = [np.bincount(prompt, weights=column, minlength=prompts) for column in of_couples]
    matrix = np.zeros((prompts, MAX_RESPONSES**2))
    counts, prompt_of_task = value_counts(overlap)
    np.add.at(matrix, prompt_of_task, coincidences(counts))
    sums = np.column_stack([*columns, matrix])
    return sums[sums[:, PAIRS] > 0]


def value_counts(overlap: Overlap) -> tuple[NDArray[np.int64], Indexes]:
    """How often each response of each task got each rank, `(tasks, 9 responses, 9 ranks)`, and the tasks' prompts."""
    tasks = int(overlap.task.max()) + 1
    counts = np.zeros((tasks, MAX_RESPONSES, MAX_RESPONSES), dtype=np.int64)
    row, response = np.nonzero(overlap.ranks)
    np.add.at(counts, (overlap.task[row], response, overlap.ranks[row, response].astype(np.int64) - 1), 1)
    prompt = np.zeros(tasks, dtype=np.int64)
    prompt[overlap.task] = overlap.prompt
    return counts, prompt


def coincidences(counts: NDArray[np.int64]) -> Floats:
    """Krippendorff's matrix of coincidences of each task, `(tasks, 81)`, of counts `(tasks, responses, ranks)`.

    A response that m annotators ranked adds its ordered pairs of ranks, each with the weight 1 / (m − 1).
    """
    judges = counts.sum(axis=2, keepdims=True)
    weights = np.where(judges > 1, 1 / np.maximum(judges - 1, 1), 0.0)
    weighted = counts * weights
    matrix = np.einsum("trv,trw->tvw", weighted, counts)
    matrix -= weighted.sum(axis=1)[:, :, None] * np.eye(counts.shape[2])
    return matrix.reshape(len(counts), -1)


def alpha_of(sums: Floats) -> Floats:
    """Krippendorff's ordinal alpha of each row of coincidences `(R, 81)`; nan where all ranks are the same.

    Krippendorff, Computing Krippendorff's Alpha-Reliability (2011), with the ordinal metric: the squared number of
    observations between two ranks, half of these ranks' own.
    """
    observed = sums.reshape(len(sums), MAX_RESPONSES, MAX_RESPONSES)
    totals = observed.sum(axis=2)
    below = np.cumsum(totals, axis=1) - totals / 2
    distance = (below[:, :, None] - below[:, None, :]) ** 2
    n = totals.sum(axis=1)
    expected = np.einsum("rv,rw,rvw->r", totals, totals, distance) / np.maximum(n - 1, 1)
    found = (observed * distance).sum(axis=(1, 2))
    return 1 - np.divide(found, expected, out=np.full(len(sums), np.nan), where=expected > 0)


def agreement_by_person(overlap: Overlap, couples: Couples) -> dict[int, Figure]:
    """Of each annotator (row id): mean agreement of their judgements with those of others, as a share of pairs.

    Undefined where neither they nor the others ever prefer anything.
    """
    judgement_mean = by_judgement(len(overlap.task), couples)
    telling = {int(one) for side in (couples.a, couples.b) for one in overlap.annotator[side[couples.prefers]]}
    people = {}
    for person in np.unique(overlap.annotator):
        values = judgement_mean[overlap.annotator == person]
        values = values[np.isfinite(values)]
        if len(values) and int(person) in telling:
            people[int(person)] = mean_share(values.tolist())
        elif len(values):
            people[int(person)] = undefined("they and the others say that all responses are equal", len(values))
    return people


def by_judgement(judgements: int, couples: Couples) -> Floats:
    """Mean agreement of each judgement with the others of its task, `(N,)`; nan where there is no other."""
    share = couples.agreed / couples.pairs
    sums = np.bincount(couples.a, share, judgements) + np.bincount(couples.b, share, judgements)
    others = np.bincount(couples.a, minlength=judgements) + np.bincount(couples.b, minlength=judgements)
    return np.divide(sums, others, out=np.full(judgements, np.nan), where=others > 0)


def agreement_of_two(first: Sequence[int], second: Sequence[int]) -> float:
    """Share of pairs on which two rankings of the same responses agree; a tie against a choice counts one half."""
    points = [
        1 - abs(np.sign(first[i] - first[j]) - np.sign(second[i] - second[j])) / 2
        for i, j in combinations(range(len(first)), 2)
    ]
    return float(np.mean(points))


def _rows_of_couples(task: Indexes, annotator: Indexes) -> tuple[Indexes, Indexes]:
    """Rows are sorted by task, so that those of a couple are at most as far apart as a task has judgements."""
    firsts, seconds = [], []
    most = int(np.bincount(task).max()) if len(task) else 1
    for apart in range(1, most):
        first = np.nonzero((task[apart:] == task[:-apart]) & (annotator[apart:] != annotator[:-apart]))[0]
        firsts.append(first)
        seconds.append(first + apart)
    empty = np.zeros(0, dtype=np.int64)
    return np.concatenate([empty, *firsts]), np.concatenate([empty, *seconds])


def _why_none(overlap: Overlap) -> str:
    if overlap.all_tasks == 0:
        return "no task was judged twice yet: that needs two or more judgements of a prompt (judgements_per_prompt)"
    if len(np.unique(overlap.annotator)) < 2:
        return "only one person has judged"
    return "no task was judged by two people"


def _share(total: Floats, drawn: Floats | None, above: int, below: int, n: int, why: str) -> Figure:
    if not total[below]:
        return undefined(why, n)
    value = float(total[above] / total[below])
    if value in (0.0, 1.0):  # resampling would see no spread at all
        return Figure(value, *wilson(value, n), n=n)
    return _with_interval(value, None if drawn is None else percentiles(drawn, ratio(above, below), value), n)


def _tau(total: Floats, drawn: Floats | None, n: int) -> Figure:
    if not total[TAUS]:
        return undefined("nothing to compare: of any two judgements of a task, one calls all responses equal", n)
    value = float(total[TAU] / total[TAUS])
    if abs(value) > 1 - 1e-12:
        return Figure(value, n=n, why="no range: it is the same in all tasks")
    return _with_interval(value, None if drawn is None else percentiles(drawn, ratio(TAU, TAUS), value), n)


def _alpha(overlap: Overlap, total: Floats, drawn: Floats | None, n: int) -> Figure:
    import krippendorff

    if not np.isfinite(alpha_of(total[None, ALPHA:])[0]):
        return undefined(ALL_EQUAL, n)
    counts, _ = value_counts(overlap)
    value = float(krippendorff.alpha(value_counts=_ranked_twice(counts), level_of_measurement="ordinal"))
    if value > 1 - 1e-12:
        return Figure(value, n=n, why="no range: everybody agrees")
    found = None if drawn is None else percentiles(drawn, lambda sums: alpha_of(sums[:, ALPHA:]), value)
    return _with_interval(value, found, n)


def _ranked_twice(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    units = counts.reshape(-1, counts.shape[2])
    units = units[units.sum(axis=1) > 1]
    return units[:, : int(np.nonzero(units.sum(axis=0))[0].max()) + 1]


def _with_interval(value: float, interval: tuple[float, float] | None, n: int) -> Figure:
    if interval is None:
        return Figure(
            value, n=n, why=f"no range yet: it needs {LEAST_CLUSTERS} prompts that two people judged, there are {n}"
        )
    return Figure(value, *interval, n=n)
