"""Scores of finished responses, from whatever the user has: a reward model, a path, a function, or several of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence, Sized
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from plumbline.conversations import Conversation
from plumbline.errors import UserError
from plumbline.models import context_window, load_tokenizer
from rlhf.ppo.aggregation import aggregate, check_weights
from rlhf.ppo.data import split_rows
from rlhf.ppo.generation import PADDING
from rlhf.ppo.models import base_of, disable_dropout, freeze, scores_at_tokens
from rlhf.ppo.shared_base import classifier_adapter_over

RewardFunction = Callable[..., Sequence[float]]
"""As in TRL's GRPOTrainer: called with `prompts`, `completions`, `completion_ids` and the dataset's other columns."""


@runtime_checkable
class Scorer(Protocol):
    """An object that scores whole conversations, as `reward.RewardModel` does."""

    def score(self, conversations: Sequence[Conversation]) -> Tensor:
        """Scores `(conversations,)`; each conversation ends with the assistant's message."""


@dataclass(frozen=True)
class Episodes:
    """Finished responses, as a reward sees them.

    Attributes:
        prompts: as the dataset has them, text or conversations.
        prompt_ids, response_ids: what the policy read and wrote.
        responses: the responses as text, without special tokens.
        columns: the dataset's other columns.
    """

    prompts: list[str | Conversation]
    prompt_ids: list[list[int]]
    response_ids: list[list[int]]
    responses: list[str]
    columns: dict[str, list[Any]] = field(default_factory=dict)

    @property
    def conversations(self) -> list[Conversation]:
        """Prompt and response as one conversation; a prompt that is text is the user's message."""
        return [
            [*as_messages(prompt), {"role": "assistant", "content": response}]
            for prompt, response in zip(self.prompts, self.responses, strict=True)
        ]

    @property
    def completions(self) -> list[Any]:
        """Responses in the form of the prompts: text, or a list of one message."""
        return [
            response if isinstance(prompt, str) else [{"role": "assistant", "content": response}]
            for prompt, response in zip(self.prompts, self.responses, strict=True)
        ]


def as_messages(prompt: str | Conversation) -> Conversation:
    """A prompt as messages."""
    return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)


SILENCE = "…"
"""What stands for a response without text: a conversation in which the assistant says nothing cannot be written."""


class ScorerReward:
    """Scores by an object with `.score(conversations)`, with its own tokenizer and chat template.

    A response that is longer than the scorer's window allows (another tokenizer may need more tokens for the same
    text) is cut at its end, so that one odd response does not end a run. `options` are given to `.score` besides.
    """

    def __init__(self, scorer: Scorer, **options: Any) -> None:
        self.scorer, self.options = scorer, options
        self.tokenizer = getattr(scorer, "tokenizer", None)
        self.model = getattr(scorer, "model", None)
        self.is_adapter = isinstance(self.model, PeftModel)
        self.window = context_window(scorer.model) if hasattr(scorer, "model") else None
        self.name = _name_of_model(getattr(scorer, "model", None)) or type(scorer).__name__

    def __call__(self, episodes: Episodes) -> Tensor:
        """Scores `(episodes,)`."""
        conversations = [self._fitting(conversation) for conversation in episodes.conversations]
        scores = torch.as_tensor(self.scorer.score(conversations, **self.options), dtype=torch.float32)
        return scores.detach().cpu()  # a scorer of one's own may leave them on a GPU, with a graph behind them

    def _fitting(self, conversation: Conversation) -> Conversation:
        *prompt, response = conversation
        text = response["content"]
        while not self._fits(conversation) and text:
            text = text[: len(text) * 7 // 8]
            conversation = [*prompt, {"role": "assistant", "content": text}]
        return conversation if text.strip() else [*prompt, {"role": "assistant", "content": SILENCE}]

    def _fits(self, conversation: Conversation) -> bool:
        if self.window is None or self.tokenizer is None:
            return True
        if 2 * sum(len(message["content"].encode()) for message in conversation) < self.window:
            return True  # certainly: a token is at least a byte, and the template's own tokens are few
        ids = self.tokenizer.apply_chat_template(conversation, tokenize=True, return_dict=True)["input_ids"]
        return len(ids) <= self.window


class ModelReward:
    """Scores by a sequence classifier with one label, read at the last token of the response.

    With the policy's tokenizer (`tokenizer` None) it reads the policy's own tokens, the stop token included. With
    another one the conversation or text is written anew by that tokenizer and its chat template.
    """

    def __init__(self, model: nn.Module, tokenizer: PreTrainedTokenizerBase | None = None, *, rows: int = 64) -> None:
        disable_dropout(model)
        self.model, self.tokenizer, self.rows = freeze(model), tokenizer, rows
        self.name = _name_of_model(model) or type(model).__name__

    @torch.no_grad()
    def __call__(self, episodes: Episodes) -> Tensor:
        """Scores `(episodes,)`."""
        sequences = self._sequences(episodes)
        scores = torch.empty(len(sequences))
        for rows in split_rows([len(ids) for ids in sequences], rows=self.rows):
            scores[rows] = self._score([sequences[row] for row in rows]).cpu()
        return scores

    def _score(self, sequences: list[list[int]]) -> Tensor:
        device = next(self.model.parameters()).device
        lengths = torch.tensor([len(ids) for ids in sequences], device=device)
        longest = int(lengths.max())
        padded = torch.tensor([ids + [PADDING] * (longest - len(ids)) for ids in sequences], device=device)
        mask = (torch.arange(longest, device=device) < lengths.unsqueeze(1)).long()
        # The last token is found by length: a pad token that is also the eos token must not hide it.
        return scores_at_tokens(self.model, padded, mask).gather(1, (lengths - 1).unsqueeze(1)).squeeze(1)

    def _sequences(self, episodes: Episodes) -> list[list[int]]:
        if self.tokenizer is None:
            return [prompt + ids for prompt, ids in zip(episodes.prompt_ids, episodes.response_ids, strict=True)]
        if isinstance(episodes.prompts[0], str):
            texts = [f"{prompt}{text}" for prompt, text in zip(episodes.prompts, episodes.responses, strict=True)]
            return self.tokenizer(texts)["input_ids"]
        return [
            self.tokenizer.apply_chat_template(messages, tokenize=True, return_dict=True)["input_ids"]
            for messages in episodes.conversations
        ]


class FunctionReward:
    """Scores by a Python function."""

    def __init__(self, function: RewardFunction) -> None:
        self.function = function
        self.name = getattr(function, "__name__", repr(function))

    def __call__(self, episodes: Episodes) -> Tensor:
        """Scores `(episodes,)`.

        Raises:
            UserError: the function did not give one number for each response.
        """
        scores = self.function(
            prompts=episodes.prompts,
            completions=episodes.completions,
            completion_ids=episodes.response_ids,
            **episodes.columns,
        )
        given = f"{len(scores)} scores" if isinstance(scores, Sized) else f"a {type(scores).__name__}"
        if not isinstance(scores, Sized) or len(scores) != len(episodes.prompts):
            raise UserError(
                f"the reward function {self.name} gave {given} for {len(episodes.prompts)} responses: it must give a "
                "list with one number for each."
            )
        # None is what a GRPOTrainer function gives where it does not apply: no number, so it is refused by name.
        return torch.as_tensor([math.nan if score is None else float(score) for score in scores], dtype=torch.float32)


def _name_of_model(model: Any) -> str | None:
    """Where a model was loaded from, or None."""
    return getattr(getattr(model, "config", None), "name_or_path", None) or None


def no_reward(completions: Sequence[Any], **columns: Any) -> list[float]:
    """A reward function that stands in where there is no reward."""
    return [0.0] * len(completions)


Reward = ScorerReward | ModelReward | FunctionReward


class CombinedRewards:
    """One score from several rewards.

    Args:
        rewards: what scores.
        weights: of each; None weighs each by 1.
        aggregation: `sum`, `mean`, `min` or `mean_minus_std`, see `rlhf.ppo.aggregation.aggregate`.
        std_coef: standard deviations that `mean_minus_std` takes off.
        what: what a message calls the score.

    Raises:
        UserError: the weights do not fit the rewards or the aggregation.
    """

    def __init__(
        self,
        rewards: Sequence[Reward],
        weights: Sequence[float] | None = None,
        *,
        aggregation: str = "sum",
        std_coef: float = 1.0,
        what: str = "reward",
    ) -> None:
        check_weights(aggregation, weights, len(rewards))
        self.rewards, self.weights = list(rewards), torch.tensor(weights or [1.0] * len(rewards))
        self.aggregation, self.std_coef, self.what = aggregation, std_coef, what

    @property
    def modules(self) -> list[nn.Module]:
        """The sequence classifiers among them that belong on the trainer's device, as an adapter over its base does."""
        return [
            reward.model
            for reward in self.rewards
            if isinstance(reward, ModelReward) or (isinstance(reward, ScorerReward) and reward.is_adapter)
        ]

    def __call__(self, episodes: Episodes) -> Tensor:
        """Scores `(episodes,)` of all rewards together, in float32; raises as `each` and `together`."""
        return self.together(self.each(episodes), episodes)

    def each(self, episodes: Episodes) -> Tensor:
        """Scores `(rewards, episodes)` as each reward gives them, in float32.

        Raises:
            UserError: a score is NaN or infinite; the message names the reward and shows prompt and response.
        """
        scores = []
        for number, reward in enumerate(self.rewards, 1):
            which = f", number {number} of {len(self.rewards)} ({reward.name})," if len(self.rewards) > 1 else ""
            scores.append(_finite(reward(episodes), episodes, f"the {self.what}{which} of a response"))
        return torch.stack(scores)

    def together(self, each: Tensor, episodes: Episodes) -> Tensor:
        """One score `(episodes,)` from those of each reward `(rewards, episodes)`.

        Raises:
            UserError: it is no finite number.
        """
        total = aggregate(each, self.weights, self.aggregation, self.std_coef)
        return _finite(total, episodes, f"the {self.aggregation} of the rewards of a response")


def _finite(scores: Tensor, episodes: Episodes, what: str) -> Tensor:
    bad = (~torch.isfinite(scores)).nonzero().flatten().tolist()
    if bad:
        raise UserError(
            f"{what} is {scores[bad[0]].item()}: prompt {episodes.prompts[bad[0]]!r}, response "
            f"{episodes.responses[bad[0]]!r}. A reward must be a finite number."
        )
    return scores


def make_reward(
    source: Any,
    tokenizer: PreTrainedTokenizerBase | None = None,
    *,
    rows: int = 64,
    tokens: int | None = None,
    shared_by: PreTrainedModel | PeftModel | None = None,
    argument: str = "reward_model",
) -> Reward:
    """A reward from what the user gave.

    Args:
        source: a folder of a reward model, a sequence classifier, an object with `.score(conversations)`, or a
            function.
        tokenizer: of a sequence classifier, where it is not the policy's.
        rows: responses that a sequence classifier scores at once.
        tokens: most tokens that an adapter on the policy's base reads at once, padding included; default: its own.
        shared_by: the policy whose base in memory a folder of an adapter over the same weights is put on, too; it then
            scores in the precision of these weights.
        argument: what a message calls the source.

    Raises:
        UserError: it is none of these.
    """
    if isinstance(source, str | Path):
        from reward import RewardModel

        model = None if shared_by is None else classifier_adapter_over(shared_by, source)
        if model is None:
            return ScorerReward(RewardModel.load(source))
        return ScorerReward(RewardModel(model, load_tokenizer(source)), **({"batch_tokens": tokens} if tokens else {}))
    if isinstance(source, nn.Module) and hasattr(source, "base_model_prefix"):
        if not hasattr(base_of(source), "score"):
            raise UserError(
                f"{argument} is {type(base_of(source)).__name__}, which has no head `score` that can be read at a "
                "response's last token: give a decoder's sequence classifier, or a function that asks this model."
            )
        labels = getattr(source.config, "num_labels", 1)
        if labels != 1:
            raise UserError(f"the reward model has {labels} labels: load it with num_labels=1.")
        return ModelReward(source, tokenizer, rows=rows)
    if callable(getattr(source, "score", None)):
        return ScorerReward(source)
    if callable(source):
        return FunctionReward(source)
    raise UserError(
        f"{argument} is {type(source).__name__}: give a reward model, its folder, an object with "
        "`.score(conversations)`, or a function."
    )
