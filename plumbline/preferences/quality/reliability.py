"""How reliable each annotator is, by the model of Dawid and Skene."""

from __future__ import annotations

import numpy as np

from plumbline.preferences.quality.agreement import Couples, signs
from plumbline.preferences.quality.figures import Figure, undefined
from plumbline.preferences.quality.resampling import SEED
from plumbline.preferences.quality.sample import Overlap
from plumbline.preferences.records import MAX_RESPONSES

LABELS = 20_000
"""Most labels that are looked at; of more, those of randomly drawn response pairs are."""

LEAST_JUDGEMENTS = 10
LEAST_PEOPLE = 3
ITERATIONS, TOLERANCE = 50, 1e-4


def reliability_of(overlap: Overlap, couples: Couples) -> dict[int, Figure]:
    """Of each annotator (row id): the probability that they say what is right of a pair of responses.

    Dawid and Skene (1979, doi:10.2307/2346806) estimate, from the labels alone, both what is right (first better, tie
    or second better) and how often each annotator says what; here by crowd-kit. `n` is the number of judgements that it
    rests on. There is no interval: pairs of one ranking are not independent, as the model takes them to be.
    """
    people = [int(person) for person in np.unique(overlap.annotator)]
    judged_together = np.unique(np.concatenate([couples.a, couples.b]))
    labels = _labels(overlap, judged_together)
    counts = {person: int((overlap.annotator[judged_together] == person).sum()) for person in people}
    if sum(count > 0 for count in counts.values()) < LEAST_PEOPLE:
        why = f"needs {LEAST_PEOPLE} people who judged the same tasks: of two who disagree, either may be right"
        return {person: undefined(why, counts[person]) for person in people}
    if len(np.unique(labels[2])) < 2:
        why = "everybody says the same of every pair, so nothing tells who knows what is right"
        return {person: undefined(why, counts[person]) for person in people}
    accuracy = _accuracy(*labels)
    figures = {}
    for person in people:
        n = counts[person]
        if n < LEAST_JUDGEMENTS or person not in accuracy:
            why = f"too few yet: {n} of the {LEAST_JUDGEMENTS} judgements of shared tasks that this needs"
            figures[person] = undefined(why, n)
        else:
            figures[person] = Figure(accuracy[person], n=n)
    return figures


def _labels(overlap: Overlap, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Response pair, annotator and label (0 first better, 1 tie, 2 second better) of each pair of each judgement."""
    sign = signs(overlap.ranks[rows])
    size = (overlap.ranks[rows] > 0).sum(axis=1)
    # Where a task has n responses, the pairs of the first n columns are those that exist.
    exists = _pairs_of_size()[size]
    judgement, pair = np.nonzero(exists)
    item = overlap.task[rows][judgement] * exists.shape[1] + pair
    if len(item) > LABELS:
        known, place = np.unique(item, return_inverse=True)
        kept = np.random.default_rng(SEED).random(len(known)) < LABELS / len(item)
        judgement, pair, item = (values[kept[place]] for values in (judgement, pair, item))
    return item, overlap.annotator[rows][judgement], 1 - sign[judgement, pair]


def _pairs_of_size() -> np.ndarray:
    """`(10, 36)`: which pairs of responses a task of that many responses has."""
    sizes = np.arange(MAX_RESPONSES + 1)
    second = np.array([j for i in range(MAX_RESPONSES) for j in range(i + 1, MAX_RESPONSES)])
    return second[None, :] < sizes[:, None]


def _accuracy(item: np.ndarray, annotator: np.ndarray, label: np.ndarray) -> dict[int, float]:
    import pandas as pd
    from crowdkit.aggregation.classification.dawid_skene import DawidSkene

    model = DawidSkene(n_iter=ITERATIONS, tol=TOLERANCE)
    model.fit(pd.DataFrame({"task": item, "worker": annotator, "label": label}))
    said = model.errors_.reset_index()
    said["right"] = [row[row["label"]] * model.priors_[row["label"]] for _, row in said.iterrows()]
    return {int(person): float(min(1.0, share)) for person, share in said.groupby("worker")["right"].sum().items()}
