"""What a PPO run will hold in memory: a plan in bytes, from the models and the settings, before any training."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch

from plumbline.console import amount
from rlhf.ppo.config import PPOConfig
from rlhf.ppo.models import LOGITS_AT_ONCE

PROGRAM = 3 * 2**28
"""Bytes of Python and the libraries on a CPU, about as many of the CUDA context and its kernels on a GPU."""

COPIES_OF_LOGITS = 5
"""Float32 copies of a chunk's logits at the worst moment, as measured; see docs/ppo-check.md."""

BYTES_OF_SAMPLING = 4 + 4 + 8 + 8
"""Bytes a logit of the token being sampled: itself, its probability, that in float64, and the running sum."""


@dataclass(frozen=True)
class Footprint:
    """What the plan needs to know of the models; all in bytes but the vocabulary.

    Attributes:
        weights: by role (`policy`, `reference`, …); what a role shares with one before it counts for that alone.
        trained: weights that are trained, of policy and critic.
        cache_per_token: keys and values of a token in all layers of the policy.
        activations: what is kept for a backward pass (of the larger of policy and critic, or of both) whatever the
            number of tokens.
        activations_per_token: and for each token.
        vocabulary: rows of the policy's output head.
    """

    weights: dict[str, int]
    trained: int
    cache_per_token: int
    activations: int
    activations_per_token: int
    vocabulary: int


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes by what holds them. A rollout and its update alternate, so only the larger of the two counts."""

    always: dict[str, int]
    rollout: dict[str, int]
    update: dict[str, int]

    @property
    def total(self) -> int:
        """The peak."""
        return sum(self.always.values()) + max(sum(self.rollout.values()), sum(self.update.values()))

    def parts(self) -> dict[str, int]:
        """All parts by name."""
        return self.always | self.rollout | self.update

    def in_words(self) -> str:
        """The parts in one line."""
        always, rollout, update = (
            ", ".join(f"{name} {amount(size)}" for name, size in part.items() if size)
            for part in (self.always, self.rollout, self.update)
        )
        return f"always: {always}; in a rollout: {rollout}; in its update: {update}"


def plan_memory(footprint: Footprint, args: PPOConfig, longest_prompt: int) -> MemoryPlan:
    """What a run will hold at its peak on each process.

    On a CPU what comes and goes counts twice: freed memory stays with the process, in pieces that the next tensors do
    not fit. Left out: the reward model's activations while it scores (a layer at a time), what a GPU's allocator cannot
    use, and buffers of communication between processes.

    Args:
        footprint: of the models.
        args: settings, as the trainer keeps them (batch sizes filled in).
        longest_prompt: in tokens.
    """
    assert args.local_batch_size is not None, "the settings are a trainer's own (`trainer.args`)"
    longest = longest_prompt + args.response_length
    sampled_at_once = min(args.local_rollout_forward_batch_size, args.local_batch_size)
    rows = args.per_device_train_batch_size
    if args.micro_batch_tokens is not None:
        rows = max(1, args.micro_batch_tokens // longest)
    rows = min(rows, args.local_batch_size // args.num_mini_batches)
    logits = min(rows * args.response_length * footprint.vocabulary, LOGITS_AT_ONCE)
    always = {
        "program": PROGRAM,
        **footprint.weights,
        "optimizer": int(footprint.trained * _optimizer_states(str(args.optim))),
    }
    rollout = {
        "key-value cache": sampled_at_once * longest * footprint.cache_per_token,
        "sampling": sampled_at_once * footprint.vocabulary * BYTES_OF_SAMPLING,
    }
    update = {
        "gradients": footprint.trained,
        "activations": footprint.activations + rows * longest * footprint.activations_per_token,
        "logits": logits * 4 * COPIES_OF_LOGITS,
    }
    if args.rollout_engine == "vllm":
        rollout = {}  # its cache and samples are in its own share
    if args.device.type == "cpu":
        always["kept by the allocator"] = max(sum(rollout.values()), sum(update.values()))
    if args.rollout_engine == "vllm" and args.vllm_mode == "colocate":
        share = int(args.vllm_gpu_memory_utilization * machine_memory(args.device)[0])
        (rollout if args.vllm_enable_sleep_mode else always)["vLLM"] = share  # asleep, it frees it for the update
    return MemoryPlan(always, rollout, update)


def _optimizer_states(optim: str) -> float:
    """Bytes of optimizer states for each byte of a trained weight in float32; AdamW keeps two moments."""
    name = optim.rsplit(".", 1)[-1].lower()
    if name in ("sgd", "adafactor"):  # Adafactor keeps sums of rows and columns
        return 0.0
    return 0.5 if "8bit" in name else 2.0


def machine_memory(device: torch.device) -> tuple[int, str]:
    """Bytes of memory that a device has, and its name; of a CPU, what this process may use."""
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        return properties.total_memory, properties.name
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = Path("/sys/fs/cgroup/memory.max")  # of a container
    if limit.is_file() and (text := limit.read_text().strip()).isdigit():
        memory = min(memory, int(text))
    return memory, "this machine's memory"
