"""vLLM as a rollout engine, colocated or served, through TRL's own `VLLMGeneration`.

Not yet run on its hardware: it is tested against the protocol of `vllm serve` and the interface of `vllm.LLM`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from accelerate import Accelerator
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from plumbline.errors import UserError
from rlhf.ppo.config import PPOConfig
from rlhf.ppo.engines.interface import Engine, finished
from rlhf.ppo.generation import PADDING, Response, Sampling
from rlhf.ppo.models import base_of
from rlhf.ppo.sharded import max_over_processes


class VLLMEngine(Engine):
    """A copy of the policy in vLLM, which gets the weights when they have changed, adapters merged into them.

    vLLM draws its own random numbers. It takes one seed for a whole call and gives it to each prompt, whose random
    numbers would then be the same; so none is passed.

    Args:
        args: the settings `vllm_…`.
        policy: the policy; the weights that vLLM begins with are those at its `name_or_path`.
        sampling: how.
        tokenizer: of the policy.
        accelerator: of the trainer.

    Raises:
        UserError: vLLM or its server cannot be had, or the policy is quantised or in no folder.
    """

    reads_policy = False

    def __init__(
        self,
        args: PPOConfig,
        policy: PreTrainedModel | PeftModel,
        sampling: Sampling,
        tokenizer: PreTrainedTokenizerBase,
        accelerator: Accelerator,
    ) -> None:
        if getattr(base_of(policy), "is_quantized", False):
            raise UserError(
                "rollout_engine 'vllm' gets the policy's weights with the adapter merged, which quantised weights "
                "cannot be without loss: leave out load_in_4bit, or take another rollout_engine."
            )
        if args.vllm_mode == "colocate" and not base_of(policy).name_or_path:
            raise UserError(
                "a colocated vLLM loads the policy from its folder or hub name, and this policy has none: save it, and "
                "give PPOTrainer the folder as model."
            )
        self.policy, self.sampling, self.accelerator = policy, sampling, accelerator
        self._sleeps = args.vllm_mode == "colocate" and args.vllm_enable_sleep_mode
        self._outdated = True
        try:
            from trl.generation.vllm_generation import VLLMGeneration

            self.vllm = VLLMGeneration(policy, accelerator, tokenizer, logprobs=0, **_options(args), **_law(sampling))
            if args.corrects_sampling and args.vllm_mode == "server" and accelerator.is_main_process:
                _check_logprobs(self.vllm.vllm_client.get_server_info()["model_config"]["logprobs_mode"])
        except (OSError, ImportError, RuntimeError, ValueError) as error:
            raise UserError(f"rollout_engine 'vllm', vllm_mode {args.vllm_mode!r}: {error}") from error

    def weights_changed(self) -> None:
        """Send the weights before the next response."""
        self._outdated = True

    def generate(self, prompts: Sequence[list[int]], noise: np.ndarray) -> list[Response]:
        """Sample responses to the prompts; `noise` is not used."""
        if self._outdated or self._sleeps:  # asleep, vLLM forgets its weights
            self._send_weights()
        # TRL hands out the gathered responses in equal parts, so that each process must ask for as many.
        rows = len(prompts)
        if self.accelerator.num_processes > 1:
            rows = max_over_processes(rows, self.accelerator.device)
        if not rows:
            return []
        asked = [*prompts, *([[PADDING]] * (rows - len(prompts)))]
        _, tokens, logprobs, _ = self.vllm.generate(prompts=asked, images=None, num_generations=1)
        return [
            finished(ids, [drawn[0] for drawn in values], self.sampling)
            for ids, values, _ in zip(tokens, logprobs, prompts, strict=False)
        ]

    def _send_weights(self) -> None:
        if self.accelerator.is_fsdp2 and not any(isinstance(weight, DTensor) for weight in self.policy.parameters()):
            raise UserError(
                "rollout_engine 'vllm' gets its weights as FSDP2 splits them, which it does when the training begins: "
                "call train() before anything else is sampled."
            )
        with unchanged_base(self.policy):
            self.vllm.sync_weights()
        self._outdated = False


def _options(args: PPOConfig) -> dict[str, Any]:
    """Arguments of `VLLMGeneration`, which drop the prefix that the settings have."""
    names = (
        "mode",
        "server_base_url",
        "server_host",
        "server_port",
        "server_timeout",
        "group_port",
        "tensor_parallel_size",
        "gpu_memory_utilization",
        "max_model_length",
        "enable_sleep_mode",
        "model_impl",
    )
    return {name: getattr(args, f"vllm_{name}") for name in names}


def _law(sampling: Sampling) -> dict[str, Any]:
    """Arguments of `VLLMGeneration` that sample from the whole distribution and stop at the stop tokens alone."""
    return {
        "temperature": sampling.temperature,
        "top_p": 1.0,
        "top_k": 0,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "max_completion_length": sampling.max_new_tokens,
        "generation_kwargs": {"stop_token_ids": sorted(sampling.stop_tokens), "ignore_eos": True},
    }


def _check_logprobs(mode: str) -> None:
    """Refuse log-probabilities that are not those of the law that was sampled from: without the temperature."""
    if mode != "processed_logprobs":
        raise UserError(
            f"the vLLM server runs with --logprobs-mode {mode}, so that the correction of the mismatch would be wrong: "
            "start it with --logprobs-mode processed_logprobs, or set importance_sampling_correction to false."
        )


@contextmanager
def unchanged_base(policy: PreTrainedModel | PeftModel) -> Iterator[None]:
    """Give the weights below a policy's adapters back bit by bit, in which merging and unmerging leaves rounding.

    Other roles stand on the same base in memory; the reference would drift away.
    """
    layers = [module for module in policy.modules() if isinstance(module, BaseTunerLayer)]
    weights = {id(weight): weight for layer in layers for weight in layer.get_base_layer().parameters()}.values()
    copies = [_own_part(weight).to("cpu", copy=True) for weight in weights]
    try:
        yield
    finally:
        for weight, copy in zip(weights, copies, strict=True):
            _own_part(weight).copy_(copy)


def _own_part(weight: Tensor) -> Tensor:
    """What this process holds of a weight."""
    return weight.detach().to_local() if isinstance(weight, DTensor) else weight.detach()
