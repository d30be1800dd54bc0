"""A rollout: sequences, what every model said about their tokens, and the advantages that PPO learns from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from rlhf.ppo.core import (
    Reduce,
    end_token_scores,
    generalized_advantage_estimation,
    masked_whiten,
    per_token_kl,
    token_rewards,
)
from rlhf.ppo.generation import PADDING, Response


@dataclass(frozen=True)
class MicroBatch:
    """Some sequences of a rollout, trimmed to the longest of them.

    Attributes:
        rows: their positions in the rollout.
        input_ids: `(rows, seq)`, prompt and response back to back, right-padded.
        response_mask: `(rows, seq)`, true at the response's tokens.
    """

    rows: Tensor
    input_ids: Tensor
    response_mask: Tensor


@dataclass
class Rollout:
    """The episodes that one process made with one state of the policy.

    Attributes:
        number: which rollout of the run.
        sequences: `(batch, seq)`, prompt and response back to back, right-padded.
        prompt_lengths, response_lengths: `(batch,)`.
        ended: `(batch,)`, whether a stop token ended the response.
        mask: `(batch, response)`, which response tokens are real.
        logprobs, ref_logprobs: `(batch, response)`, under the policy of the rollout and under the reference.
        sampling_logprobs: `(batch, response)`, with which the engine drew each token; NaN where it did not say.
        importance_weights: `(batch, response)`, of the policy loss of each token; None: 1 each.
        values: `(batch, response)`, the critic's value before each token.
        final_values: `(batch,)`, the critic's value after the last token.
        entropy: `(batch, response)`, of the policy's distribution at each token.
        advantages, returns: `(batch, response)`, set by `estimate_advantages`.
    """

    number: int
    sequences: Tensor
    prompt_lengths: Tensor
    response_lengths: Tensor
    ended: Tensor
    sampling_logprobs: Tensor
    importance_weights: Tensor | None = field(default=None, init=False)
    mask: Tensor = field(init=False)
    logprobs: Tensor = field(init=False)
    ref_logprobs: Tensor = field(init=False)
    values: Tensor = field(init=False)
    final_values: Tensor = field(init=False)
    entropy: Tensor = field(init=False)
    advantages: Tensor = field(init=False)
    returns: Tensor = field(init=False)

    def __post_init__(self) -> None:
        positions = torch.arange(int(self.response_lengths.max()), device=self.sequences.device)
        self.mask = positions < self.response_lengths.unsqueeze(1)
        empty = torch.zeros(self.mask.shape, device=self.sequences.device)
        self.logprobs, self.ref_logprobs, self.values, self.entropy = (empty.clone() for _ in range(4))
        self.final_values = torch.zeros(len(self.sequences), device=self.sequences.device)

    @classmethod
    def of_responses(
        cls, number: int, prompts: Sequence[list[int]], responses: Sequence[Response], device: torch.device
    ) -> Rollout:
        """Lay prompts and responses out as one batch."""
        rows = [prompt + response.tokens for prompt, response in zip(prompts, responses, strict=True)]
        longest = max(map(len, rows))
        return cls(
            number=number,
            sequences=torch.tensor([row + [PADDING] * (longest - len(row)) for row in rows], device=device),
            prompt_lengths=torch.tensor([len(prompt) for prompt in prompts], device=device),
            response_lengths=torch.tensor([len(response.tokens) for response in responses], device=device),
            ended=torch.tensor([response.ended for response in responses], device=device),
            sampling_logprobs=torch.tensor(_known_logprobs(responses), device=device),
        )

    @property
    def lengths(self) -> list[int]:
        """Tokens of each sequence, prompt and response."""
        return (self.prompt_lengths + self.response_lengths).tolist()

    def micro_batch(self, rows: Sequence[int]) -> MicroBatch:
        """Some rows as a batch for the models."""
        index = torch.tensor(rows, device=self.sequences.device)
        starts = self.prompt_lengths[index]
        ends = starts + self.response_lengths[index]
        longest = int(ends.max())
        positions = torch.arange(longest, device=self.sequences.device)
        response = (positions >= starts.unsqueeze(1)) & (positions < ends.unsqueeze(1))
        return MicroBatch(index, self.sequences[index, :longest], response)

    def packed(self, tensor: Tensor, batch: MicroBatch) -> Tensor:
        """The entries `(tokens,)` of a per-token tensor that belong to the response tokens of a batch."""
        return tensor[batch.rows][self.mask[batch.rows]]

    def store(self, tensor: Tensor, batch: MicroBatch, packed: Tensor) -> None:
        """Write packed entries `(tokens,)` of a batch into a per-token tensor `(batch, response)`."""
        part = torch.zeros(len(batch.rows), tensor.shape[1], dtype=tensor.dtype, device=tensor.device)
        part[self.mask[batch.rows]] = packed.to(tensor.dtype)
        tensor[batch.rows] = part

    def kl(self, estimator: str) -> Tensor:
        """Estimated KL to the reference at each token `(batch, response)`; 0 at padding."""
        return per_token_kl(self.logprobs, self.ref_logprobs, estimator) * self.mask

    def estimate_advantages(
        self,
        scores: Tensor,
        *,
        kl_coef: float,
        kl_estimator: str,
        missing_eos_penalty: float | None,
        bootstrap_truncated: bool,
        whiten_rewards: bool,
        gamma: float,
        lam: float,
        reduce: Reduce,
    ) -> Tensor:
        """Set `advantages` (whitened over all processes) and `returns` from normalised scores `(batch,)`.

        Returns:
            The scores after the end-token rule.
        """
        scores = end_token_scores(scores, self.ended, missing_eos_penalty)
        rewards = token_rewards(self.kl(kl_estimator), scores, self.response_lengths, kl_coef)
        if whiten_rewards:
            rewards = masked_whiten(rewards, self.mask, shift_mean=False, reduce=reduce)
        after_the_end = self.final_values * ~self.ended if bootstrap_truncated else None
        advantages, self.returns = generalized_advantage_estimation(
            rewards, self.values, self.mask, gamma=gamma, lam=lam, final_values=after_the_end
        )
        self.advantages = masked_whiten(advantages, self.mask, reduce=reduce)
        return scores


def _known_logprobs(responses: Sequence[Response]) -> list[list[float]]:
    longest = max(len(response.tokens) for response in responses)
    rows = [[torch.nan if value is None else value for value in response.logprobs] for response in responses]
    return [row + [torch.nan] * (longest - len(row)) for row in rows]


def state_values(values: Tensor, batch: MicroBatch) -> tuple[Tensor, Tensor]:
    """Of values `(rows, seq)` after each token: those before each response token, packed, and those after the last."""
    before = values[:, :-1][batch.response_mask[:, 1:]]
    positions = torch.arange(values.shape[1], device=values.device)
    last = (positions * batch.response_mask).amax(dim=1, keepdim=True)
    return before, values.gather(1, last).squeeze(1)
