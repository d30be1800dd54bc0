"""Plumbline's own engine: sampling responses from the policy that is being trained.

It does what PPO needs of a sampler and no more: it samples from softmax(logits / temperature) itself, the law
that the update differentiates (no top-k, no top-p), with random numbers that belong to the episode, so that a response
does not depend on what else is in the batch, on padding or on the number of processes. Rows that have ended leave the
batch, and the key-value cache is written in place.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from plumbline.errors import UserError
from plumbline.generation import make_room

PADDING = 0
"""Any id of the vocabulary does: padding is never attended to and never learned from."""

WORTH_RELEASING = 0.25
"""Share of ended rows in a batch from which taking them out saves more than moving the cache costs."""


@dataclass(frozen=True)
class Response:
    """A sampled response.

    Attributes:
        tokens: their ids, the stop token included.
        ended: whether a stop token ended them (else the length limit did).
        logprobs: log-probability with which each token was drawn; None where the engine does not know it. It is no
            part of what makes two responses equal, as it is rounded differently in other batches.
    """

    tokens: list[int]
    ended: bool
    logprobs: Sequence[float | None] = field(default=(), compare=False)


@dataclass(frozen=True)
class Sampling:
    """How responses are sampled.

    Attributes:
        temperature: divides the logits.
        max_new_tokens: longest response.
        stop_tokens: any of them ends a response; empty means that no response ends early.
        batch_rows: responses made at once.
    """

    temperature: float
    max_new_tokens: int
    stop_tokens: Collection[int]
    batch_rows: int = 64


@torch.no_grad()
def generate(
    model: PreTrainedModel, prompts: Sequence[list[int]], noise: np.ndarray, sampling: Sampling
) -> list[Response]:
    """Sample a response to each prompt.

    Args:
        model: a causal language model (with its adapters, where it has any, active).
        prompts: token ids.
        noise: `(prompts, max_new_tokens)`, uniform in [0, 1): the random numbers of each response.
        sampling: how.

    Returns:
        Responses in the order of the prompts; each has at least one token.

    Raises:
        UserError: the model's logits are NaN.
    """
    order = sorted(range(len(prompts)), key=lambda index: (len(prompts[index]), index))
    found: dict[int, Response] = {}
    was_training = model.training
    model.eval()
    for start in range(0, len(order), sampling.batch_rows):
        rows = order[start : start + sampling.batch_rows]
        batch = _Batch(model, [prompts[row] for row in rows], noise[rows], sampling)
        found.update(zip(rows, batch.run(), strict=True))
    model.train(was_training)
    return [found[index] for index in range(len(prompts))]


class _Batch:
    """Responses that are sampled together: the live rows, and what the ended ones said."""

    def __init__(
        self, model: PreTrainedModel, prompts: Sequence[list[int]], noise: np.ndarray, sampling: Sampling
    ) -> None:
        self.model, self.sampling = model, sampling
        longest = max(map(len, prompts))
        device = model.get_input_embeddings().weight.device
        ids = [[PADDING] * (longest - len(prompt)) + prompt for prompt in prompts]
        self.ids = torch.tensor(ids, device=device)
        lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
        capacity = longest + sampling.max_new_tokens
        self.mask = (torch.arange(capacity, device=device) >= (longest - lengths).unsqueeze(1)).long()
        self.noise = torch.from_numpy(noise).to(device)
        self.stop = torch.tensor(sorted(sampling.stop_tokens), device=device, dtype=torch.long)
        self.cache = DynamicCache(config=model.config)
        self.rows = list(range(len(prompts)))  # which prompt each row of the batch answers
        self.live = torch.ones(len(prompts), dtype=torch.bool, device=device)
        self.tokens: list[list[int]] = [[] for _ in prompts]
        self.logprobs: list[list[float]] = [[] for _ in prompts]
        self.ended = [False] * len(prompts)
        accepted = inspect.signature(model.forward).parameters
        self.takes_positions = "position_ids" in accepted
        self.last_logits = {"logits_to_keep": 1} if "logits_to_keep" in accepted else {}

    def run(self) -> list[Response]:
        """Sample until every row has ended or is as long as it may be."""
        for position in range(self.sampling.max_new_tokens):
            sampled, logprobs = sample(self._logits(), self.noise[:, position], self.sampling.temperature)
            if position == 0:
                make_room(self.cache, self.sampling.max_new_tokens)
            if logprobs.isnan().any():
                raise UserError(
                    "the policy's logits are NaN, so nothing can be sampled: the training has diverged. Go on from an "
                    "earlier checkpoint, or start anew, with a lower learning_rate."
                )
            stopped = torch.isin(sampled, self.stop) & self.live
            for row, token, logprob, live, stop in zip(
                self.rows, sampled.tolist(), logprobs.tolist(), self.live.tolist(), stopped.tolist(), strict=True
            ):
                if live:
                    self.tokens[row].append(token)
                    self.logprobs[row].append(logprob)
                    self.ended[row] = stop
            self.ids = sampled.unsqueeze(1)
            self.live &= ~stopped
            live_rows = int(self.live.sum())
            if not live_rows:
                break
            if len(self.rows) - live_rows >= WORTH_RELEASING * len(self.rows):
                self._release_ended()
        return [Response(*parts) for parts in zip(self.tokens, self.ended, self.logprobs, strict=True)]

    def _logits(self) -> Tensor:
        length = self.cache.get_seq_length() + self.ids.shape[1]
        mask = self.mask[:, :length]
        positions = {}
        if self.takes_positions:
            positions["position_ids"] = (mask.cumsum(dim=1) - 1).clamp(min=0)[:, -self.ids.shape[1] :]
        output = self.model(
            input_ids=self.ids,
            attention_mask=mask,
            past_key_values=self.cache,
            use_cache=True,
            **positions,
            **self.last_logits,
        )
        return output.logits[:, -1]

    def _release_ended(self) -> None:
        kept = self.live.nonzero().squeeze(1)
        self.rows = [self.rows[row] for row in kept.tolist()]
        self.ids, self.mask, self.noise, self.live = (x[kept] for x in (self.ids, self.mask, self.noise, self.live))
        self.cache.batch_select_indices(kept)


def sample(logits: Tensor, noise: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Draw one token of each row from softmax(logits / temperature), by inverting the distribution function.

    Args:
        logits: `(batch, vocabulary)`.
        noise: `(batch,)`, uniform in [0, 1), float64.
        temperature: above 0.

    Returns:
        Token ids and their log-probabilities, both `(batch,)`; a token of probability 0 is never drawn. Logits of NaN
        give a log-probability of NaN.
    """
    probabilities = torch.softmax(logits.float() / temperature, dim=-1)
    distribution = probabilities.double().cumsum(dim=-1)
    threshold = noise.to(distribution.dtype).unsqueeze(1) * distribution[:, -1:]
    # The clamp is for a product that rounds up to the whole mass: it then takes the last token that has any.
    last = torch.searchsorted(distribution, distribution[:, -1:].contiguous())
    tokens = torch.minimum(torch.searchsorted(distribution, threshold, right=True), last)
    tokens = tokens.clamp(max=logits.shape[-1] - 1)  # of NaN the search finds none
    return tokens.squeeze(1), probabilities.gather(1, tokens).log().squeeze(1)
