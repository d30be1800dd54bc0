"""What a run is, in a few words: a checkpoint of another one must not be gone on from."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from rlhf.ppo.config import PPOConfig
from rlhf.ppo.data import PromptSet
from rlhf.ppo.generation import Sampling
from rlhf.ppo.models import ActorCritic, Reference, base_of
from rlhf.ppo.rewards import FunctionReward, Reward

SETTINGS = (
    "temperature",
    "response_length",
    "missing_eos_penalty",
    "normalize_scores",
    "score_clip",
    "reward_weights",
    "reward_aggregation",
    "kl_estimator",
    "gamma",
    "lam",
)
"""Settings that say what is learned from; others, such as learning rates and clipping, may change on the way."""

VALUES = 32
"""Values of a tensor that its digest reads: two models that differ, differ in most of their weights."""


def fingerprint(
    args: PPOConfig,
    prompts: PromptSet,
    sampling: Sampling,
    actor_critic: ActorCritic,
    reference: Reference,
    rewards: Sequence[Reward],
) -> dict[str, Any]:
    """What must be the same when a run goes on, by what a person calls it; values are plain JSON.

    A model counts by its weights wherever it lies; of the policy those that stay as they were: of the reference, or
    below the adapter. A function counts by its name. Ask while the weights are whole and as they were.
    """
    frozen = reference.separate.causal_lm if reference.separate is not None else base_of(actor_critic.policy.model)
    found: dict[str, Any] = {
        "training prompts": digest_of_prompts(prompts),
        "reference": digest_of_weights(frozen, adapters=False),
    }
    for number, reward in enumerate(rewards, 1):
        found[f"reward {number}"] = _digest_of_reward(reward)
    settings = {name: getattr(args, name) for name in SETTINGS}
    return found | settings | {"stop tokens": sorted(sampling.stop_tokens)}


def digest_of_prompts(prompts: PromptSet) -> str:
    """Of the token ids in their order."""
    digest = hashlib.sha256()
    for ids in prompts.dataset["input_ids"]:
        digest.update(np.asarray([len(ids), *ids], dtype=np.int64).tobytes())
    return digest.hexdigest()[:12]


@torch.no_grad()
def digest_of_weights(model: nn.Module, *, adapters: bool = True) -> str:
    """Of names, shapes and some values of a model's weights, with or without those of LoRA adapters."""
    digest = hashlib.sha256()
    for name, tensor in model.named_parameters():
        if "lora_" in name and not adapters:
            continue
        positions = torch.linspace(0, tensor.numel() - 1, min(VALUES, tensor.numel()), device=tensor.device).long()
        values = tensor.reshape(-1)[positions].double().cpu().numpy()
        digest.update(f"{name} {tuple(tensor.shape)}".encode() + values.tobytes())
    return digest.hexdigest()[:12]


def _digest_of_reward(reward: Reward) -> str:
    if isinstance(reward, FunctionReward):
        return getattr(reward.function, "__name__", type(reward.function).__name__)
    return digest_of_weights(reward.model) if isinstance(reward.model, nn.Module) else reward.name
