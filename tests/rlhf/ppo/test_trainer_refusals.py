"""What the trainer refuses, before training where it can be known then."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from plumbline.errors import UserError
from tests.rlhf.ppo.helpers import classifier_of, good_share, policy_of, trainer_for
from tests.tiny import tiny_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("model"))


def nan_reward(completion_ids: list[list[int]], **columns: Any) -> list[float]:
    return [float("nan")] * len(completion_ids)


def short_reward(completion_ids: list[list[int]], **columns: Any) -> list[float]:
    return [0.0]


@pytest.mark.parametrize(
    ("reward", "message"), [(nan_reward, "reward of a response is nan"), (short_reward, "gave 1 scores for 8")]
)
def test_bad_rewards_stop_the_run_with_a_sentence(folder: Path, tmp_path: Path, reward: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        trainer_for(folder, tmp_path, reward_model=reward).train()


def test_mistakes_are_refused_before_training(folder: Path, tmp_path: Path) -> None:
    model = policy_of(folder)
    other = classifier_of(tiny_model(tmp_path / "other", vocab_size=500))
    cases: list[tuple[dict[str, Any], str]] = [
        ({"model": model, "ref_model": model}, "same object"),
        ({"settings": {"response_length": 250}}, "more than the model's window"),
        ({"reward_model": other}, "vocabulary"),
        ({"reward_model": 3}, "reward_model is int"),
        ({"reward_model": [good_share], "settings": {"reward_weights": [1.0, 2.0]}}, "reward_weights has 2"),
        ({"train_dataset": Dataset.from_list([])}, "is empty"),
        ({"peft_config": {"r": 4}}, "peft_config is dict"),
    ]
    for arguments, message in cases:
        with pytest.raises(UserError, match=message):
            trainer_for(folder, tmp_path, **arguments)


@pytest.mark.parametrize(
    "setting",
    [{"response_length": 0}, {"temperature": 0.0}, {"kl_estimator": "k2"}, {"lam": 1.5}, {"stop_token": "end"}],
)
def test_settings_out_of_range_are_refused(folder: Path, tmp_path: Path, setting: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(setting))):
        trainer_for(folder, tmp_path, settings=setting)
