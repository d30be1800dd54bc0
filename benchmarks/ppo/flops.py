"""The floating-point operations that a rollout of PPO needs, for the share of the processor's peak that is put to use.

A multiplication and an addition are two operations; a matrix of N weights takes 2N a token forward, and backward twice
that (with LoRA once: the frozen weights need no gradient of their own). Attention over earlier tokens is left out, as
is usual, so that long sequences show less than they use. Both sides are charged the same: what PPO needs, whatever a
trainer computes besides, padding included.
"""

from __future__ import annotations

PEAK_TFLOPS = {"H200": 989.0, "H100": 989.0, "A100": 312.0, "L40S": 362.0}
"""Dense bfloat16 peak of some GPUs, by a part of their name, as the vendor states it."""


def peak_of(device: str) -> float | None:
    """Peak in TFLOP/s of a GPU by its name; None where it is not known."""
    return next((peak for name, peak in PEAK_TFLOPS.items() if name in device), None)


def rollout_flops(
    *, body: int, head: int, prompt_tokens: float, response_tokens: float, epochs: int, lora: bool
) -> dict[str, float]:
    """Operations of each phase for one episode and what is learned from it.

    Args:
        body: weights of a model's layers, embeddings and head left out; policy, reference, critic and reward are alike.
        head: weights from the last hidden state to the vocabulary, used at response tokens only.
        prompt_tokens, response_tokens: of an episode.
        epochs: times that the episode is learned from.
        lora: only adapters are trained.
    """
    classifier = 2 * body * (prompt_tokens + response_tokens)
    policy = classifier + 2 * head * response_tokens
    passes = 2 if lora else 3
    return {
        "generation": policy,
        "scoring": policy + 2 * classifier,  # reference; critic and reward
        "update": epochs * passes * (policy + classifier),
    }
