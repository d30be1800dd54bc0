"""Engines of transformers: its `generate`, and its continuous batching."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, PreTrainedModel
from transformers.generation import ContinuousBatchingConfig

from plumbline.errors import UserError
from rlhf.ppo.data import split_rows
from rlhf.ppo.engines.interface import Engine, finished
from rlhf.ppo.generation import PADDING, Response, Sampling

MEMORY_SHARE = 0.5
"""Of the free GPU memory, for the cache of continuous batching, as TRL has it: the update needs room too."""

TOKENS_AT_ONCE_ON_CPU = 1024
"""Tokens of a forward of continuous batching on a CPU, where its attention mask is `(tokens, cache + tokens)`."""

INSTEAD = "Change transformers_continuous_batching_config, or take rollout_engine 'plumbline'."


class GenerateEngine(Engine):
    """`model.generate`, for models whose sampling needs something of their own there."""

    def __init__(self, model: PreTrainedModel, sampling: Sampling) -> None:
        self.model, self.sampling = model, sampling

    @torch.no_grad()
    def generate(self, prompts: Sequence[list[int]], noise: np.ndarray) -> list[Response]:
        """Sample responses to the prompts in batches of like length, left-padded."""
        found: dict[int, Response] = {}
        # The temperature is that of `SampledLogprobs`, which is the only processor.
        config = GenerationConfig(**_law(self.sampling), temperature=1.0)
        with _random_numbers_of(noise, self.model.device), _generation_config(self.model, config):
            for rows in split_rows([len(prompt) for prompt in prompts], rows=self.sampling.batch_rows):
                responses = self._batch([prompts[row] for row in rows])
                found.update(zip(rows, responses, strict=True))
        return [found[row] for row in range(len(prompts))]

    def _batch(self, prompts: Sequence[list[int]]) -> list[Response]:
        longest = max(map(len, prompts))
        device = self.model.device
        ids = torch.tensor([[PADDING] * (longest - len(prompt)) + prompt for prompt in prompts], device=device)
        lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
        mask = (torch.arange(longest, device=device) >= (longest - lengths).unsqueeze(1)).long()
        processor = SampledLogprobs(self.sampling.temperature)
        output = self.model.generate(
            input_ids=ids,
            attention_mask=mask,
            logits_processor=LogitsProcessorList([processor]),
            synced_gpus=False,  # as the policy is whole; processes may make other numbers of batches
        )
        tokens = output[:, longest:]
        parts = zip(tokens.tolist(), processor.logprobs(tokens).tolist(), strict=True)
        return [finished(*part, self.sampling) for part in parts]


class SampledLogprobs(LogitsProcessor):
    """Divides the logits by the temperature and notes the log-probability of each token that is then drawn.

    The token drawn at one step is seen at the next, so the scores `(batch, vocabulary)` of one step are kept and no
    more; `output_scores` would keep those of all steps.
    """

    def __init__(self, temperature: float) -> None:
        self.temperature = temperature
        self._scores: Tensor | None = None
        self._found: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores `(batch, vocabulary)` of the next token, after `input_ids` `(batch, seq)`."""
        self._note(input_ids[:, -1])
        self._scores = scores / self.temperature
        return self._scores

    def _note(self, drawn: Tensor) -> None:
        if self._scores is not None:
            logprobs = self._scores.gather(1, drawn.unsqueeze(1)).squeeze(1) - self._scores.logsumexp(dim=-1)
            self._found.append(logprobs)

    def logprobs(self, tokens: Tensor) -> Tensor:
        """Log-probabilities `(batch, response)` of the tokens `(batch, response)` that were drawn after all."""
        if len(self._found) < tokens.shape[1]:
            self._note(tokens[:, -1])
        return torch.stack(self._found[: tokens.shape[1]], dim=1)


class ContinuousBatchingEngine(Engine):
    """`model.generate_batch`: a paged cache, in which a waiting prompt takes the place of a response that ended.

    It samples in a thread of its own, which autocast does not reach: in the precision of the policy's weights.

    Args:
        model: the policy.
        sampling: how; `batch_rows` is how many are in progress at once.
        config: fields of transformers' `ContinuousBatchingConfig`.
    """

    def __init__(self, model: PreTrainedModel, sampling: Sampling, config: dict[str, Any] | None = None) -> None:
        self.model, self.sampling, self.config = model, sampling, config or {}

    @torch.no_grad()
    def generate(self, prompts: Sequence[list[int]], noise: np.ndarray) -> list[Response]:
        """Sample responses to all prompts, `batch_rows` at once."""
        if not prompts:
            return []
        try:
            outputs = self._outputs(prompts, noise)
        except (MemoryError, ValueError) as error:  # of its configuration, or the cache that it asks for
            raise UserError(f"continuous batching: {error}. {INSTEAD}") from error
        faults = [output.error for output in outputs if output.error]
        if faults or len(outputs) < len(prompts):
            why = f": {faults[0]}" if faults else "; its log says why"
            raise UserError(
                f"continuous batching gave {len(outputs) - len(faults)} of {len(prompts)} responses{why}. {INSTEAD}"
            )
        return [finished(output.generated_tokens, output.logprobs, self.sampling) for output in outputs]

    def _outputs(self, prompts: Sequence[list[int]], noise: np.ndarray) -> list[Any]:
        config = GenerationConfig(**_law(self.sampling), temperature=self.sampling.temperature)
        config.eos_token_id = config.eos_token_id or -1  # what it calls "none", with a warning
        with _random_numbers_of(noise, self.model.device) as seed, _generation_config(self.model, config):
            options = ContinuousBatchingConfig(
                **{**self._defaults(prompts), **self.config, "return_logprobs": True, "seed": seed}
            )
            return list(self.model.generate_batch(list(prompts), continuous_batching_config=options).values())

    def _defaults(self, prompts: Sequence[list[int]]) -> dict[str, Any]:
        rows = min(self.sampling.batch_rows, len(prompts))
        defaults: dict[str, Any] = {"max_requests_per_batch": rows, "max_memory_percent": MEMORY_SHARE}
        if self.model.device.type == "cpu":  # transformers would take more than half of the memory for the cache
            page = self.config.get("page_size", ContinuousBatchingConfig.page_size)
            longest = max(map(len, prompts)) + self.sampling.max_new_tokens
            defaults |= {"num_blocks": rows * (longest // page + 1), "max_batch_tokens": TOKENS_AT_ONCE_ON_CPU}
        return defaults


def _law(sampling: Sampling) -> dict[str, Any]:
    """Fields of a `GenerationConfig` that samples from the whole distribution."""
    return {
        "do_sample": True,
        "top_k": 0,
        "top_p": 1.0,
        "max_new_tokens": sampling.max_new_tokens,
        "eos_token_id": sorted(sampling.stop_tokens) or None,
        "pad_token_id": PADDING,
    }


@contextmanager
def _generation_config(model: PreTrainedModel, config: GenerationConfig) -> Iterator[None]:
    """Let a model have this generation configuration and nothing of its own.

    A configuration that is given to `generate` would be completed by the model's: its repetition penalty, its min_p.
    """
    own, model.generation_config = model.generation_config, config
    try:
        yield
    finally:
        model.generation_config = own


@contextmanager
def _random_numbers_of(noise: np.ndarray, device: torch.device) -> Iterator[int]:
    """Let torch draw the random numbers that belong to `noise`, and go on afterwards as if it had drawn none.

    Yields:
        The seed.
    """
    seed = int(noise.flat[0] * 2**53) if noise.size else 0
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield seed
