"""From the settings to the rollout engine."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from accelerate import Accelerator
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlhf.ppo.config import PPOConfig
from rlhf.ppo.engines.interface import Engine
from rlhf.ppo.engines.of_transformers import ContinuousBatchingEngine, GenerateEngine
from rlhf.ppo.generation import Response, Sampling, generate
from rlhf.ppo.models import base_of


class PlumblineEngine(Engine):
    """The trainer's own sampler (`rlhf.ppo.generation`), over the very weights that are trained."""

    def __init__(self, model: PreTrainedModel, sampling: Sampling) -> None:
        self.model, self.sampling = model, sampling

    def generate(self, prompts: Sequence[list[int]], noise: np.ndarray) -> list[Response]:
        """Sample a response to each prompt with its own random numbers."""
        return generate(self.model, prompts, noise, self.sampling)


def make_engine(
    args: PPOConfig,
    policy: PreTrainedModel | PeftModel,
    sampling: Sampling,
    tokenizer: PreTrainedTokenizerBase,
    accelerator: Accelerator,
) -> Engine:
    """The engine that `args.rollout_engine` names.

    Args:
        args: the settings.
        policy: what is sampled from, with its adapter active where it has one.
        sampling: how.
        tokenizer: of the policy.
        accelerator: of the trainer.

    Raises:
        UserError: the engine cannot be had here, or not for this policy.
    """
    if args.rollout_engine == "vllm":
        from rlhf.ppo.engines.of_vllm import VLLMEngine  # imports vllm, which most do not have

        return VLLMEngine(args, policy, sampling, tokenizer, accelerator)
    model = base_of(policy)
    if args.rollout_engine == "continuous_batching":
        config = args.transformers_continuous_batching_config
        assert not isinstance(config, str), "the settings read JSON"
        return ContinuousBatchingEngine(model, sampling, config)
    return GenerateEngine(model, sampling) if args.rollout_engine == "generate" else PlumblineEngine(model, sampling)
