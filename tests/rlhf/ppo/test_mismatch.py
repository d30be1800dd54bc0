"""What the log-probabilities of another engine change: figures and weights by hand, and the gradient that follows."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rlhf.ppo import PPOTrainer
from rlhf.ppo.core import policy_loss
from rlhf.ppo.generation import Response
from rlhf.ppo.mismatch import importance_ratios, importance_weights, measure_and_correct
from rlhf.ppo.rollout import Rollout
from tests.rlhf.ppo.helpers import entries, settings_for, trainer_for
from tests.tiny import tiny_model

LOG2, LOG3 = math.log(2), math.log(3)


def rollout_with(trainer: list[list[float]], engine: list[list[float | None]]) -> Rollout:
    """Two responses of 3 and 2 tokens."""
    responses = [Response([4] * len(known), False, known) for known in engine]
    rollout = Rollout.of_responses(0, [[5], [6, 7]], responses, torch.device("cpu"))
    rollout.logprobs = torch.tensor(trainer)
    return rollout


def example() -> Rollout:
    """Token ratios 2, 1/4, 3 and 1, unknown."""
    return rollout_with(
        [[-1.0, -2.0, -1.0], [-0.5, -0.7, 9.0]], [[-1.0 - LOG2, -2.0 + 2 * LOG2, -1.0 - LOG3], [-0.5, None]]
    )


def ratios(level: str) -> Tensor:
    rollout = example()
    return importance_ratios(rollout.logprobs, rollout.sampling_logprobs, rollout.mask, level)


def test_ratios_of_tokens_and_sequences() -> None:
    torch.testing.assert_close(ratios("token"), torch.tensor([[2, 0.25, 3], [1, 1, 1]]))
    torch.testing.assert_close(ratios("sequence"), torch.tensor([[1.5, 1.5, 1.5], [1, 1, 1]]))


@pytest.mark.parametrize(
    ("limit", "clip_max", "expected"),
    [
        ("truncate", 2.5, [[2, 0.25, 2.5], [1, 1, 1]]),
        ("mask", 2.5, [[2, 0.25, 0], [1, 1, 1]]),
        ("truncate", None, [[2, 0.25, 3], [1, 1, 1]]),
    ],
)
def test_weights_are_limited_ratios(limit: str, clip_max: float | None, expected: list[list[float]]) -> None:
    torch.testing.assert_close(importance_weights(ratios("token"), limit, clip_max), torch.tensor(expected))


def test_the_weight_multiplies_a_tokens_clipped_loss() -> None:
    """Ratios 1.5 (clipped to 1.2), 0.5 and 1 with advantages 2, 2 and −1: losses −2.4, −1 and 1 before the weights."""
    new = torch.tensor([1.5, 0.5, 1.0]).log()
    advantages, weights = torch.tensor([2.0, 2.0, -1.0]), torch.tensor([0.5, 3.0, 0.0])
    weighed = policy_loss(new, torch.zeros(3), advantages, 0.2, weights=weights)
    torch.testing.assert_close(weighed.loss, torch.tensor([-1.2, -3.0, 0.0]))
    assert weighed.clipped.tolist() == [1, 0, 0]


@pytest.mark.parametrize("reduce", [lambda sums: sums, lambda sums: 2 * sums], ids=["one process", "two alike"])
def test_figures_are_means_over_the_known_tokens_of_all_processes(tmp_path: Path, reduce: Any) -> None:
    rollout = example()
    settings = {"importance_sampling_correction": True, "importance_sampling_clip_max": 2.5}
    found = measure_and_correct(rollout, settings_for(tmp_path, **settings), reduce)
    assert found == pytest.approx(
        {
            "sampling/sampling_logp_difference/mean": (LOG2 + 2 * LOG2 + LOG3) / 4,
            "sampling/sampling_logp_difference/max": 2 * LOG2,
            "sampling/importance_sampling_ratio/mean": (2 + 0.25 + 3 + 1) / 4,
            "sampling/importance_sampling_ratio/min": 0.25,
            "sampling/importance_sampling_ratio/max": 3,
            "sampling/importance_sampling_ratio/clipped": 1 / 4,
        },
        rel=1e-6,
    )
    torch.testing.assert_close(rollout.importance_weights, torch.tensor([[2, 0.25, 2.5], [1, 1, 1]]))


def test_sequences_are_weighed_by_the_product_of_their_tokens(tmp_path: Path) -> None:
    rollout = example()
    settings = {
        "rollout_engine": "generate",
        "importance_sampling_mode": "sequence_mask",
        "importance_sampling_clip_max": 1.4,
    }
    found = measure_and_correct(rollout, settings_for(tmp_path, **settings), lambda sums: sums)
    assert found["sampling/importance_sampling_ratio/clipped"] == 3 / 4
    torch.testing.assert_close(rollout.importance_weights, torch.tensor([[0.0, 0, 0], [1, 1, 1]]))


def test_an_engine_that_tells_nothing_is_neither_measured_nor_corrected(tmp_path: Path) -> None:
    rollout = rollout_with([[-1.0, -2.0], [-3.0, -4.0]], [[None, None], [None, None]])
    args = settings_for(tmp_path, rollout_engine="generate")
    assert measure_and_correct(rollout, args, lambda sums: sums) == {}
    torch.testing.assert_close(rollout.importance_weights, torch.ones(2, 2))


def test_the_trainers_own_engine_is_measured_and_not_corrected(tmp_path: Path) -> None:
    rollout = example()
    found = measure_and_correct(rollout, settings_for(tmp_path), lambda sums: sums)
    assert rollout.importance_weights is None
    assert found["sampling/importance_sampling_ratio/max"] == pytest.approx(3)
    assert "sampling/importance_sampling_ratio/clipped" not in found


def test_the_policys_gradient_is_that_of_the_weighed_loss(tmp_path: Path) -> None:
    """An engine that claims half the probability of each token: ratios of 2, truncated to 1.5."""
    folder = tiny_model(tmp_path / "model")

    def gradients(**settings: Any) -> list[float]:
        common = {"learning_rate": 0.0, "vf_coef": 0.0, "max_grad_norm": 0.0}
        trainer: PPOTrainer = trainer_for(folder, tmp_path, settings={**common, **settings})
        generate = trainer.engine.generate

        def halved(*args: Any) -> list[Response]:
            return [
                Response(r.tokens, r.ended, [p - LOG2 for p in r.logprobs if p is not None]) for r in generate(*args)
            ]

        trainer.engine.generate = halved  # type: ignore[method-assign]
        trainer.train()
        return entries(trainer, "grad_norm")

    plain = gradients()
    corrected = gradients(importance_sampling_correction=True, importance_sampling_clip_max=1.5)
    assert min(plain) > 1e-3
    assert corrected == pytest.approx([1.5 * norm for norm in plain], rel=1e-4)
