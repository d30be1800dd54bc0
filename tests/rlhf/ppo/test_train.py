"""The chain's PPO stage: folders in, folder out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset

from plumbline.errors import UserError
from plumbline.measured import watch_note
from plumbline.models import load_policy, load_tokenizer
from plumbline.recipe import AlignSection
from plumbline.runs import hash_folder
from plumbline.training import LOG_FILE
from rlhf.ppo import train_ppo
from tests.rlhf.ppo.helpers import classifier_of, conversations
from tests.tiny import tiny_model, tiny_tokenizer, user
from tests.training_helpers import Killed, folders, kill_at, same_files

SETTINGS: dict[str, Any] = {
    "method": "ppo",
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 2,
    "total_episodes": 32,
    "response_length": 8,
    "learning_rate": 1e-3,
    "save_steps": 4,
}


CLIPPED = "sampling/importance_sampling_ratio/clipped"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A policy's and a reward model's folder."""
    root = tmp_path_factory.mktemp("models")
    policy, reward = tiny_model(root / "policy"), root / "reward"
    classifier_of(policy).save_pretrained(reward)
    tiny_tokenizer().save_pretrained(reward)
    return policy, reward


def train(models: tuple[Path, Path], root: Path, *, watch: Path | None = None, **settings: Any) -> dict[str, Any]:
    folder, scratch = folders(root)
    section = AlignSection(**{**SETTINGS, **settings})
    return train_ppo(*models, conversations(), conversations(3), section, folder, scratch, seed=3, watch=watch)


def test_the_stage_writes_a_policy_and_its_metrics(models: tuple[Path, Path], tmp_path: Path) -> None:
    metrics = train(models, tmp_path)
    folder = tmp_path / "output"
    assert load_tokenizer(folder).chat_template
    before, after = load_policy(models[0]), load_policy(folder)
    assert not torch.equal(before.model.norm.weight, after.model.norm.weight)
    assert metrics["steps"] == 4 * 2 * 2
    assert metrics["kl_first"] == 0.0
    assert {"scores_last", "length_last", "ended_last", "eval_objective/scores", "eval_objective/kl"} <= metrics.keys()
    assert 0 <= metrics["eval_response/ended"] <= 1
    assert (metrics["reward"], metrics["kl"]) == (metrics["eval_objective/scores"], metrics["eval_objective/kl"])
    assert not list(folder.glob("*.bin")) and not (folder / "value_model").exists()


@pytest.fixture(scope="module")
def opposite(models: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reward model that takes away what the optimised one gives, so that every rise is over-optimisation."""
    folder = tmp_path_factory.mktemp("opposite")
    classifier = classifier_of(models[0])
    classifier.score.weight.data.neg_()
    classifier.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


SEEN_AT_ONCE: dict[str, Any] = {"total_episodes": 48, "overoptimization_window": 1, "overoptimization_z": 1e-9}


def log_of(root: Path) -> list[dict[str, Any]]:
    lines = (root / "output" / "training_log.jsonl").read_text().splitlines()
    return [entry for line in lines if "objective/scores" in (entry := json.loads(line))]


@pytest.mark.parametrize("action", ["warn", "stop", "raise_kl"])
def test_what_was_watched_and_done_is_among_the_metrics(
    models: tuple[Path, Path], opposite: Path, tmp_path: Path, action: str
) -> None:
    metrics = train(models, tmp_path, watch=opposite, on_overoptimization=action, **SEEN_AT_ONCE)
    log = log_of(tmp_path)
    seen = [entry["episode"] for entry in log if entry.get("watch/overoptimization")]
    assert seen, "a rise of the one is a fall of the other"
    assert metrics["watched_scores_last"] == pytest.approx(-metrics["scores_last"], abs=1e-6)
    assert metrics["eval_objective/watched_scores"] == pytest.approx(-metrics["eval_objective/scores"], abs=1e-6)
    assert (metrics["overoptimization_seen"], metrics["overoptimization_episode"]) == (len(seen), seen[0])
    assert metrics["overoptimization_action"] == action
    assert metrics["overoptimization_tests"] == sum("watch/watched_z" in entry for entry in log)
    if action == "stop":
        assert metrics["steps"] * 2 == seen[0] < 48, "4 steps in a rollout of 8 episodes"
    assert metrics.get("kl_coef_last") == (log[-1]["objective/kl_coef"] if action == "raise_kl" else None)
    done = {"warn": "the run only warned", "stop": "the run ended there", "raise_kl": "the KL coefficient was raised"}
    assert watch_note(metrics) == f"over-optimisation was seen after {seen[0]} episodes; {done[action]}."
    picture = (tmp_path / "output" / "overoptimization.svg").read_text()
    assert "seen" in picture and "watched, ppo" in picture


def test_a_stopped_stage_that_was_killed_ends_with_the_same_files(
    models: tuple[Path, Path], opposite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopping = {"watch": opposite, "on_overoptimization": "stop", **SEEN_AT_ONCE}
    expected = train(models, tmp_path / "whole", **stopping)
    with monkeypatch.context() as patch:
        kill_at(patch, expected["steps"], marked=True)
        with pytest.raises(Killed):
            train(models, tmp_path / "killed", **stopping)
    assert train(models, tmp_path / "killed", **stopping) == expected
    assert same_files(tmp_path / "whole" / "output", tmp_path / "killed" / "output")


def test_watching_changes_no_file_of_the_policy(models: tuple[Path, Path], opposite: Path, tmp_path: Path) -> None:
    metrics = train(models, tmp_path / "alone")
    assert not any("watch" in name or "overoptimization" in name for name in metrics)
    watched = train(models, tmp_path / "watched", watch=opposite)
    assert {name: watched[name] for name in metrics} == metrics
    assert hash_folder(tmp_path / "alone" / "output") == hash_folder(tmp_path / "watched" / "output")
    assert watched["overoptimization_tests"] == 0, "fewer rollouts than two windows"
    assert watch_note(watched) == "the run was too short for the watched reward to be tested."
    assert watch_note(metrics) is None


def test_lora_writes_an_adapter(models: tuple[Path, Path], tmp_path: Path) -> None:
    train(models, tmp_path, lora={"r": 4})
    assert (tmp_path / "output" / "adapter_model.safetensors").exists()
    assert load_policy(tmp_path / "output").config.vocab_size == 400


def test_the_section_chooses_the_engine(models: tuple[Path, Path], tmp_path: Path) -> None:
    """One that is not the trainer's own, as only then the mismatch is corrected and what was clipped is logged."""
    train(models, tmp_path, rollout_engine="generate", total_episodes=8)
    log = (tmp_path / "output" / LOG_FILE).read_text(encoding="utf-8").splitlines()
    shares = [entry[CLIPPED] for entry in map(json.loads, log) if CLIPPED in entry]
    assert shares == [0.0]


@pytest.mark.parametrize(
    ("step", "marked"),
    [(8, True), (8, False), (16, True)],
    ids=["after a checkpoint", "inside a checkpoint", "after the last checkpoint"],
)
def test_a_killed_stage_ends_with_the_same_files(
    models: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int, marked: bool
) -> None:
    adaptive = {"kl_target": 0.01, "kl_horizon": 50}
    expected = train(models, tmp_path / "whole", **adaptive)
    with monkeypatch.context() as patch:
        kill_at(patch, step, marked=marked)
        with pytest.raises(Killed):
            train(models, tmp_path / "killed", **adaptive)
    assert train(models, tmp_path / "killed", **adaptive) == expected
    assert same_files(tmp_path / "killed" / "output", tmp_path / "whole" / "output")


LONG = Dataset.from_list([{"prompt": user("order " * 200)}])
"""A prompt of 216 tokens; the window has 256."""


def train_on(
    models: tuple[Path, Path], root: Path, prompts: Dataset, evaluation: Dataset | None, **settings: Any
) -> dict[str, Any]:
    section = AlignSection(**{**SETTINGS, "total_episodes": 8, "save_strategy": "no", **settings})
    return train_ppo(*models, prompts, evaluation, section, *folders(root), seed=3)


@pytest.mark.parametrize(("response_length", "dropped"), [(40, 0), (41, 1)])
def test_prompts_without_room_for_a_response_are_left_out(
    models: tuple[Path, Path],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    response_length: int,
    dropped: int,
) -> None:
    mixed = Dataset.from_list([*conversations(4), *LONG])
    metrics = train_on(models, tmp_path, mixed, mixed, response_length=response_length)
    assert (metrics["dropped_prompts"], metrics["dropped_eval_prompts"]) == (dropped, dropped)
    said = [message for message in caplog.messages if "left out" in message]
    assert said == [
        f"ppo, {what}: left out 1 of 5, longer than 215 tokens, which leave room for a response"
        for what in ("prompts", "held-out prompts")
        if dropped
    ]


def test_no_prompt_with_room_for_a_response_is_refused(models: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no prompt leaves room for a response of 250 tokens in the window of 256"):
        train_on(models, tmp_path, conversations(), conversations(3), response_length=250)


@pytest.mark.parametrize(
    "evaluation", [None, Dataset.from_list([]), conversations().select([]), LONG], ids=["None", "[]", "no row", "long"]
)
def test_without_held_out_prompts_the_last_rollout_tells(
    models: tuple[Path, Path], tmp_path: Path, evaluation: Dataset | None
) -> None:
    settings = {"response_length": 41, "max_steps": 4, "eval_strategy": "steps", "load_best_model_at_end": True}
    metrics = train_on(models, tmp_path, conversations(), evaluation, **settings)
    assert load_policy(tmp_path / "output").config.vocab_size == 400
    assert not [name for name in metrics if name.startswith("eval_")]
    log = [json.loads(line) for line in (tmp_path / "output" / "training_log.jsonl").read_text().splitlines()]
    last = [entry for entry in log if "objective/scores" in entry][-1]
    assert (metrics["reward"], metrics["kl"]) == (last["objective/scores"], last["objective/kl"])
