"""How often a reward model agrees with held-out preferences, with an interval, and how far length alone would get."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from datasets import Dataset

from plumbline.conversations import Conversation, prompt_key

Z95 = 1.959963984540054
"""Quantile of the normal distribution for a 95% interval."""


@dataclass(frozen=True)
class HeldOut:
    """Agreement with held-out pairs.

    Attributes:
        accuracy: share of pairs whose chosen response scores higher; equal scores count half.
        accuracy_low, accuracy_high: 95% Wilson interval; pairs of one prompt count as one observation, because they are
            not independent of each other.
        length_accuracy: the same for always preferring the longer response (in characters).
        eval_pairs, eval_prompts: how many.
        reward_mean, reward_std: of the scores of all responses in the pairs.
    """

    accuracy: float
    accuracy_low: float
    accuracy_high: float
    length_accuracy: float
    eval_pairs: int
    eval_prompts: int
    reward_mean: float
    reward_std: float


class ScoresConversations(Protocol):
    """A `RewardModel`, or what scores as it does."""

    def score(self, conversations: Sequence[Conversation]) -> torch.Tensor: ...  # (conversations,) float32


def held_out_accuracy(model: ScoresConversations, pairs: Dataset) -> HeldOut:
    """Score both responses of every pair (columns `prompt`, `chosen`, `rejected`) and count agreement."""
    rows = list(pairs)
    scores = model.score(
        [row["prompt"] + row["chosen"] for row in rows] + [row["prompt"] + row["rejected"] for row in rows]
    )
    chosen, rejected = scores.chunk(2)
    prompts = len({row.get("prompt_key") or prompt_key(row["prompt"]) for row in rows})
    accuracy = float(_agreement(chosen - rejected).mean())
    low, high = wilson_interval(accuracy, prompts)
    longer = torch.tensor([_length(row["chosen"]) - _length(row["rejected"]) for row in rows])
    return HeldOut(
        accuracy=accuracy,
        accuracy_low=low,
        accuracy_high=high,
        length_accuracy=float(_agreement(longer).mean()),
        eval_pairs=len(rows),
        eval_prompts=prompts,
        reward_mean=float(scores.mean()),
        reward_std=float(scores.std(unbiased=False)),
    )


def _agreement(differences: torch.Tensor) -> torch.Tensor:
    """1 where the chosen one is ahead, 0.5 where both are equal, 0 else."""
    return (torch.sign(differences.double()) + 1) / 2


def _length(response: list[dict[str, str]]) -> int:
    return sum(len(message["content"]) for message in response)


def wilson_interval(share: float, n: int, z: float = Z95) -> tuple[float, float]:
    """Wilson's score interval of a share observed in `n` independent trials; 95% by default."""
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return max(0.0, centre - half), min(1.0, centre + half)
