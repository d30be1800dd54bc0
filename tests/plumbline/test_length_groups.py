"""Batches of pairs of like length."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from plumbline.length_groups import GROUP, LengthGroupSampler, pair_lengths, short_first

LENGTHS = st.lists(st.integers(1, 500), max_size=300)


@given(LENGTHS, st.integers(1, 9), st.integers(0, 3), st.integers(0, 3))
def test_every_row_once_and_the_order_depends_on_seed_and_epoch(
    lengths: list[int], batch: int, seed: int, epoch: int
) -> None:
    first, again = (LengthGroupSampler(lengths, batch, seed=seed) for _ in range(2))
    first.set_epoch(epoch)
    list(again)  # an epoch before, as in a training that was not killed
    again.set_epoch(epoch)
    assert sorted(first) == list(range(len(lengths)))
    assert list(first) == list(again)
    assert len(first) == len(lengths)


@given(st.lists(st.integers(1, 500), min_size=1, max_size=GROUP * 3), st.integers(1, 3))
def test_batches_of_one_group_do_not_overlap_in_length(lengths: list[int], batch: int) -> None:
    rows = list(LengthGroupSampler(lengths, batch, seed=1))[: GROUP * batch]
    if len(lengths) > GROUP * batch:
        return  # several groups
    batches = [sorted(lengths[row] for row in rows[start : start + batch]) for start in range(0, len(rows), batch)]
    assert all(len(part) == batch for part in batches[:-1])
    for shorter, longer in pairwise(sorted(batches)):
        assert shorter[-1] <= longer[0]


def test_batches_come_in_random_order_and_another_one_each_epoch() -> None:
    sampler = LengthGroupSampler(list(range(400)), 8, seed=0)
    first = list(sampler)
    sampler.set_epoch(1)
    second = list(sampler)
    assert first != second
    assert [first[start] for start in range(0, 400, 8)] != sorted(first[start] for start in range(0, 400, 8))


def test_an_epoch_of_one_seed_is_not_the_epoch_before_of_the_next_seed() -> None:
    second, of_next = (LengthGroupSampler(list(range(400)), 8, seed=seed) for seed in (1, 2))
    second.set_epoch(1)
    assert list(second) != list(of_next)


def test_length_of_a_pair_is_that_of_its_longer_conversation() -> None:
    reward = {"chosen_ids": [[1, 2, 3], [1]], "rejected_ids": [[1], [1, 2]]}
    assert pair_lengths(Dataset.from_dict(reward)) == [3, 2]
    assert pair_lengths(Dataset.from_dict({"prompt_ids": [[7, 7], [7]], **reward})) == [5, 3]


def test_short_first_orders_by_the_longer_conversation() -> None:
    def row(prompt: str, chosen: str, rejected: str) -> dict[str, Any]:
        sides = {"chosen": chosen, "rejected": rejected}
        answers = {side: [{"role": "assistant", "content": text}] for side, text in sides.items()}
        return {"prompt": [{"role": "user", "content": prompt}], **answers}

    rows = [row("aaaa", "b", "bb"), row("a", "bb", "b"), row("aa", "b", "bbb")]
    ordered = short_first(Dataset.from_list(rows))
    assert [len(prompt[0]["content"]) for prompt in ordered["prompt"]] == [1, 2, 4]
