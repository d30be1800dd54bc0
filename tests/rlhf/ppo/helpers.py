"""Tiny trainers for the tests of PPO."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PrinterCallback,
)

from rlhf.ppo import PPOConfig, PPOTrainer
from tests.tiny import tiny_model, user

GOOD = range(3, 103)
"""A planted quarter of the vocabulary of 400."""

QUESTIONS = ["Where is my order?", "Hi", "How do I reset my password? I forgot it.", "Thank you", "A refund, please."]


def good_share(completion_ids: Sequence[list[int]], **columns: Any) -> list[float]:
    """The planted reward: share of a response's tokens in `GOOD`."""
    return [sum(token in GOOD for token in ids) / len(ids) for ids in completion_ids]


def conversations(count: int = 5) -> Dataset:
    """Prompts of different lengths."""
    return Dataset.from_list([{"prompt": user(QUESTIONS[i % 5] + " Please." * (i // 5))} for i in range(count)])


def policy_of(folder: Path) -> PreTrainedModel:
    """The policy in float32."""
    return AutoModelForCausalLM.from_pretrained(folder, dtype="float32")


def leaning_model(folder: Path, token: int, probability: float) -> Path:
    """Write a tiny model that says a token with about this probability wherever it is, and the others alike."""
    model = policy_of(tiny_model(folder, tie_word_embeddings=False))
    model.model.embed_tokens.weight.data[:, 0] = 10.0  # far larger than the rest, so it survives each layer's norm
    state = model.config.hidden_size**0.5  # and is this at the head
    model.lm_head.weight.data[:, 0] = 0.0
    odds = probability / (1 - probability) * (model.config.vocab_size - 1)
    model.lm_head.weight.data[token, 0] = math.log(odds) / state
    model.save_pretrained(folder)
    return folder


def classifier_of(folder: Path) -> PreTrainedModel:
    """A sequence classifier over the policy's backbone, with a head that is not zero."""
    model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1, dtype="float32")
    with_head = model.score.weight.data
    with_head.copy_((with_head * 0).flatten().add(1).cumsum(0).sin().view_as(with_head) * 0.3)
    return model


def reward_adapter(base: Path, folder: Path) -> Path:
    """Write a reward model that is a LoRA adapter, not zero, and a head over the weights in `base`."""
    config = LoraConfig(r=3, target_modules=["q_proj", "down_proj"], task_type="SEQ_CLS", modules_to_save=["score"])
    model = get_peft_model(classifier_of(base), config)
    random = torch.Generator().manual_seed(7)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.3, generator=random)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    return folder


def settings_for(output: Path, **values: Any) -> PPOConfig:
    """Settings of a run of a second: rollouts of 8 episodes, 2 epochs × 2 mini-batches."""
    common: dict[str, Any] = {
        "output_dir": str(output),
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 4,
        "num_mini_batches": 2,
        "num_ppo_epochs": 2,
        "total_episodes": 16,
        "response_length": 6,
        "temperature": 1.0,
        "learning_rate": 1e-3,
        "report_to": "none",
        "save_strategy": "no",
        "use_cpu": True,
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        "seed": 5,
    }
    return PPOConfig(**{**common, **values})


def trainer_for(folder: Path, output: Path, *, settings: dict[str, Any] | None = None, **arguments: Any) -> PPOTrainer:
    """A trainer over the tiny model in `folder` with the planted reward; `arguments` replace the constructor's."""
    given: dict[str, Any] = {
        "args": settings_for(output, **(settings or {})),
        "processing_class": AutoTokenizer.from_pretrained(folder),
        "model": policy_of(folder) if "model" not in arguments else None,
        "ref_model": None,
        "reward_model": good_share,
        "train_dataset": conversations(),
    }
    trainer = PPOTrainer(**{**given, **arguments})
    trainer.remove_callback(PrinterCallback)
    return trainer


def entries(trainer: PPOTrainer, name: str) -> list[float]:
    """A metric's values in the training log."""
    return [entry[name] for entry in trainer.state.log_history if name in entry]
