"""The reward model: which token it reads, invariance, its head under LoRA, accuracy, resuming, refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import reward.training
from plumbline.errors import UserError
from plumbline.identity import identify
from plumbline.recipe import LoRA, RewardSection, SFTSection
from reward import RewardModel, train_reward
from reward.accuracy import held_out_accuracy, wilson_interval
from sft import train_sft
from tests.tiny import TEMPLATE, assistant, tiny_model, user
from tests.training_helpers import Killed, folders, kill_at, same_files

TOPICS = ["order", "refund", "lamp", "email", "password", "invoice", "delivery", "number"]


def pairs(topics: list[str], margin: float = 1.0) -> Dataset:
    """Thanks are preferred to a bare no; the longer response is chosen for half of the topics."""
    rows = []
    for number, topic in enumerate(topics):
        chosen, rejected = ("Thank you for your help!", "No.") if number % 2 else ("Thank you!", "No. No. No. No. No.")
        prompt = user(f"Where is the {topic}?")
        rows.append({"prompt": prompt, "chosen": assistant(chosen), "rejected": assistant(rejected), "margin": margin})
    return Dataset.from_list(rows)


TRAIN, HELD_OUT = pairs(TOPICS), pairs(["settings", "folder", "what", "blue"])


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def trained(base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder, scratch = folders(tmp_path_factory.mktemp("reward"))
    section = RewardSection(learning_rate=1e-2, num_train_epochs=10, per_device_train_batch_size=4)
    return folder, train_reward(base, TRAIN, HELD_OUT, section, folder, scratch, seed=1)


def test_learns_the_preference_and_reports_its_accuracy(trained: tuple[Path, dict[str, Any]]) -> None:
    _, metrics = trained
    assert metrics["accuracy"] == 1.0
    assert (metrics["accuracy_low"], metrics["accuracy_high"]) == wilson_interval(1.0, 4)
    assert metrics["length_accuracy"] == 0.5
    assert (metrics["train_pairs"], metrics["eval_pairs"], metrics["eval_prompts"]) == (8, 4, 4)


def test_wilson_interval_by_hand() -> None:
    # 8 of 10: centre (0.8 + 3.8415/20) / 1.38415, half-width 1.96·sqrt(0.016 + 3.8415/400) / 1.38415.
    assert wilson_interval(0.8, 10) == pytest.approx((0.4901625, 0.9433178), abs=1e-6)
    assert wilson_interval(0.0, 5)[0] == 0.0


def test_equal_scores_and_equal_lengths_count_half(trained: tuple[Path, dict[str, Any]]) -> None:
    same = Dataset.from_list(
        [{"prompt": user("What?"), "chosen": assistant("Yes."), "rejected": assistant("Yes.")}] * 3
    )
    found = held_out_accuracy(RewardModel.load(trained[0]), same)
    assert (found.accuracy, found.length_accuracy, found.eval_prompts) == (0.5, 0.5, 1)


WORDS = st.lists(st.sampled_from(TOPICS), min_size=1, max_size=12).map(" ".join)


@settings(max_examples=20, deadline=None)
@given(texts=st.lists(WORDS, min_size=1, max_size=6), batch_tokens=st.sampled_from([1, 60, 4096]), data=st.data())
def test_scores_do_not_depend_on_the_batch(
    trained: tuple[Path, dict[str, Any]], texts: list[str], batch_tokens: int, data: st.DataObject
) -> None:
    model = RewardModel.load(trained[0])
    conversations = [user("What?") + assistant(text) for text in texts]
    alone = torch.cat([model.score([conversation]) for conversation in conversations])
    order = data.draw(st.permutations(range(len(texts))))
    together = model.score([conversations[index] for index in order], batch_tokens=batch_tokens)
    torch.testing.assert_close(together, alone[list(order)], atol=1e-5, rtol=0)


@pytest.mark.parametrize("ends_on_eos", [True, False])
@pytest.mark.parametrize("pad_is_eos", [True, False])
def test_reads_the_last_real_token(tmp_path: Path, pad_is_eos: bool, ends_on_eos: bool) -> None:
    """Also where pad and eos are one token and the conversation ends with it, in training as in scoring."""
    template = TEMPLATE.replace("{{- '\n' }}{%- endfor %}", "{%- endfor %}") if ends_on_eos else TEMPLATE
    model = tiny_model(tmp_path / "model", pad_is_eos=pad_is_eos, chat_template=template)
    folder, scratch = folders(tmp_path)
    train_reward(model, TRAIN, None, RewardSection(learning_rate=1e-3, max_steps=2), folder, scratch, seed=1)
    found = RewardModel.load(folder)
    conversation = user("Where is it?") + assistant("Yes.")
    ids = found.tokenizer.apply_chat_template(conversation, return_dict=True, return_tensors="pt")["input_ids"]
    assert (ids[0, -1] == found.tokenizer.eos_token_id) == ends_on_eos
    with torch.no_grad():
        expected = found.model.score(found.model.model(ids).last_hidden_state[0, -1]).item()
    longer = user("Where is it?") + assistant("Thank you for your help! That worked.")
    assert found.score([conversation, longer])[0].item() == pytest.approx(expected, abs=1e-6)

    # What transformers reads by itself from a padded batch, as in training.
    plain, tokenizer = AutoModelForSequenceClassification.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    tokenizer.padding_side = "right"
    texts = tokenizer.apply_chat_template([conversation, longer], tokenize=False)
    batch = tokenizer(texts, add_special_tokens=False, padding=True, return_tensors="pt")
    with torch.no_grad():
        assert plain(**batch).logits[0].item() == pytest.approx(expected, abs=1e-5)


def test_lora_keeps_its_head(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[Any] = []
    train = reward.training.train_and_save
    monkeypatch.setattr(
        reward.training, "train_and_save", lambda trainer, **k: kept.append(trainer) or train(trainer, **k)
    )
    folder, scratch = folders(tmp_path)
    section = RewardSection(learning_rate=1e-2, max_steps=6, lora=LoRA(r=4), per_device_train_batch_size=4)
    train_reward(base, TRAIN, HELD_OUT, section, folder, scratch, seed=1)
    found = identify(folder)
    assert found.adapter is not None and found.base_hash == identify(base).weights_hash
    conversations = [row["prompt"] + row["chosen"] for row in TRAIN]
    batch = kept[0].data_collator([kept[0].train_dataset[index] for index in range(8)])
    with torch.no_grad():
        in_memory = kept[0].model.eval()(**batch).logits[:8, 0]
    torch.testing.assert_close(RewardModel.load(folder).score(conversations), in_memory, atol=1e-4, rtol=0)


def test_starts_from_a_lora_policy(base: Path, tmp_path: Path) -> None:
    policy, scratch = folders(tmp_path / "sft")
    rows = Dataset.from_list([{"messages": user("What?") + assistant("Yes.")}] * 8)
    train_sft(base, rows, None, SFTSection(learning_rate=1e-2, max_steps=4, lora=LoRA(r=2)), policy, scratch, seed=1)
    folder, scratch = folders(tmp_path / "reward")
    section = RewardSection(learning_rate=1e-3, max_steps=1, lora=LoRA(r=2))
    train_reward(policy, TRAIN, HELD_OUT, section, folder, scratch, seed=1)
    found = identify(folder)
    assert found.adapter is not None and found.adapter.mode == "joined"
    assert found.adapter.parent_hash == identify(policy).weights_hash
    RewardModel.load(folder).score([user("What?") + assistant("Yes.")])


def test_margin_is_used_when_asked_for(base: Path, tmp_path: Path) -> None:
    """A margin of 2 is subtracted from the score difference inside the sigmoid."""
    losses = {}
    for use_margin in (False, True):
        folder, scratch = folders(tmp_path / str(use_margin))
        section = RewardSection(max_steps=1, learning_rate=0.0, use_margin=use_margin, center_rewards_coefficient=None)
        losses[use_margin] = train_reward(base, pairs(TOPICS, 2.0), None, section, folder, scratch, seed=1)[
            "train_loss"
        ]
    model = RewardModel.load(folder)
    score = {side: model.score([row["prompt"] + row[side] for row in TRAIN]) for side in ("chosen", "rejected")}
    difference = score["chosen"] - score["rejected"]
    for use_margin, loss in losses.items():
        expected = -torch.nn.functional.logsigmoid(difference - 2.0 * use_margin).mean().item()
        assert loss == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(("lora", "step"), [(None, 4), (LoRA(r=2), 4), (LoRA(r=2), 5)])  # 5 is the last one
def test_killed_and_resumed_equals_uninterrupted(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lora: LoRA | None, step: int
) -> None:
    section = RewardSection(learning_rate=1e-2, max_steps=5, save_steps=2, per_device_train_batch_size=2, lora=lora)
    whole, scratch = folders(tmp_path / "whole")
    expected = train_reward(base, TRAIN, HELD_OUT, section, whole, scratch, seed=3)
    folder, scratch = folders(tmp_path / "killed")
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_at(patch, step, marked=step == 5)
        train_reward(base, TRAIN, HELD_OUT, section, folder, scratch, seed=3)
    assert train_reward(base, TRAIN, HELD_OUT, section, folder, scratch, seed=3) == expected
    assert same_files(folder, whole)


def test_fewer_pairs_than_a_batch_are_refused(base: Path, tmp_path: Path) -> None:
    section = RewardSection(per_device_train_batch_size=4, gradient_accumulation_steps=4)
    with pytest.raises(UserError, match=r"reward: 8 preference pairs .* fewer than one batch of 16"):
        train_reward(base, TRAIN, HELD_OUT, section, *folders(tmp_path), seed=1)


def too_long(words: int) -> Dataset:
    """One pair whose chosen response is as many words."""
    return pairs(["lamp"]).map(lambda row: {"chosen": assistant("order " * words)})


@pytest.mark.parametrize(
    ("max_length", "words"), [(64, 80), (None, 300)], ids=["max_length 64", "the window of 256 alone"]
)
def test_pairs_that_are_too_long_are_left_out_and_counted(
    base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, max_length: int | None, words: int
) -> None:
    """From training and from the held-out pairs alike, for the loss as for the accuracy."""
    train = Dataset.from_list([*TRAIN, *too_long(words)])
    held_out = Dataset.from_list([*too_long(words), *HELD_OUT, *too_long(words)])
    section = RewardSection(max_steps=1, max_length=max_length)
    metrics = train_reward(base, train, held_out, section, *folders(tmp_path), seed=1)
    assert (metrics["train_pairs"], metrics["dropped_pairs"]) == (8, 1)
    assert (metrics["eval_pairs"], metrics["eval_prompts"], metrics["dropped_eval_pairs"]) == (4, 4, 2)
    assert f"training pairs: left out 1 of 9, longer than {max_length or 256} tokens" in caplog.text
    assert f"held-out pairs: left out 2 of 6, longer than {max_length or 256} tokens" in caplog.text
    alone = train_reward(base, TRAIN, HELD_OUT, section, *folders(tmp_path / "alone"), seed=1)
    assert metrics["eval_loss"] == pytest.approx(alone["eval_loss"], abs=1e-6)


@pytest.mark.parametrize(
    "evaluation",
    [None, Dataset.from_list([]), HELD_OUT.select([]), too_long(300)],
    ids=["None", "[]", "no row", "long"],
)
def test_without_held_out_pairs_there_is_a_model_but_no_accuracy(
    base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, evaluation: Dataset | None
) -> None:
    caplog.set_level("INFO")
    section = RewardSection(max_steps=2, eval_steps=1, eval_strategy="steps", load_best_model_at_end=True)
    folder, scratch = folders(tmp_path)
    metrics = train_reward(base, TRAIN, evaluation, section, folder, scratch, seed=1)
    assert RewardModel.load(folder).score([user("What?") + assistant("Yes.")]).isfinite().all()
    assert metrics["train_pairs"] == 8 and metrics["steps"] == 2
    assert not {"accuracy", "length_accuracy", "eval_pairs", "eval_loss"} & metrics.keys()
    assert "no held-out pairs, so the reward model's accuracy is not known" in caplog.text


def test_scoring_refuses_what_it_cannot_read(trained: tuple[Path, dict[str, Any]], base: Path) -> None:
    model = RewardModel.load(trained[0])
    good = user("What?") + assistant("Yes.")
    with pytest.raises(UserError, match="conversation 2 cannot be scored: the last message is from 'user'"):
        model.score([good, user("What?")])
    with pytest.raises(UserError, match=r"conversation 2 has .* more than the reward model's window of 256"):
        model.score([good, user("What?") + assistant("order " * 300)])
    assert model.score([]).shape == (0,)
