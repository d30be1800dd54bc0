"""The figures of a comparison as plain values: what `results.json` holds."""

from __future__ import annotations

from typing import Any

from plumbline.compare.metrics import folded_words
from plumbline.compare.replies import Replies
from plumbline.compare.statistics import (
    Floats,
    distinct_n,
    length_controlled_win_rate,
    pair_outcomes,
    paired_bootstrap,
    win_rate_with_ties,
)

TIES = {"reward": 2e-5, "utility": 1e-9}
"""Scores that differ by no more are equal. By rounding, a reward depends on its batch by up to 1e-5."""

BINS = (("shorter", 0.0, 0.8), ("similar", 0.8, 1.25), ("longer", 1.25, float("inf")))
"""Length of the policy's response as a multiple of the baseline's, in words."""

SIMILAR_AT_LEAST = 0.1
"""Share of all pairs: with fewer of similar length, the win rate at equal length says what no data show."""


def comparisons(
    replies: dict[str, Replies], baselines: list[str], *, resamples: int, seed: int
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Every policy against every baseline, by every judge.

    A baseline is compared with the baselines named before it, so that no pair occurs twice.

    Returns:
        The win rates, and the same pairs seen by length.
    """
    rates, by_length = [], []
    for policy, baseline in _pairs(list(replies), baselines):
        one, other = replies[policy], replies[baseline]
        longer = one.words[:, :, None] - other.words[:, None, :]
        for judge in one.scores:
            outcomes = pair_outcomes(one.scores[judge], other.scores[judge], tie=TIES[judge])
            head = {"policy": policy, "baseline": baseline, "judge": judge}
            rates.append(head | win_rate_with_ties(outcomes, resamples=resamples, seed=seed)._asdict())
            controlled = length_controlled_win_rate(outcomes, longer, resamples=resamples, seed=seed)
            bins = _bins(outcomes, one.words, other.words)
            by_length.append(head | controlled._asdict() | {"extrapolated": _few_are_similar(bins), "bins": bins})
    return rates, by_length


def _pairs(policies: list[str], baselines: list[str]) -> list[tuple[str, str]]:
    aligned = [name for name in policies if name not in baselines]
    against = [(policy, baseline) for baseline in baselines for policy in aligned]
    return against + [(one, other) for rank, one in enumerate(baselines) for other in baselines[rank + 1 :]]


def _bins(outcomes: Floats, words: Floats, baseline_words: Floats) -> list[dict[str, Any]]:
    """Pairs and win rate where the policy's response is shorter, of similar length, or longer."""
    ratio = (words[:, :, None] + 1) / (baseline_words[:, None, :] + 1)
    rows = []
    for name, low, high in BINS:
        inside = (ratio >= low) & (ratio < high)
        rate = float(outcomes[inside].mean()) if inside.any() else None
        rows.append({"length": name, "pairs": int(inside.sum()), "win_rate": rate})
    return rows


def _few_are_similar(bins: list[dict[str, Any]]) -> bool:
    pairs = {row["length"]: row["pairs"] for row in bins}
    return bool(pairs["similar"] < SIMILAR_AT_LEAST * sum(pairs.values()))


def policy_metrics(own: Replies, reference: str, *, resamples: int, seed: int) -> dict[str, Any]:
    """Everything that is known of one policy's responses by itself."""
    metrics: dict[str, Any] = {}
    for judge, scores in own.scores.items():
        mean, low, high = paired_bootstrap(scores.mean(axis=1), resamples=resamples, seed=seed)
        metrics |= {f"{judge}_mean": mean, f"{judge}_low": low, f"{judge}_high": high}
    if own.kl is not None:
        mean, low, high = paired_bootstrap(own.kl.mean(axis=1), resamples=resamples, seed=seed)
        metrics |= {f"kl_to_{reference}": mean, "kl_low": low, "kl_high": high}
        metrics["kl_per_token"] = float(own.kl.sum() / max(own.kl_tokens.sum(), 1))
    words = [folded_words(text) for line in own.texts for text in line]
    return metrics | {
        "tokens_mean": float(own.tokens.mean()),
        "words_mean": float(own.words.mean()),
        **{f"distinct_{n}": distinct_n(words, n) for n in (1, 2, 3)},
        "finished_share": float(own.finished.mean()),
        "responses": own.tokens.size,
        "empty": own.empty,
    }
