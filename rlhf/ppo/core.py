"""The arithmetic of PPO as pure functions of tensors.

Per-token tensors are `(batch, response)`: row `i` holds the values of response `i` at its tokens, right-padded, and
`mask` tells which are real. Per-sequence tensors are `(batch,)`. Packed tensors `(tokens,)` hold real tokens alone.
Whatever is a mean or a variance takes `reduce`, which sums a tensor over all processes, so that a figure does not
depend on how the batch is spread over them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

Reduce = Callable[[Tensor], Tensor]


def _one_process(tensor: Tensor) -> Tensor:
    return tensor


def masked_mean(values: Tensor, mask: Tensor, reduce: Reduce = _one_process) -> Tensor:
    """Mean of the real entries over all processes; 0 where there is none."""
    total, count = reduce(torch.stack([(values * mask).sum(), mask.sum().to(values.dtype)]))
    return total / count.clamp(min=1)


def masked_whiten(values: Tensor, mask: Tensor, *, shift_mean: bool = True, reduce: Reduce = _one_process) -> Tensor:
    """Scale the real entries to variance 1 and, with `shift_mean`, to mean 0, over all processes together.

    The variance is the unbiased one. Padding becomes 0. A batch of one token has no variance: it is only shifted.
    """
    mean = masked_mean(values, mask, reduce)
    deviation = (values - mean) * mask
    squares, count = reduce(torch.stack([deviation.square().sum(), mask.sum().to(values.dtype)]))
    scale = torch.rsqrt(squares / (count - 1) + 1e-8) if count > 1 else torch.ones_like(squares)
    return deviation * scale if shift_mean else (deviation * scale + mean) * mask


def per_token_kl(logprobs: Tensor, ref_logprobs: Tensor, estimator: str) -> Tensor:
    """Estimate KL(policy ‖ reference) at each sampled token (http://joschu.net/blog/kl-approx.html).

    `k1` is unbiased and may be negative at a token; `k3` is never negative and has less variance.
    """
    log_ratio = ref_logprobs - logprobs
    return -log_ratio if estimator == "k1" else torch.expm1(log_ratio) - log_ratio


def end_token_scores(scores: Tensor, ended: Tensor, missing_eos_penalty: float | None) -> Tensor:
    """Subtract the penalty from the scores `(batch,)` of responses that did not end by a stop token.

    It belongs after every normalisation of the scores, so that its size keeps its meaning.
    """
    if missing_eos_penalty is None:
        return scores
    return torch.where(ended, scores, scores - missing_eos_penalty)


def token_rewards(kl: Tensor, scores: Tensor, lengths: Tensor, kl_coef: float) -> Tensor:
    """Reward of each token `(batch, response)`: the KL penalty, and at the response's last token the score too."""
    rewards = -kl_coef * kl
    last = (lengths - 1).unsqueeze(1)
    return rewards.scatter_add(1, last, scores.unsqueeze(1).to(rewards.dtype))


def generalized_advantage_estimation(
    rewards: Tensor, values: Tensor, mask: Tensor, *, gamma: float, lam: float, final_values: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Advantages and returns `(batch, response)` by GAE (arXiv:1506.02438).

    Args:
        rewards: of each token.
        values: the critic's value of the state before each token.
        mask: which tokens are real; they are contiguous from the left.
        gamma, lam: discount and the trace's decay.
        final_values: `(batch,)`, value of the state after the last token; None (or 0) where the episode is over.
    """
    mask = mask.to(rewards.dtype)
    rewards, values = rewards * mask, values * mask
    lengths = mask.sum(dim=1, dtype=torch.long)
    next_values = torch.cat([values[:, 1:], torch.zeros_like(values[:, :1])], dim=1)
    if final_values is not None:
        next_values = next_values.scatter(1, (lengths - 1).unsqueeze(1), final_values.unsqueeze(1).to(values.dtype))
    deltas = (rewards + gamma * next_values - values) * mask
    advantages = torch.empty_like(deltas)
    trace = torch.zeros_like(deltas[:, 0])
    for position in reversed(range(deltas.shape[1])):
        trace = deltas[:, position] + gamma * lam * trace
        advantages[:, position] = trace
    return advantages, advantages + values


class ClippedLoss(NamedTuple):
    """A loss at each token, and where the clipped branch was the larger one (1.0 or 0.0)."""

    loss: Tensor
    clipped: Tensor


def policy_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    cliprange: float,
    cliprange_high: float | None = None,
    dual_clip: float | None = None,
    weights: Tensor | None = None,
) -> ClippedLoss:
    """PPO's clipped surrogate objective, as a loss at each token (arXiv:1707.06347, equation 7).

    Args:
        logprobs, old_logprobs: of the sampled tokens, under the new policy and under that of the rollout.
        advantages: of the tokens.
        cliprange: the ratio counts down to 1 less this, and up to 1 more than this.
        cliprange_high: up to 1 more than this instead (clip-higher, arXiv:2503.14476, section 3.1).
        dual_clip: where the advantage is negative, the ratio counts up to this (arXiv:1912.09729, equation 5).
        weights: of each token's loss, for tokens that another policy than the old one sampled (`rlhf.ppo.mismatch`).
    """
    ratio = torch.exp(logprobs - old_logprobs)
    unclipped = -advantages * ratio
    clipped = -advantages * ratio.clamp(1 - cliprange, 1 + (cliprange if cliprange_high is None else cliprange_high))
    loss, is_clipped = torch.maximum(unclipped, clipped), clipped > unclipped
    if dual_clip is not None:
        bound = -advantages * dual_clip
        beyond = (advantages < 0) & (loss > bound)
        loss, is_clipped = torch.where(beyond, bound, loss), is_clipped | beyond
    if weights is not None:
        loss = weights * loss
    return ClippedLoss(loss, is_clipped.to(logprobs.dtype))


def value_loss(values: Tensor, old_values: Tensor, returns: Tensor, cliprange_value: float) -> ClippedLoss:
    """Half the squared error of the value, at each token, with the new value kept near the one of the rollout."""
    near = torch.clamp(values, old_values - cliprange_value, old_values + cliprange_value)
    unclipped, clipped = (values - returns).square(), (near - returns).square()
    return ClippedLoss(0.5 * torch.maximum(unclipped, clipped), (clipped > unclipped).to(values.dtype))


class KLController:
    """The coefficient of the KL penalty: fixed, or adapted towards a target (arXiv:1909.08593, section 2.2).

    Args:
        coefficient: the first one.
        target: mean KL of a response to steer to, in nats; None keeps the coefficient fixed.
        horizon: episodes over which the coefficient may change by about a factor e.
    """

    def __init__(self, coefficient: float, target: float | None = None, horizon: int = 10_000) -> None:
        self.coefficient, self.target, self.horizon = coefficient, target, horizon

    def update(self, kl: float, episodes: int) -> None:
        """Move the coefficient after a rollout of `episodes` responses whose mean KL was `kl`."""
        if self.target is not None:
            error = min(max(kl / self.target - 1, -0.2), 0.2)
            self.coefficient *= 1 + error * episodes / self.horizon


class RunningMoments:
    """Mean and variance of all scores seen so far, over all processes (Chan's parallel update)."""

    def __init__(self) -> None:
        self.count, self.mean, self.squares = 0.0, 0.0, 0.0

    def update(self, scores: Tensor, reduce: Reduce = _one_process) -> None:
        """Take in a batch of scores."""
        scores = scores.double()
        total, count = reduce(torch.stack([scores.sum(), scores.new_tensor(len(scores))])).tolist()
        mean = total / count
        squares = reduce((scores - mean).square().sum()).item()
        shift, together = mean - self.mean, self.count + count
        self.squares += squares + shift**2 * self.count * count / together
        self.mean += shift * count / together
        self.count = together

    @property
    def std(self) -> float:
        """Unbiased standard deviation; 1 before there are two scores that differ."""
        return (self.squares / (self.count - 1)) ** 0.5 if self.count > 1 and self.squares > 0 else 1.0

    def normalise(self, scores: Tensor) -> Tensor:
        """Scores with the running mean taken off, divided by the running standard deviation."""
        return (scores - self.mean) / self.std
