"""Batches of preference pairs of like length: little of the work goes into padding.

In the order of a snapshot, pairs of short and of long responses lie side by side, and about half of all tokens of a
batch are padding. transformers' own `group_by_length` needs `input_ids`, which pairs do not have, and draws from the
global random state, so that a resumed training would see other batches.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from datasets import Dataset
from torch.utils.data import Sampler, SequentialSampler

from plumbline.seeds import derived_seed

GROUP = 50
"""Batches that are filled from one random draw: the more, the less padding, and the less random are the batches."""


class LengthGroupSampler(Sampler[int]):
    """Indices of rows whose batches hold rows of like length; the batches come in random order.

    Rows are drawn at random into groups of `GROUP` batches, ordered by length within their group, and cut into batches.
    The order depends on the seed and the epoch alone.

    Args:
        lengths: of the rows, in tokens.
        batch: rows in a batch, over all devices and accumulation steps.
        seed: of the order.
    """

    def __init__(self, lengths: Sequence[int], batch: int, *, seed: int) -> None:
        self.lengths, self.batch, self.seed, self.epoch = list(lengths), batch, seed, 0

    def __len__(self) -> int:
        return len(self.lengths)

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer before each epoch."""
        self.epoch = int(epoch)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(derived_seed(self.seed, self.epoch))
        drawn = torch.randperm(len(self.lengths), generator=generator).tolist()
        groups = [sorted(part, key=self.lengths.__getitem__) for part in _cut(drawn, self.batch * GROUP)]
        batches = [batch for group in groups for batch in _cut(group, self.batch)]
        last = [batches.pop()] if batches and len(batches[-1]) < self.batch else []
        order = torch.randperm(len(batches), generator=generator).tolist()
        for batch in [*(batches[place] for place in order), *last]:
            yield from batch


class LengthGroupedPairs:
    """For a trainer of preference pairs: `train_sampling_strategy="group_by_length"` groups by the tokens of a pair."""

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler[int] | None:
        trainer: Any = self
        if trainer.args.train_sampling_strategy != "group_by_length":
            sampler: Sampler[int] | None = super()._get_train_sampler(train_dataset)  # type: ignore[misc]
            return sampler
        rows = trainer.train_dataset if train_dataset is None else train_dataset
        batch = trainer.args.train_batch_size * trainer.args.gradient_accumulation_steps * trainer.args.world_size
        return LengthGroupSampler(pair_lengths(rows), batch, seed=trainer.args.seed)

    def _get_eval_sampler(self, eval_dataset: Dataset) -> Sampler[int]:
        return SequentialSampler(eval_dataset)  # in the order of `short_first`


def pair_lengths(rows: Dataset) -> list[int]:
    """Tokens of the longer conversation of each pair, from the columns that TRL's trainers make."""
    prompts = rows["prompt_ids"] if "prompt_ids" in rows.column_names else [()] * len(rows)
    sides = zip(prompts, rows["chosen_ids"], rows["rejected_ids"], strict=True)
    return [len(prompt) + max(len(chosen), len(rejected)) for prompt, chosen, rejected in sides]


def short_first(pairs: Dataset) -> Dataset:
    """Pairs (`prompt`, `chosen`, `rejected` as messages) by their characters, for passes that go over them in order."""

    def size(row: int) -> int:
        return characters(prompts[row]) + max(characters(chosen[row]), characters(rejected[row]))

    def characters(messages: list[dict[str, str]]) -> int:
        return sum(len(message["content"]) for message in messages)

    prompts, chosen, rejected = (list(pairs[side]) for side in ("prompt", "chosen", "rejected"))
    return pairs.select(sorted(range(len(pairs)), key=size))


def _cut(rows: list[int], size: int) -> list[list[int]]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]
