"""The chain's own LoRA reward models are found to stand on the base that PPO trains over."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from datasets import Dataset
from peft import PeftModel

import rlhf.ppo.train
from plumbline.recipe import AlignSection, LoRA, RewardSection, SFTSection
from reward import RewardModel, train_reward
from rlhf.ppo import PPOTrainer, train_ppo
from sft import train_sft
from tests.rlhf.ppo.helpers import conversations, entries
from tests.tiny import assistant, tiny_model, user
from tests.training_helpers import folders

PAIRS = Dataset.from_list(
    [{"prompt": user(f"{word}?"), "chosen": assistant("Yes."), "rejected": assistant("No."), "margin": 1.0}
     for word in ("order", "refund", "lamp", "email")]
)  # fmt: skip
ROWS = Dataset.from_list([{"messages": user("What?") + assistant("Yes.")}] * 8)
PPO = {"method": "ppo", "per_device_train_batch_size": 4, "total_episodes": 8, "response_length": 8, "lora": {"r": 3}}


@pytest.mark.parametrize("sft", ["full", "lora"])
def test_a_reward_trained_by_lora_stands_on_the_policys_base(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sft: str
) -> None:
    """After LoRA SFT both are trained over the merged weights, while the saved reward stands over the base model."""
    base = tiny_model(tmp_path / "base")
    policy, scratch = folders(tmp_path / "sft")
    lora = LoRA(r=2) if sft == "lora" else None
    train_sft(base, ROWS, None, SFTSection(learning_rate=1e-2, max_steps=2, lora=lora), policy, scratch, seed=1)
    folder, scratch = folders(tmp_path / "reward")
    section = RewardSection(learning_rate=1e-2, max_steps=2, lora=LoRA(r=4), per_device_train_batch_size=4)
    train_reward(policy, PAIRS, None, section, folder, scratch, seed=1)
    watch, scratch = folders(tmp_path / "watch")
    train_reward(policy, PAIRS, None, section, watch, scratch, seed=2)
    made: list[PPOTrainer] = []
    monkeypatch.setattr(rlhf.ppo.train, "PPOTrainer", lambda **given: made.append(PPOTrainer(**given)) or made[-1])
    output, scratch = folders(tmp_path / "ppo")
    train_ppo(policy, folder, conversations(), None, AlignSection(**PPO), output, scratch, seed=1, watch=watch)
    trainer = made[0]
    watched = trainer.watch.reward.rewards[0].scorer
    assert watched.model.get_input_embeddings().weight is trainer.model.policy.model.get_input_embeddings().weight
    scorer = trainer.reward.rewards[0].scorer
    assert isinstance(scorer.model, PeftModel) and scorer.model.peft_config["default"].r == 4
    assert scorer.model.get_input_embeddings().weight is trainer.model.policy.model.get_input_embeddings().weight
    assert trainer.model.critic.model.peft_config["default"].r == 4, "the critic starts from the reward's adapter"
    talk = [user("Where is my order?") + assistant("It is late.")]
    torch.testing.assert_close(scorer.score(talk), RewardModel.load(folder).score(talk), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(watched.score(talk), RewardModel.load(watch).score(talk), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(watched.score(talk), scorer.score(talk))
    assert len(entries(trainer, "objective/scores")) == 1
    assert (output / "adapter_model.safetensors").exists() and not (output / "value_model").exists()
