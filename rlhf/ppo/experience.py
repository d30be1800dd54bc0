"""What a trainer learns from: responses, their scores, and what policy, reference and critic say of their tokens."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from rlhf.ppo import sharded
from rlhf.ppo.data import EVALUATION, PromptSet, sampling_noise
from rlhf.ppo.rewards import CombinedRewards, Episodes
from rlhf.ppo.rollout import MicroBatch, Rollout, state_values

if TYPE_CHECKING:
    from rlhf.ppo.trainer import PPOTrainer


class Sampled(NamedTuple):
    """Responses that were sampled and scored.

    Attributes:
        rollout: their tokens; None for a process without prompts.
        scores: `(episodes,)`, of all rewards together, before any normalisation.
        each: `(rewards, episodes)`, as each reward gave them.
        episodes: the same as text; None for a process without prompts.
    """

    rollout: Rollout | None
    scores: Tensor
    each: Tensor
    episodes: Episodes | None


class Experience:
    """Makes what a trainer's rollouts, its evaluations and the check before training are made of.

    Args:
        trainer: whose models, engine and reward are asked.

    Attributes:
        runtimes: seconds of the phases of the last rollout, by the names that are logged.
    """

    def __init__(self, trainer: PPOTrainer) -> None:
        self.trainer = trainer
        self.runtimes: dict[str, float] = {}

    def sample(
        self, number: int, rows: Sequence[dict[str, Any]], noise: np.ndarray, reward: CombinedRewards | None = None
    ) -> Sampled:
        """Sample a response to each prompt and score it.

        Args:
            number: of the rollout.
            rows: of a `PromptSet`; at least one.
            noise: `(rows, response_length)`, the random numbers of each response.
            reward: what scores; default: the trainer's reward.

        Raises:
            UserError: the policy's logits are NaN, or a score is no finite number.
        """
        trainer, device = self.trainer, self.trainer.args.device
        prompt_ids = [row["input_ids"] for row in rows]
        trainer.model.eval()
        with self.timed("generation_runtime"), self._weights_for_engine(), trainer.accelerator.autocast():
            responses = trainer.engine.generate(prompt_ids, noise)
        response_ids = [response.tokens for response in responses]
        episodes = Episodes(
            prompts=[row["prompt"] for row in rows],
            prompt_ids=prompt_ids,
            response_ids=response_ids,
            responses=trainer.processing_class.batch_decode(response_ids, skip_special_tokens=True),
            columns={name: [row[name] for row in rows] for name in rows[0] if name not in ("prompt", "input_ids")},
        )
        reward = reward or trainer.reward
        with self.timed("reward_runtime"):
            each = reward.each(episodes)
            scores = reward.together(each, episodes)
        rollout = Rollout.of_responses(number, prompt_ids, responses, device)
        return Sampled(rollout, scores.to(device), each.to(device), episodes)

    def sample_held_out(self, prompts: PromptSet, own: Sequence[int], reward: CombinedRewards | None = None) -> Sampled:
        """Sample and score responses to some of the prompts, with the random numbers that are theirs each time.

        Args:
            prompts: of all processes.
            own: numbers of those of this process; there may be none.
            reward: what scores; default: the trainer's reward.
        """
        trainer = self.trainer
        if not own:
            with self._weights_for_engine():  # with the other processes
                trainer.engine.generate([], np.empty((0, 0)))  # some engines gather the prompts of all processes
            nothing = torch.zeros(len(trainer.reward.rewards), 0, device=trainer.args.device)
            return Sampled(None, nothing[0], nothing, None)
        noise = sampling_noise(trainer.args.seed, own, trainer.args.response_length, stream=EVALUATION)
        return self.sample(-1, [prompts[index] for index in own], noise, reward)

    @torch.no_grad()
    def ask(self, rollout: Rollout | None, batches: Sequence[MicroBatch]) -> None:
        """Fill in log-probabilities, entropies and values; nothing of a batch without rows.

        The batches of a rollout are those of its first PPO epoch, so that the first step's ratios are exactly 1.
        """
        trainer = self.trainer
        trainer.model.eval()
        for batch in batches:
            with trainer.accelerator.autocast():
                output = trainer.model_wrapped(batch.input_ids, batch.response_mask, with_entropy=True)
                reference = trainer.reference.logprobs(trainer.model, batch.input_ids, batch.response_mask)
            if rollout is None or not len(batch.rows):
                continue
            values, final_values = state_values(output.values, batch)
            rollout.store(rollout.logprobs, batch, output.logprobs)
            rollout.store(rollout.entropy, batch, output.entropy)
            rollout.store(rollout.ref_logprobs, batch, reference)
            rollout.store(rollout.values, batch, values)
            rollout.final_values[batch.rows] = final_values

    @contextlib.contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Note the seconds of what is done inside."""
        started = time.perf_counter()
        yield
        self.runtimes[name] = time.perf_counter() - started

    def _weights_for_engine(self) -> contextlib.AbstractContextManager[None]:
        trainer = self.trainer
        if trainer.engine.reads_policy:
            return sharded.whole_policy(trainer.accelerator, trainer.model_wrapped, trainer.model.policy)
        sharded.split_again(trainer.model_wrapped)
        return contextlib.nullcontext()
