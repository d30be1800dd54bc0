"""A watched reward beside the optimised one, on a planted case that a tiny model exploits in a second."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from plumbline.errors import UserError
from rlhf.ppo import PPOTrainer
from tests.rlhf.ppo.helpers import classifier_of, conversations, entries, good_share, settings_for, trainer_for
from tests.rlhf.ppo.test_resume import StopAt, same_weights
from tests.tiny import tiny_model

ROLLOUTS = 14

SETTINGS: dict[str, Any] = {
    "per_device_train_batch_size": 32,
    "gradient_accumulation_steps": 1,
    "num_mini_batches": 1,
    "total_episodes": 32 * ROLLOUTS,
    "learning_rate": 5e-3,
    "lr_scheduler_type": "constant",
    "kl_coef": 0.01,
    "overoptimization_window": 3,
    "overoptimization_z": 3.0,
}


def bad_share(completion_ids: list[list[int]], **columns: Any) -> list[float]:
    """What the planted reward does not see: it takes from this what it gives there."""
    return [1 - share for share in good_share(completion_ids)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("model"))


def run(folder: Path, output: Path, *, resume: Any = None, stop: int | None = None, **settings: Any) -> PPOTrainer:
    trainer = trainer_for(
        folder,
        output,
        settings={**SETTINGS, **settings},
        watch_reward_model=bad_share,
        callbacks=[StopAt(stop)] if stop else None,
    )
    trainer.train(resume_from_checkpoint=resume)
    return trainer


@pytest.fixture(scope="module")
def warned(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> PPOTrainer:
    return run(folder, tmp_path_factory.mktemp("warned"))


def first_seen(trainer: PPOTrainer) -> int:
    """The rollout, counted from 1, in which over-optimisation was first seen."""
    (first, *_) = [entry for entry in trainer.state.log_history if entry.get("watch/overoptimization")]
    return int(first["episode"]) // 32


def test_the_watched_score_is_logged_and_warned_of(
    folder: Path, tmp_path: Path, warned: PPOTrainer, caplog: pytest.LogCaptureFixture
) -> None:
    proxy, watched = entries(warned, "objective/scores"), entries(warned, "objective/watched_scores")
    assert len(watched) == ROLLOUTS
    assert watched == pytest.approx([1 - score for score in proxy], abs=1e-6), "the same responses are scored"
    assert entries(warned, "objective/watched_scores_std") == pytest.approx(
        [std * (32 / 31) ** 0.5 for std in entries(warned, "objective/scores_std")], abs=1e-5
    )
    assert 6 <= first_seen(warned) < ROLLOUTS
    assert len(set(entries(warned, "objective/kl_coef"))) == 1
    run(folder, tmp_path, total_episodes=32 * first_seen(warned))
    (message,) = [one for one in caplog.messages if "over-optimised" in one]
    assert "the optimised score went from" in message and "Raise kl_coef" in message


def test_watching_changes_nothing_else(folder: Path, tmp_path: Path, warned: PPOTrainer) -> None:
    alone = trainer_for(folder, tmp_path, settings=SETTINGS)
    alone.train()
    assert same_weights(alone, warned)
    assert not entries(alone, "objective/watched_scores")


def test_the_run_stops_at_the_end_of_the_rollout(folder: Path, tmp_path: Path, warned: PPOTrainer) -> None:
    stopped = run(folder, tmp_path, on_overoptimization="stop")
    assert stopped.state.global_step == first_seen(warned) * 2
    assert entries(stopped, "loss") == entries(warned, "loss")[: first_seen(warned)]


def test_the_kl_coefficient_is_raised(folder: Path, tmp_path: Path, warned: PPOTrainer) -> None:
    raised = run(folder, tmp_path, on_overoptimization="raise_kl", overoptimization_kl_factor=30.0)
    coefficients, seen = entries(raised, "objective/kl_coef"), first_seen(warned)
    assert coefficients[:seen] == [0.01] * seen
    assert coefficients[seen] == pytest.approx(0.3)
    assert entries(raised, "objective/kl")[-1] < 0.8 * entries(warned, "objective/kl")[-1]


@pytest.mark.parametrize(
    ("action", "when"),
    [("stop", "before it was seen"), ("stop", "after the end"), ("raise_kl", "before it was seen")],
)
def test_a_resumed_run_ends_the_same(folder: Path, tmp_path: Path, warned: PPOTrainer, action: str, when: str) -> None:
    saving = {"on_overoptimization": action, "save_strategy": "steps", "save_steps": 2}
    whole = run(folder, tmp_path / "whole", **saving)
    # Killed two rollouts before it is seen: what had been gathered until then must come back.
    stop = 2 * (first_seen(warned) - 2) if when == "before it was seen" else None
    run(folder, tmp_path / "killed", stop=stop, **saving)
    resumed = run(folder, tmp_path / "killed", resume=True, **saving)
    assert resumed.state.global_step == whole.state.global_step
    assert same_weights(resumed, whole)
    assert resumed.watch is not None and whole.watch is not None
    assert resumed.watch.state() == whole.watch.state()
    for name in ("loss", "objective/watched_scores", "objective/kl_coef", "watch/watched_z"):
        assert entries(resumed, name) == entries(whole, name)


def test_a_stop_leaves_a_checkpoint_and_an_evaluation(folder: Path, tmp_path: Path, warned: PPOTrainer) -> None:
    often = {"save_strategy": "steps", "save_steps": 1000, "eval_strategy": "steps", "eval_steps": 1000}
    trainer = trainer_for(
        folder,
        tmp_path,
        settings={**SETTINGS, **often, "on_overoptimization": "stop"},
        watch_reward_model=bad_share,
        eval_dataset=conversations(3),
    )
    trainer.train()
    step = 2 * first_seen(warned)
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == [f"checkpoint-{step}"]
    scores, watched = entries(trainer, "eval_objective/scores"), entries(trainer, "eval_objective/watched_scores")
    assert len(scores) == 1 and watched == pytest.approx([1 - scores[0]], abs=1e-6)


def test_a_model_and_a_list_can_be_watched(folder: Path, tmp_path: Path) -> None:
    """A list by its mean; a classifier reads the policy's tokens, or text by a tokenizer of its own."""
    model, other = classifier_of(folder), classifier_of(folder)
    torch.nn.init.ones_(other.score.weight)
    found = []
    for number, (source, tokenizers) in enumerate(
        [(model, None), (other, AutoTokenizer.from_pretrained(folder)), ([model, other], None)]
    ):
        trainer = trainer_for(
            folder,
            tmp_path / str(number),
            settings={"total_episodes": 8},
            watch_reward_model=source,
            watch_processing_classes=tokenizers,
        )
        trainer.train()
        found.append(entries(trainer, "objective/watched_scores")[0])
    trainer = trainer_for(
        folder, tmp_path / "alone", settings={"total_episodes": 8}, reward_model=[model, other], watch_reward_model=None
    )
    trainer.train()
    assert found[2] == pytest.approx(entries(trainer, "objective/scores")[0] / 2, abs=1e-5)
    assert found[0] != found[1]


def nan_reward(completion_ids: list[list[int]], **columns: Any) -> list[float]:
    return [float("nan")] * len(completion_ids)


def test_mistakes_are_refused(folder: Path, tmp_path: Path) -> None:
    small = classifier_of(tiny_model(tmp_path / "other", vocab_size=500))
    cases: list[tuple[dict[str, Any], str]] = [
        ({"watch_reward_model": good_share}, "watch_reward_model .*good_share.* is optimised too"),
        ({"watch_reward_model": [bad_share, good_share]}, "is optimised too"),
        ({"watch_reward_model": 3}, "watch_reward_model is int"),
        ({"watch_reward_model": small}, "vocabulary"),
        ({"settings": {"on_overoptimization": "stop"}}, "nothing is watched"),
        ({"watch_reward_model": bad_share, "watch_processing_classes": [None, None]}, "2 watch_processing_classes"),
    ]
    for arguments, message in cases:
        with pytest.raises(UserError, match=message):
            trainer_for(folder, tmp_path, **arguments)
    with pytest.raises(UserError, match="the watched reward of a response is nan: prompt"):
        trainer_for(folder, tmp_path, watch_reward_model=nan_reward).train()


@pytest.mark.parametrize(
    "setting",
    [
        {"on_overoptimization": "ignore"},
        {"overoptimization_window": 0},
        {"overoptimization_z": 0.0},
        {"overoptimization_kl_factor": 0.5},
        {"on_overoptimization": "raise_kl", "kl_target": 6.0},
    ],
)
def test_settings_out_of_range_are_refused(tmp_path: Path, setting: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(setting))):
        settings_for(tmp_path, **setting)
