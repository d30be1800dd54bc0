"""One score from several rewards, against values worked out by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from plumbline.errors import UserError
from rlhf.ppo.aggregation import aggregate
from rlhf.ppo.rewards import CombinedRewards, Episodes, make_reward
from tests.rlhf.ppo.helpers import entries, settings_for, trainer_for
from tests.tiny import tiny_model, user

SCORES = torch.tensor([[1.0, -2.0], [3.0, -2.0], [8.0, 4.0]])
"""Three rewards of two responses."""


@pytest.mark.parametrize(
    ("aggregation", "weights", "expected"),
    [
        ("sum", [1, 1, 1], [12.0, 0.0]),
        ("sum", [2, -1, 0.5], [3.0, 0.0]),
        ("mean", [1, 1, 1], [4.0, 0.0]),
        ("mean", [1, 2, 1], [15 / 4, -2 / 4]),
        ("min", [1, 1, 1], [1.0, -2.0]),
        # Squared distances from the mean: (9 + 1 + 16) / 3 and (4 + 4 + 16) / 3; half a deviation comes off.
        ("mean_minus_std", [1, 1, 1], [4 - 0.5 * (26 / 3) ** 0.5, -0.5 * 8**0.5]),
        # Weighted: mean 4.5, distances 12.25, 12.25 with weights 1, 1 and nothing of the second reward.
        ("mean_minus_std", [1, 0, 1], [4.5 - 0.5 * 3.5, 1 - 0.5 * 3.0]),
    ],
)
def test_the_aggregates_are_those_of_the_hand(aggregation: str, weights: list[float], expected: list[float]) -> None:
    found = aggregate(SCORES, torch.tensor(weights), aggregation, std_coef=0.5)
    torch.testing.assert_close(found, torch.tensor(expected))


@pytest.mark.parametrize("aggregation", ["sum", "mean", "min", "mean_minus_std"])
def test_a_single_reward_is_itself(aggregation: str) -> None:
    assert torch.equal(aggregate(SCORES[:1], torch.ones(1), aggregation, 2.0), SCORES[0])


@pytest.mark.parametrize(
    ("aggregation", "weights", "message"),
    [
        ("min", [1.0, 1.0], "no meaning for the smallest"),
        ("mean", [1.0, -1.0], "no weight may be below 0"),
        ("mean_minus_std", [0.0, 0.0], "one must be above 0"),
        ("mean", [1.0], "1 entries for 2 rewards"),
    ],
)
def test_weights_that_the_aggregation_cannot_use_are_refused(
    aggregation: str, weights: list[float], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        CombinedRewards([constant(1), constant(2)], weights, aggregation=aggregation)


def constant(*scores: float | None) -> Any:
    def fixed(**columns: Any) -> list[float | None]:
        return list(scores)

    return make_reward(fixed)


@pytest.mark.parametrize("aggregation", ["sum", "mean", "min", "mean_minus_std"])
@pytest.mark.parametrize(("score", "shown"), [(float("nan"), "nan"), (float("-inf"), "-inf"), (None, "nan")])
def test_a_score_that_is_no_number_names_its_reward(aggregation: str, score: float | None, shown: str) -> None:
    """Also where the aggregate alone would hide it, as a minimum hides infinity."""
    rewards = CombinedRewards([constant(1, 1), constant(0, score)], aggregation=aggregation)
    episodes = Episodes([user("one"), user("two")], [[5], [6]], [[7], [8]], ["yes", "no"])
    said = rf"the reward, number 2 of 2 \(fixed\), of a response is {shown}: prompt .*two.*, response 'no'"
    with pytest.raises(UserError, match=said):
        rewards(episodes)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"reward_aggregation": "min"}, min),
        ({"reward_aggregation": "mean_minus_std", "reward_std_coef": 2.0}, lambda a, b: (a + b) / 2 - abs(a - b)),
    ],
    ids=["min", "mean_minus_std"],
)
def test_the_trainer_optimises_the_aggregate(
    tmp_path: Path, settings: dict[str, Any], expected: Callable[[float, float], float]
) -> None:
    """Of two scores a and b the deviation is half their distance."""
    found: list[float] = []
    firsts: list[float] = []
    seconds: list[float] = []

    def first(completion_ids: list[list[int]], **columns: Any) -> list[float]:
        firsts.extend(float(ids[0] % 10) for ids in completion_ids)
        return firsts[-len(completion_ids) :]

    def second(completion_ids: list[list[int]], **columns: Any) -> list[float]:
        found.extend(expected(ids[0] % 10, ids[-1] % 10) for ids in completion_ids)
        seconds.extend(float(ids[-1] % 10) for ids in completion_ids)
        return seconds[-len(completion_ids) :]

    folder = tiny_model(tmp_path / "model")
    trainer = trainer_for(
        folder, tmp_path / "run", reward_model=[first, second], settings={**settings, "total_episodes": 8}
    )
    trainer.train()
    assert entries(trainer, "objective/scores") == pytest.approx([sum(found) / 8], abs=1e-5)
    assert entries(trainer, "objective/scores_1") == pytest.approx([sum(firsts) / 8], abs=1e-5)
    assert entries(trainer, "objective/scores_2") == pytest.approx([sum(seconds) / 8], abs=1e-5)


@pytest.mark.parametrize("setting", [{"reward_aggregation": "median"}, {"reward_std_coef": -1.0}])
def test_settings_out_of_range_are_refused(tmp_path: Path, setting: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(setting))):
        settings_for(tmp_path, **setting)
