"""The deep check: each planted fault is found, and a healthy trainer passes."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import AutoTokenizer, PreTrainedModel

from rlhf.ppo import Finding, PPOTrainer, deep_check, findings
from tests.rlhf.ppo.helpers import classifier_of, policy_of, trainer_for
from tests.tiny import TEMPLATE, assistant, tiny_model, tiny_tokenizer, user


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("models") / "policy")


def vowels(completions: list[Any], **columns: Any) -> list[float]:
    """A reward that has nothing to do with length."""
    texts = [completion[0]["content"] for completion in completions]
    return [sum(letter in "aeiou" for letter in text) / max(len(text), 1) for text in texts]


def number_of_letters(completions: list[Any], **columns: Any) -> list[float]:
    return [len(completion[0]["content"]) for completion in completions]


def pairs_of(*sides: tuple[str, str]) -> Dataset:
    """A pair for each of 40 prompts; chosen and rejected go round."""
    rows = [
        {
            "prompt": user(f"Question {n}?"),
            "chosen": assistant(sides[n % len(sides)][0]),
            "rejected": assistant(sides[n % len(sides)][1]),
        }
        for n in range(40)
    ]
    return Dataset.from_list(rows)


PAIRS = pairs_of(("aeiou", "bcdfg"))
DEMONSTRATIONS = [[*user(f"Question {n}?"), *assistant("aa ee")] for n in range(8)]


def with_end(folder: Path, added: float) -> PreTrainedModel:
    """The policy with something added to the logit of its end token."""
    policy = policy_of(folder)
    eos = policy.config.eos_token_id

    def add(module: torch.nn.Module, inputs: Any, logits: torch.Tensor) -> torch.Tensor:
        shifted = logits.clone()
        shifted[..., eos] += added
        return shifted

    policy.get_output_embeddings().register_forward_hook(add)
    return policy


def trainer_with(folder: Path, output: Path, *, settings: dict[str, Any] | None = None, **given: Any) -> PPOTrainer:
    """A healthy trainer: responses end after some eight tokens. What is `given` plants a fault."""
    given = {"reward_model": vowels, **given}
    if "model" not in given:
        given["model"] = with_end(folder, 4.0)
    return trainer_for(folder, output, settings={"response_length": 40} | (settings or {}), **given)


def checked(trainer: PPOTrainer, **options: Any) -> dict[str, Finding]:
    options = {"pairs": PAIRS, "demonstrations": DEMONSTRATIONS, **options}
    return {finding.name: finding for finding in deep_check(trainer, **options)}


def verdicts(found: dict[str, Finding]) -> dict[str, str]:
    return {name: finding.verdict for name, finding in found.items() if finding.verdict != "ok"}


def test_a_healthy_trainer_passes_and_trains_as_if_it_had_not_been_checked(folder: Path, tmp_path: Path) -> None:
    trainer = trainer_with(folder, tmp_path)
    found = checked(trainer)
    assert verdicts(found) == {}
    assert list(found) == [
        *("end_token", "end_of_turn", "pad_token", "vocabulary"),
        *("reward_accuracy", "reward_spread", "reward_length", "reward_demonstrations"),
        *("ratio", "kl", "sampler", "memory"),
    ]
    assert found["ratio"].value == "exactly 1" and found["kl"].value == "exactly 0"
    assert found["reward_accuracy"].figures["accuracy"] == 1 and found["reward_accuracy"].figures["prompts"] == 40
    assert found["end_token"].figures["responses"] == 30  # six to each of the five prompts
    assert all(finding.advice == "" for finding in found.values())
    untouched = trainer_with(folder, tmp_path / "untouched")
    trainer.train()
    untouched.train()
    for checked_one, other in zip(trainer.model.parameters(), untouched.model.parameters(), strict=True):
        assert torch.equal(checked_one, other)


def test_a_policy_that_never_ends_fails(folder: Path, tmp_path: Path) -> None:
    found = checked(trainer_with(folder, tmp_path, model=with_end(folder, -50.0)))["end_token"]
    assert found.verdict == "fails"
    assert found.figures["ended"] == 0 and found.figures["length_median"] == 40
    assert "generation marks" in found.advice and "response_length (40)" in found.advice


def test_a_policy_that_ends_half_of_the_time_warns() -> None:
    found = findings.end_token([True, False] * 8, [3, 20] * 8, 20)
    assert (found.verdict, found.value) == ("warning", "50% of 16; tokens: median 12, 95% within 20")


def test_responses_that_cannot_end_by_setting_warn(folder: Path, tmp_path: Path) -> None:
    found = checked(trainer_with(folder, tmp_path, settings={"stop_token": None, "response_length": 4}))
    assert found["end_token"].verdict == "warning" and "stop_token" in found["end_token"].advice


def test_a_constant_reward_fails(folder: Path, tmp_path: Path) -> None:
    found = checked(trainer_with(folder, tmp_path, reward_model=lambda completions, **_: [0.5] * len(completions)))
    assert found["reward_spread"].verdict == "fails" and found["reward_spread"].figures["within"] == 0
    assert found["reward_accuracy"].verdict == "fails" and found["reward_accuracy"].figures["accuracy"] == 0.5


def test_a_reward_model_whose_head_is_zero_fails(folder: Path, tmp_path: Path) -> None:
    model = classifier_of(folder)
    torch.nn.init.zeros_(model.score.weight)
    assert checked(trainer_with(folder, tmp_path, reward_model=model))["reward_spread"].verdict == "fails"


def test_a_reward_of_nothing_but_length_warns(folder: Path, tmp_path: Path) -> None:
    trainer = trainer_with(folder, tmp_path, reward_model=number_of_letters)
    mostly_longer = pairs_of(*[("a longer answer", "short")] * 4, ("short", "a longer answer"))
    found = checked(trainer, pairs=mostly_longer, demonstrations=())
    accuracy = found["reward_accuracy"].figures
    assert accuracy["accuracy"] == accuracy["length_accuracy"] == pytest.approx(0.8)
    assert verdicts(found) == {"reward_accuracy": "warning", "reward_length": "warning"}
    assert "longer response" in found["reward_accuracy"].advice and "write more" in found["reward_length"].advice


def test_a_reward_that_is_noise_fails(folder: Path, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    trainer = trainer_with(folder, tmp_path, reward_model=lambda completions, **_: random.random(len(completions)))
    assert checked(trainer, pairs=None)["reward_spread"].verdict != "ok"


def test_a_reward_against_the_demonstrations_warns(folder: Path, tmp_path: Path) -> None:
    bad = [[*user("Hi"), *assistant("bcd fgh")]] * 8
    found = checked(trainer_with(folder, tmp_path), demonstrations=bad)
    assert verdicts(found) == {"reward_demonstrations": "warning"}


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_reward_that_is_no_number_fails_and_is_named(folder: Path, tmp_path: Path, value: float) -> None:
    trainer = trainer_with(folder, tmp_path, reward_model=lambda completions, **_: [value] * len(completions))
    reward = trainer.reward
    found = checked(trainer)
    assert verdicts(found) == {"reward_spread": "fails"}
    advice = found["reward_spread"].advice
    assert f"reward of a response is {value}: prompt [{{'role': 'user'" in advice and ", response '" in advice
    assert trainer.reward is reward
    json.dumps([finding.to_json() for finding in found.values()], allow_nan=False)


def test_a_missing_pad_token_fails(folder: Path, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.pad_token = None
    found = checked(trainer_with(folder, tmp_path, processing_class=tokenizer))
    assert verdicts(found) == {"pad_token": "fails"}


@pytest.mark.parametrize(("added", "verdict"), [(4.0, "ok"), (-50.0, "warning")])
def test_a_pad_token_that_is_the_end_token_warns_where_nothing_ends(
    folder: Path, tmp_path: Path, added: float, verdict: str
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.pad_token = tokenizer.eos_token
    found = checked(trainer_with(folder, tmp_path, processing_class=tokenizer, model=with_end(folder, added)))
    assert found["pad_token"].verdict == verdict


def test_a_template_without_end_of_turn_fails(folder: Path, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = TEMPLATE.replace("{{- message['content'] + '<|im_end|>' }}", "{{- message['content'] }}")
    assert checked(trainer_with(folder, tmp_path, processing_class=tokenizer))["end_of_turn"].verdict == "fails"


def test_a_tokenizer_with_more_tokens_than_the_model_fails(folder: Path, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["<new>"])
    found = checked(trainer_with(folder, tmp_path, processing_class=tokenizer))["vocabulary"]
    assert found.verdict == "fails" and "401 tokens and the model reads 400" in found.advice


def test_a_reward_model_with_another_tokenizer_is_told(folder: Path, tmp_path: Path) -> None:
    other = tiny_tokenizer(vocab_size=300)
    model = classifier_of(folder)
    same = checked(trainer_with(folder, tmp_path, reward_model=model), pairs=None)["vocabulary"]
    given = {"reward_model": model, "reward_processing_classes": other}
    another = checked(trainer_with(folder, tmp_path, **given), pairs=None)["vocabulary"]
    assert (same.value, another.value) == ("400 tokens, the reward's too", "400 tokens; the reward has another")
    assert checked(trainer_with(folder, tmp_path))["vocabulary"].value == "400 tokens"


def hooked(folder: Path, change: Callable[[torch.nn.Module, torch.Tensor], torch.Tensor]) -> PreTrainedModel:
    """The healthy policy, its last hidden states changed."""
    policy = with_end(folder, 4.0)
    policy.model.norm.register_forward_hook(lambda module, inputs, hidden: change(module, hidden))
    return policy


def test_randomness_in_training_mode_fails_the_ratio(folder: Path, tmp_path: Path) -> None:
    noisy = hooked(folder, lambda module, hidden: hidden + module.training * torch.randn_like(hidden))
    found = checked(trainer_with(folder, tmp_path, model=noisy))
    assert verdicts(found) == {"ratio": "fails"}


def test_a_model_that_reads_padding_fails_against_the_sampler(folder: Path, tmp_path: Path) -> None:
    policy = with_end(folder, 4.0)

    def ignore_padding(module: Any, inputs: Any, given: dict[str, Any]) -> Any:
        return inputs, {**given, "attention_mask": None, "position_ids": None}

    policy.model.register_forward_pre_hook(ignore_padding, with_kwargs=True)
    found = checked(trainer_with(folder, tmp_path, model=policy))
    assert found["sampler"].verdict == "fails" and found["ratio"].verdict == "ok"


def test_another_reference_only_warns(folder: Path, tmp_path: Path) -> None:
    other = policy_of(tiny_model(tmp_path / "other", seed=1))
    found = checked(trainer_with(folder, tmp_path, ref_model=other))
    assert verdicts(found) == {"kl": "warning"}


def test_too_little_memory_fails(folder: Path, tmp_path: Path) -> None:
    trainer = trainer_with(folder, tmp_path)
    found = checked(trainer)["memory"]
    total = int(found.figures["total"])
    assert found.figures["policy"] > 0 and "optimizer" in found.detail
    assert checked(trainer, available=total - 1)["memory"].verdict == "fails"
    assert checked(trainer, available=int(total / 0.95))["memory"].verdict == "warning"


def test_memory_that_is_full_during_the_check_is_a_finding(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: Any) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr("rlhf.ppo.preflight._sample", full)
    found = checked(trainer_with(folder, tmp_path))
    assert list(found) == ["out_of_memory", "memory"] and found["out_of_memory"].verdict == "fails"


def test_without_a_reward_nothing_is_said_of_it(folder: Path, tmp_path: Path) -> None:
    assert not any(name.startswith("reward") for name in checked(trainer_with(folder, tmp_path), with_reward=False))


@pytest.mark.parametrize(("left_out", "verdict"), [(5, "ok"), (6, "warning"), (51, "fails")])
def test_prompts_that_are_left_out(left_out: int, verdict: str) -> None:
    assert findings.room(left_out, 100, 40).verdict == verdict


def test_spread_by_hand() -> None:
    scores = np.array([[1.0, 3.0], [10.0, 10.0]])  # variances 2 and 0, so √1 to a prompt
    found = findings.reward_spread(scores, noise=0.05, distinct=4)
    assert found.figures["within"] == pytest.approx(1.0)
    assert found.figures["overall"] == pytest.approx(math.sqrt(((5**2) + (3**2) + 2 * 4**2) / 3))
    assert found.verdict == "ok"
    assert findings.reward_spread(scores, noise=0.2, distinct=4).verdict == "warning"  # below ten times the noise
    assert findings.reward_spread(scores, noise=1.0, distinct=4).verdict == "fails"
    assert findings.reward_spread(scores, noise=0.0, distinct=4, pairs_std=11.0).verdict == "warning"
    assert "temperature" in findings.reward_spread(scores, noise=1.0, distinct=1).advice


def test_correlation_with_length_is_that_within_a_prompt() -> None:
    scores = np.array([[1.0, 2.0], [9.0, 8.0]])
    lengths = np.array([[1, 2], [10, 11]])
    assert findings.reward_and_length(scores, lengths).figures["correlation"] == 0  # over all it would be 0.97
    assert findings.reward_and_length(scores, -scores).figures["correlation"] == pytest.approx(-1)
    assert findings.reward_and_length(scores, np.ones((2, 2))).figures["correlation"] == 0


def test_bfloat16_may_round(folder: Path, tmp_path: Path) -> None:
    found = checked(trainer_with(folder, tmp_path, settings={"bf16": True}))
    assert {found[name].verdict for name in ("ratio", "kl", "sampler")} == {"ok"}
    assert "bfloat16" in found["ratio"].healthy
