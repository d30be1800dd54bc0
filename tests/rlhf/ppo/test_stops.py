"""What ends a run early: a KL budget and evaluations that get no better; also after a kill, and in the chain."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import EarlyStoppingCallback

from plumbline.errors import UserError
from plumbline.recipe import AlignSection
from rlhf.ppo import PPOTrainer, train_ppo
from tests.rlhf.ppo.helpers import classifier_of, conversations, entries, settings_for, trainer_for
from tests.rlhf.ppo.test_resume import StopAt, same_weights
from tests.tiny import tiny_model, tiny_tokenizer
from tests.training_helpers import Killed, folders, kill_at, same_files

MOVING: dict[str, Any] = {"total_episodes": 48, "learning_rate": 1e-2, "lr_scheduler_type": "constant"}
"""Six rollouts of four steps in which the policy leaves its reference."""

SAVING = {"save_strategy": "steps", "save_steps": 4}

UNMOVED: dict[str, Any] = {
    "total_episodes": 48,
    "learning_rate": 0.0,
    "eval_strategy": "steps",
    "eval_steps": 4,
}
"""The first evaluation stays the best one."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("model"))


def run(folder: Path, output: Path, *, resume: Any = None, **arguments: Any) -> PPOTrainer:
    trainer = trainer_for(folder, output, **arguments)
    trainer.train(resume_from_checkpoint=resume)
    return trainer


@pytest.fixture(scope="module")
def free(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> PPOTrainer:
    """A run without a budget."""
    return run(folder, tmp_path_factory.mktemp("free"), settings=MOVING)


@pytest.fixture(scope="module")
def budget(free: PPOTrainer) -> float:
    """A budget that the mean of the rollouts 3, 4 and 5 exceeds and no mean before that."""
    means = means_of_three(free)
    assert max(means[:4]) < means[4], "the KL must grow"
    return (max(means[:4]) + means[4]) / 2


def means_of_three(trainer: PPOTrainer) -> list[float]:
    kls = entries(trainer, "objective/kl")
    return [sum(kls[max(0, end - 3) : end]) / min(3, end) for end in range(1, len(kls) + 1)]


def test_a_spent_kl_budget_ends_the_run_with_a_checkpoint_and_an_evaluation(
    folder: Path, tmp_path: Path, free: PPOTrainer, budget: float, caplog: pytest.LogCaptureFixture
) -> None:
    rarely = {"logging_steps": 4, "save_strategy": "steps", "save_steps": 1000, "eval_strategy": "steps"}
    settings = {**MOVING, **rarely, "eval_steps": 1000, "kl_budget": budget}
    trainer = run(folder, tmp_path, settings=settings, eval_dataset=conversations(3))
    assert trainer.state.global_step == 5 * 4
    assert entries(trainer, "objective/kl") == entries(free, "objective/kl")[:5]
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-20"]
    assert len(entries(trainer, "eval_objective/kl")) == 1
    (message,) = [one for one in caplog.messages if "budget" in one]
    assert f"is {means_of_three(free)[4]:.3g} nats, above kl_budget {budget:.3g}" in message


@pytest.mark.parametrize("stop", [16, None], ids=["killed before", "after the end"])
def test_a_resumed_run_spends_the_same_budget_and_stays_ended(
    folder: Path, tmp_path: Path, budget: float, stop: int | None
) -> None:
    """Killed after the fourth rollout: the third and fourth KL, which the fifth is averaged with, come back."""
    settings = {**MOVING, **SAVING, "kl_budget": budget}
    whole = run(folder, tmp_path / "whole", settings=settings)
    run(folder, tmp_path / "killed", settings=settings, callbacks=[StopAt(stop)] if stop else None)
    resumed = run(folder, tmp_path / "killed", settings=settings, resume=True)
    assert resumed.state.global_step == whole.state.global_step == 20
    assert resumed.stop.state() == whole.stop.state()
    assert resumed.stop.reason == "KL budget"
    assert same_weights(resumed, whole)


def test_what_ended_a_run_does_not_end_the_next_one(folder: Path, tmp_path: Path) -> None:
    trainer = run(folder, tmp_path, settings={"total_episodes": 16})
    trainer.stop.ask("over-optimisation")
    trainer.train()
    assert trainer.stop.reason is None
    assert trainer.state.global_step == 8


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"kl_budget": 0.0}, "kl_budget is 0.0: it must be above 0"),
        ({"kl_budget": -1.0}, "kl_budget is -1.0: it must be above 0"),
        ({"kl_budget": float("nan")}, "kl_budget is nan: it must be above 0"),
        ({"kl_budget": "8"}, "kl_budget is '8': it must be a number, without quotes"),
        ({"kl_budget": 5.0, "kl_target": 6.0}, "kl_budget is 5.0, not above kl_target 6.0"),
        ({"early_stopping_patience": 0, "eval_strategy": "steps"}, "early_stopping_patience is 0"),
        ({"early_stopping_patience": 2}, "nothing is evaluated"),
    ],
)
def test_settings_that_cannot_stop_are_refused(tmp_path: Path, setting: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        settings_for(tmp_path, **setting)


@pytest.mark.parametrize("how", ["by a setting", "given", "added"])
def test_early_stopping_ends_the_run_after_evaluations_without_a_better_one(
    folder: Path, tmp_path: Path, how: str
) -> None:
    """The evaluation after the first rollout is the best; the two after it are not better."""
    settings = {**UNMOVED, **({"early_stopping_patience": 2} if how == "by a setting" else {})}
    settings |= {"metric_for_best_model": "eval_objective/scores", "save_strategy": "steps", "save_steps": 1000}
    given = [EarlyStoppingCallback(2)] if how == "given" else None
    trainer = trainer_for(folder, tmp_path, settings=settings, eval_dataset=conversations(3), callbacks=given)
    if how == "added":
        trainer.add_callback(EarlyStoppingCallback(2))
    trainer.train()
    assert len(entries(trainer, "eval_objective/scores")) == 3
    assert trainer.state.global_step == 12
    assert trainer.stop.reason == "early stopping"
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-12"]


def test_a_better_evaluation_renews_the_patience(folder: Path, tmp_path: Path) -> None:
    trainer = trainer_for(
        folder,
        tmp_path,
        settings={**UNMOVED, "early_stopping_patience": 2, "metric_for_best_model": "eval_objective/scores"},
        eval_dataset=conversations(3),
    )
    planned = iter([1.0, 0.0, 2.0, 1.9, 1.8, 3.0])
    trainer._evaluate_on = lambda prompts, prefix: {"objective/scores": next(planned)}
    trainer.train()
    assert trainer.state.global_step == 5 * 4
    assert trainer.state.best_metric == 2.0


@pytest.mark.parametrize("stop", [8, None], ids=["killed before", "after the end"])
def test_a_resumed_run_keeps_its_patience_and_stays_ended(folder: Path, tmp_path: Path, stop: int | None) -> None:
    settings = {**UNMOVED, **SAVING, "early_stopping_patience": 2}
    arguments: dict[str, Any] = {"settings": settings, "eval_dataset": conversations(3)}
    run(folder, tmp_path, **arguments, callbacks=[StopAt(stop)] if stop else None)
    resumed = run(folder, tmp_path, **arguments, resume=True)
    assert resumed.state.global_step == 12
    assert len(entries(resumed, "eval_objective/scores")) == 3


def test_without_a_name_the_best_checkpoint_is_that_of_the_highest_held_out_reward(tmp_path: Path) -> None:
    each = {"eval_strategy": "steps", "eval_steps": 4, **SAVING}
    settings = settings_for(tmp_path, load_best_model_at_end=True, **each)
    assert (settings.metric_for_best_model, settings.greater_is_better) == ("eval_objective/rlhf_reward", True)
    assert settings_for(tmp_path).metric_for_best_model is None


def test_a_best_metric_that_several_datasets_do_not_give_is_refused(folder: Path, tmp_path: Path) -> None:
    settings = {**UNMOVED, "total_episodes": 8, "early_stopping_patience": 1}
    named = {"a": conversations(2), "b": conversations(1)}
    with pytest.raises(UserError, match="which no evaluation gives: take eval_a_objective/scores"):
        trainer_for(folder, tmp_path, settings=settings, eval_dataset=named)
    settings["metric_for_best_model"] = "b_objective/scores"
    trainer = run(folder, tmp_path, settings=settings, eval_dataset=named)
    assert trainer.state.best_metric == entries(trainer, "eval_b_objective/scores")[0]


def test_evaluations_after_the_training_do_not_end_it(folder: Path, tmp_path: Path) -> None:
    settings = {**UNMOVED, "total_episodes": 8, "early_stopping_patience": 1}
    trainer = run(folder, tmp_path, settings=settings, eval_dataset=conversations(3))
    trainer.evaluate()
    trainer.evaluate()
    assert trainer.stop.reason is None


# In the chain


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("models")
    policy, reward = tiny_model(root / "policy"), root / "reward"
    classifier_of(policy).save_pretrained(reward)
    tiny_tokenizer().save_pretrained(reward)
    return policy, reward


def stage(models: tuple[Path, Path], root: Path, *, held_out: bool = True, **settings: Any) -> dict[str, Any]:
    common = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "response_length": 6}
    section = AlignSection(method="ppo", total_episodes=48, **common, **settings)
    evaluation = conversations(3) if held_out else None
    return train_ppo(*models, conversations(), evaluation, section, *folders(root), seed=3)


@pytest.mark.parametrize(
    ("settings", "steps", "reason"),
    [
        ({"learning_rate": 1e-2, "kl_budget": 0.05, "save_steps": 4}, None, "KL budget"),
        (
            {"learning_rate": 0.0, "eval_strategy": "steps", "eval_steps": 4, "early_stopping_patience": 2},
            12,
            "early stopping",
        ),
        ({"learning_rate": 0.0, "kl_budget": 0.05, "save_steps": 4}, 24, None),
    ],
    ids=["KL budget", "early stopping", "neither"],
)
def test_the_stage_says_why_it_ended_also_when_it_is_run_again(
    models: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, Any],
    steps: int | None,
    reason: str | None,
) -> None:
    whole = stage(models, tmp_path / "whole", **settings)
    assert whole.get("stopped") == reason
    assert whole["steps"] == steps if steps else whole["steps"] < 24
    with monkeypatch.context() as patch:  # killed when all is trained and nothing is written
        kill_at(patch, whole["steps"], marked=True)
        with pytest.raises(Killed):
            stage(models, tmp_path / "killed", **settings)
    assert stage(models, tmp_path / "killed", **settings) == whole
    assert same_files(tmp_path / "killed" / "output", tmp_path / "whole" / "output")


def test_early_stopping_without_held_out_prompts_is_refused(models: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="ppo: early_stopping_patience is 2, but nothing is evaluated"):
        stage(models, tmp_path, held_out=False, eval_strategy="steps", early_stopping_patience=2)
