"""Prompts, and which of them belong to which rollout, process and mini-batch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from plumbline.conversations import conversation_fault
from plumbline.errors import UserError

PROMPTS, MINI_BATCHES, SAMPLING, EVALUATION = range(4)
"""Streams of random numbers: each figure comes from (seed, stream, number), never from what was drawn before."""


def random_stream(seed: int, *numbers: int) -> np.random.Generator:
    """A generator that depends on its arguments alone, so that a resumed run draws what the killed one would have."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, *numbers])))


def tokenized(
    dataset: Dataset, tokenizer: PreTrainedTokenizerBase, *, name: str, num_proc: int | None = None
) -> Dataset:
    """The prompts with a column `input_ids`; a dataset that has it is taken as it is. Arguments as in `PromptSet`.

    Raises:
        UserError: no such column, no row, or a prompt that is malformed; the message names its row.
    """
    if not isinstance(dataset, Dataset):
        raise UserError(f"{name} is {type(dataset).__name__}: PPO needs a `datasets.Dataset`, which has a length.")
    if len(dataset) == 0:
        raise UserError(f"{name} is empty: PPO needs at least one prompt.")
    dataset = dataset.with_format(None)  # plain lists, whatever format was set for another trainer
    if "input_ids" in dataset.column_names:
        return dataset
    if "prompt" not in dataset.column_names:
        raise UserError(
            f"{name} has the columns {dataset.column_names}: PPO needs `prompt` (text or messages) or `input_ids`."
        )
    if not isinstance(dataset[0]["prompt"], str) and not tokenizer.chat_template:
        raise UserError(
            f"{name} holds conversations, but the tokenizer has no chat template: set one or use text prompts."
        )
    options = {"tokenizer": tokenizer, "name": name}
    return dataset.map(_tokenize, with_indices=True, fn_kwargs=options, num_proc=num_proc, desc="Tokenising prompts")


def _tokenize(
    row: dict[str, Any], index: int, *, tokenizer: PreTrainedTokenizerBase, name: str
) -> dict[str, list[int]]:
    prompt = row["prompt"]
    if isinstance(prompt, str):
        return {"input_ids": tokenizer(prompt)["input_ids"]}
    fault = conversation_fault(prompt, must_end_with="user")
    if fault:
        raise UserError(f"{name}, row {index + 1}: {fault}.")
    encoded = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, tokenize=True, return_dict=True)
    return {"input_ids": encoded["input_ids"]}


class PromptSet:
    """The prompts of a dataset as token ids, beside their other columns.

    Args:
        dataset: with a column `input_ids` (token ids, taken as they are), or `prompt` (text, or a conversation that
            ends with a user's message).
        tokenizer: of the policy; its chat template writes conversations.
        window: longest sequence of the policy and the critic, in tokens; None where there is no limit.
        response_length: tokens to keep free for the response.
        vocabulary: tokens that the policy can read; None where that is not known.
        num_proc: processes that tokenise.

    Raises:
        UserError: no such column, or a prompt that is empty, malformed, too long or made of other tokens; the message
            names its row.
    """

    def __init__(
        self,
        dataset: Dataset,
        tokenizer: PreTrainedTokenizerBase,
        *,
        window: int | None,
        response_length: int,
        vocabulary: int | None = None,
        num_proc: int | None = None,
        name: str = "train_dataset",
    ) -> None:
        self.name, self.tokenizer = name, tokenizer
        self.dataset = tokenized(dataset, tokenizer, name=name, num_proc=num_proc)
        self._check_rows(window, response_length, vocabulary)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """A row: `input_ids`, `prompt` (as given; the decoded text where only ids were given), and other columns."""
        row = self.dataset[index]
        if "prompt" not in row:
            row["prompt"] = self.tokenizer.decode(row["input_ids"], skip_special_tokens=True)
        return row

    def _check_rows(self, window: int | None, response_length: int, vocabulary: int | None) -> None:
        for number, ids in enumerate(self.dataset["input_ids"], 1):
            if not ids:
                raise UserError(f"{self.name}, row {number}: the prompt is empty.")
            if window is not None and len(ids) + response_length > window:
                raise UserError(
                    f"{self.name}, row {number}: the prompt has {len(ids)} tokens; with response_length "
                    f"{response_length} that is more than the model's window of {window}: shorten one of them."
                )
            if vocabulary is not None and not 0 <= min(ids) <= max(ids) < vocabulary:
                raise UserError(
                    f"{self.name}, row {number}: the prompt has tokens from {min(ids)} to {max(ids)}, the policy's "
                    f"vocabulary those from 0 to {vocabulary - 1}: tokenise with the policy's tokenizer."
                )


@dataclass(frozen=True)
class Schedule:
    """Which episodes belong to which rollout, process, epoch and mini-batch: pure arithmetic on the seed.

    The episodes of a rollout stand in a table of `num_mini_batches` columns. A process owns some rows of it; in each
    PPO epoch every row is shuffled by itself, and the columns are the mini-batches. So each mini-batch takes equally
    from each process, and its members do not depend on the number of processes.

    Attributes:
        prompts: prompts in the dataset; they are gone through in a new order on each pass, none is left out.
        batch_size: episodes of a rollout over all processes; `num_mini_batches × processes` divides it.
        rollouts: how many.
        num_ppo_epochs, num_mini_batches: as in `PPOConfig`.
        seed: of the orders.
        rank, processes: this process, and how many there are.
    """

    prompts: int
    batch_size: int
    rollouts: int
    num_ppo_epochs: int
    num_mini_batches: int
    seed: int
    rank: int = 0
    processes: int = 1

    def identity(self) -> dict[str, int]:
        """What must be the same in a resumed run for its prompts and random numbers to be the same."""
        names = ("prompts", "batch_size", "num_ppo_epochs", "num_mini_batches", "seed")
        return {name: getattr(self, name) for name in names}

    @property
    def steps_per_rollout(self) -> int:
        """Optimizer steps that each rollout is learned from in."""
        return self.num_ppo_epochs * self.num_mini_batches

    @property
    def steps(self) -> int:
        """Optimizer steps in all."""
        return self.rollouts * self.steps_per_rollout

    def locate(self, step: int) -> tuple[int, int, int]:
        """Rollout, PPO epoch and mini-batch of an optimizer step."""
        rollout, within = divmod(step, self.steps_per_rollout)
        return rollout, *divmod(within, self.num_mini_batches)

    def _own_rows(self) -> slice:
        rows = self.batch_size // (self.num_mini_batches * self.processes)
        return slice(self.rank * rows, (self.rank + 1) * rows)

    def episodes(self, rollout: int) -> list[int]:
        """Numbers (counted over the whole run) of the episodes that this process makes in a rollout."""
        table = np.arange(self.batch_size).reshape(-1, self.num_mini_batches)
        return (rollout * self.batch_size + table[self._own_rows()].ravel()).tolist()

    def prompt_of(self, episodes: Sequence[int]) -> list[int]:
        """Indices of the prompts of some episodes: a new shuffle on each pass over the prompts."""
        orders: dict[int, np.ndarray] = {}
        found = []
        for episode in episodes:
            number, position = divmod(episode, self.prompts)
            if number not in orders:
                orders[number] = random_stream(self.seed, PROMPTS, number).permutation(self.prompts)
            found.append(int(orders[number][position]))
        return found

    def mini_batches(self, rollout: int, epoch: int) -> list[list[int]]:
        """For each mini-batch of a PPO epoch: positions within this process's episodes of the rollout."""
        rows = self.batch_size // self.num_mini_batches
        keys = random_stream(self.seed, MINI_BATCHES, rollout, epoch).random((rows, self.num_mini_batches))
        columns = keys[self._own_rows()].argsort(axis=1)
        table = np.arange(len(columns))[:, None] * self.num_mini_batches + columns
        return table.T.tolist()


def sampling_noise(seed: int, episodes: Sequence[int], length: int, *, stream: int) -> np.ndarray:
    """Uniform random numbers `(episodes, length)`: one for each token that an episode may sample."""
    return np.stack([random_stream(seed, stream, episode).random(length) for episode in episodes])


def split_rows(lengths: Sequence[int], *, rows: int, tokens: int | None = None) -> list[list[int]]:
    """Split rows into groups of similar length, so that little is padded.

    Args:
        lengths: of each row, in tokens.
        rows: most rows in a group; used when `tokens` is None.
        tokens: most tokens in a group, padding included; a row longer than that is a group of its own.

    Returns:
        Groups of indices, the longest rows first (memory that suffices for the first group suffices for all).
    """
    order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    groups: list[list[int]] = []
    for index in order:
        size = max(1, tokens // lengths[groups[-1][0]]) if groups and tokens is not None else rows
        if groups and len(groups[-1]) < size:
            groups[-1].append(index)
        else:
            groups.append([index])
    return groups


def split_into(groups: list[list[int]], count: int) -> list[list[int]]:
    """Halve the largest groups until there are `count`: every process must make as many forward passes as any other."""
    groups = [list(group) for group in groups]
    while len(groups) < count:
        largest = max(range(len(groups)), key=lambda number: len(groups[number]))
        group = groups[largest]
        middle = math.ceil(len(group) / 2)
        groups[largest : largest + 1] = [group[:middle], group[middle:]]
    return groups
