"""DPO: reference log-probabilities, the loss, adapters, resuming, refusals."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset

import rlhf.dpo
from plumbline.errors import UserError
from plumbline.identity import identify
from plumbline.length_groups import short_first
from plumbline.models import load_policy, load_tokenizer
from plumbline.recipe import AlignSection, LoRA, SFTSection
from rlhf.dpo import train_dpo
from sft import train_sft
from tests.tiny import assistant, tiny_model, user
from tests.training_helpers import Killed, folders, kill_at, same_files

TOPICS = ["order", "refund", "lamp", "email", "password", "invoice", "delivery", "number"]


def pairs(topics: list[str]) -> Dataset:
    return Dataset.from_list(
        [
            {
                "prompt": user(f"Where is the {topic}?"),
                "chosen": assistant("Thank you for your help!"),
                "rejected": assistant("No. One two three."),
            }
            for topic in topics
        ]
    )


TRAIN, HELD_OUT = pairs(TOPICS), pairs(["settings", "folder", "what", "blue"])


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("base"))


def section(**fields: Any) -> AlignSection:
    return AlignSection(method="dpo", **{"per_device_train_batch_size": 4, "learning_rate": 1e-3, **fields})


def log_probability(policy: Path, prompt: list[dict[str, str]], response: list[dict[str, str]]) -> float:
    """Sum of the log-probabilities of a response's tokens after its prompt, from plain logits."""
    model, tokenizer = load_policy(policy), load_tokenizer(policy)
    start = len(tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_dict=True)["input_ids"])
    ids = tokenizer.apply_chat_template(prompt + response, return_dict=True, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        logp = model(ids).logits[0, :-1].log_softmax(-1).gather(-1, ids[0, 1:, None]).squeeze(-1)
    return logp[start - 1 :].sum().item()


def test_reference_is_the_policy_at_the_start_and_computed_once(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[Any] = []
    train = rlhf.dpo.train_and_save
    monkeypatch.setattr(rlhf.dpo, "train_and_save", lambda trainer, **k: kept.append(trainer) or train(trainer, **k))
    folder, scratch = folders(tmp_path)
    train_dpo(base, TRAIN, HELD_OUT, section(max_steps=3), folder, scratch, seed=1)
    trainer = kept[0]
    assert trainer.ref_model is None
    for row, pair in zip(trainer.train_dataset.select(range(3)), short_first(TRAIN), strict=False):
        for side in ("chosen", "rejected"):
            expected = log_probability(base, pair["prompt"], pair[side])
            assert row[f"ref_{side}_logps"] == pytest.approx(expected, abs=1e-3)
    computed: list[Any] = []
    monkeypatch.setattr(rlhf.dpo.DPOTrainer, "compute_ref_log_probs", lambda *given: computed.append(given))
    train_dpo(base, TRAIN, HELD_OUT, section(max_steps=3), folder, scratch, seed=1)  # as after a kill
    assert not computed


def test_the_reference_has_our_bar_and_not_trls(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    drawn: list[str] = []
    monkeypatch.setattr(rlhf.dpo, "track", lambda items, what, **_: drawn.append(what) or items)
    train_dpo(base, TRAIN, HELD_OUT, section(max_steps=1), *folders(tmp_path), seed=1)
    assert drawn == ["Asking the reference"] * 2, "training pairs and held-out pairs"
    assert "Computing reference log probs" not in capsys.readouterr().err


def test_starts_at_log_2_and_learns_the_preference(base: Path, tmp_path: Path) -> None:
    folder, scratch = folders(tmp_path)
    given = section(num_train_epochs=6, logging_steps=1, beta=0.5)
    metrics = train_dpo(base, TRAIN, HELD_OUT, given, folder, scratch, seed=1)
    log = [json.loads(line) for line in (folder / "training_log.jsonl").read_text().splitlines()]
    assert log[0]["loss"] == pytest.approx(math.log(2), abs=1e-4)
    assert metrics["eval_rewards/accuracies"] == 1.0 and metrics["eval_loss"] < 0.5
    assert (metrics["train_pairs"], metrics["dropped_pairs"]) == (8, 0)

    # The held-out margin by hand: beta times the difference of the log-ratios.
    margins = []
    for pair in HELD_OUT:
        ratio = {
            side: log_probability(folder, pair["prompt"], pair[side])
            - log_probability(base, pair["prompt"], pair[side])
            for side in ("chosen", "rejected")
        }
        margins.append(0.5 * (ratio["chosen"] - ratio["rejected"]))
    assert metrics["eval_rewards/margins"] == pytest.approx(sum(margins) / len(margins), abs=1e-3)


@pytest.mark.parametrize("marked", [True, False])
def test_killed_and_resumed_equals_uninterrupted(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, marked: bool
) -> None:
    given = section(max_steps=6, save_steps=2)
    whole, scratch = folders(tmp_path / "whole")
    expected = train_dpo(base, TRAIN, HELD_OUT, given, whole, scratch, seed=3)
    folder, scratch = folders(tmp_path / "killed")
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_at(patch, 4, marked=marked)
        train_dpo(base, TRAIN, HELD_OUT, given, folder, scratch, seed=3)
    assert train_dpo(base, TRAIN, HELD_OUT, given, folder, scratch, seed=3) == expected
    assert same_files(folder, whole)


def test_lora_over_a_lora_policy(base: Path, tmp_path: Path) -> None:
    """The reference is the merged policy, and the joined adapter stands over the first base."""
    policy, scratch = folders(tmp_path / "sft")
    rows = Dataset.from_list([{"messages": user("What?") + assistant("Yes.")}] * 8)
    train_sft(base, rows, None, SFTSection(learning_rate=1e-2, max_steps=4, lora=LoRA(r=2)), policy, scratch, seed=1)
    folder, scratch = folders(tmp_path / "dpo")
    given = section(num_train_epochs=6, logging_steps=1, learning_rate=1e-2, lora=LoRA(r=4))
    metrics = train_dpo(policy, TRAIN, HELD_OUT, given, folder, scratch, seed=1)
    log = [json.loads(line) for line in (folder / "training_log.jsonl").read_text().splitlines()]
    assert log[0]["loss"] == pytest.approx(math.log(2), abs=1e-4)
    found = identify(folder)
    assert found.adapter is not None and found.adapter.mode == "joined"
    assert found.base_hash == identify(base).weights_hash
    pair = HELD_OUT[0]
    ratio = {
        side: log_probability(folder, pair["prompt"], pair[side]) - log_probability(policy, pair["prompt"], pair[side])
        for side in ("chosen", "rejected")
    }
    assert ratio["chosen"] > ratio["rejected"]
    assert metrics["eval_rewards/accuracies"] == 1.0


def test_fewer_pairs_than_a_batch_are_refused(base: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"dpo: 8 preference pairs .* fewer than one batch of 16"):
        train_dpo(base, TRAIN, HELD_OUT, section(per_device_train_batch_size=16), *folders(tmp_path), seed=1)


def test_prompts_that_fill_the_window_are_left_out_and_counted(base: Path, tmp_path: Path) -> None:
    long = pairs(["order " * 40])
    metrics = train_dpo(
        base, Dataset.from_list([*TRAIN, *long]), None, section(max_steps=1, max_length=48), *folders(tmp_path), seed=1
    )
    assert (metrics["train_pairs"], metrics["dropped_pairs"]) == (8, 1)


@pytest.mark.parametrize(
    "evaluation",
    [None, Dataset.from_list([]), HELD_OUT.select([]), pairs(["order " * 40])],
    ids=["None", "[]", "no row", "long"],
)
def test_without_held_out_pairs_the_last_weights_are_the_result(
    base: Path, tmp_path: Path, evaluation: Dataset | None
) -> None:
    folder, scratch = folders(tmp_path)
    given = section(max_steps=2, max_length=48, eval_strategy="steps", eval_steps=1, load_best_model_at_end=True)
    metrics = train_dpo(base, TRAIN, evaluation, given, folder, scratch, seed=1)
    assert metrics["steps"] == 2 and not [name for name in metrics if name.startswith("eval_")]
    pair = TRAIN[0]
    margin = {
        path: [log_probability(path, pair["prompt"], pair[side]) for side in ("chosen", "rejected")]
        for path in (base, folder)
    }
    assert margin[folder][0] - margin[folder][1] > margin[base][0] - margin[base][1]


def test_prompts_that_all_fill_the_window_are_refused(base: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="dpo: 0 preference pairs are left to train on"):
        train_dpo(base, pairs(["order " * 40] * 8), None, section(max_length=48), *folders(tmp_path), seed=1)
