"""Prompts, and which of them belong to which rollout, process and mini-batch."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from plumbline.errors import UserError
from rlhf.ppo.data import SAMPLING, PromptSet, Schedule, sampling_noise, split_into, split_rows
from tests.tiny import tiny_tokenizer, user


def schedule(**values: int) -> Schedule:
    settings = {"prompts": 7, "batch_size": 8, "rollouts": 5, "num_ppo_epochs": 3, "num_mini_batches": 2, "seed": 1}
    return Schedule(**{**settings, **values})


def test_steps_are_epochs_times_mini_batches_for_every_rollout() -> None:
    plan = schedule()
    places = [plan.locate(step) for step in range(plan.steps)]
    assert plan.steps == 5 * 3 * 2
    assert places[:7] == [(0, 0, 0), (0, 0, 1), (0, 1, 0), (0, 1, 1), (0, 2, 0), (0, 2, 1), (1, 0, 0)]
    assert places[-1] == (4, 2, 1)


def test_every_pass_takes_each_prompt_once_in_another_order() -> None:
    plan = schedule()
    drawn = plan.prompt_of(range(21))
    passes = [drawn[start : start + 7] for start in (0, 7, 14)]
    assert all(sorted(one) == list(range(7)) for one in passes)
    assert passes[0] != passes[1]


@given(
    processes=st.sampled_from([1, 2, 4]),
    mini_batches=st.sampled_from([1, 2, 4]),
    epoch=st.integers(0, 2),
    seed=st.integers(0, 50),
)
def test_mini_batches_do_not_depend_on_the_number_of_processes(
    processes: int, mini_batches: int, epoch: int, seed: int
) -> None:
    shared = {"batch_size": 16, "num_mini_batches": mini_batches, "seed": seed}
    expected = mini_batches_of([schedule(**shared)], epoch)
    spread = [schedule(**shared, rank=rank, processes=processes) for rank in range(processes)]
    assert mini_batches_of(spread, epoch) == expected
    assert sorted(episode for part in expected for episode in part) == list(range(16, 32))
    assert {len(part) for part in expected} == {16 // mini_batches}


def mini_batches_of(plans: list[Schedule], epoch: int) -> list[set[int]]:
    found: list[set[int]] = [set() for _ in range(plans[0].num_mini_batches)]
    for plan in plans:
        episodes = plan.episodes(1)
        for number, rows in enumerate(plan.mini_batches(1, epoch)):
            found[number] |= {episodes[row] for row in rows}
    return found


def test_epochs_shuffle_the_mini_batches() -> None:
    plan = schedule(batch_size=64)
    assert len({str(plan.mini_batches(0, epoch)) for epoch in range(4)}) == 4


def test_noise_belongs_to_the_episode() -> None:
    together = sampling_noise(3, [5, 6, 7], 4, stream=SAMPLING)
    np.testing.assert_array_equal(sampling_noise(3, [7, 5], 4, stream=SAMPLING), together[[2, 0]])
    assert (sampling_noise(4, [5], 4, stream=SAMPLING) != together[0]).all()


@given(lengths=st.lists(st.integers(1, 30), min_size=1, max_size=20), tokens=st.integers(10, 80))
def test_groups_keep_the_token_budget_and_lose_no_row(lengths: list[int], tokens: int) -> None:
    groups = split_rows(lengths, rows=1, tokens=tokens)
    assert Counter(index for group in groups for index in group) == Counter(range(len(lengths)))
    for group in groups:
        assert len(group) == 1 or len(group) * max(lengths[index] for index in group) <= tokens


def test_groups_by_rows_are_of_similar_length() -> None:
    assert split_rows([5, 1, 4, 2], rows=2) == [[0, 2], [3, 1]]


def test_groups_are_halved_until_there_are_enough() -> None:
    groups = split_into([[0, 1, 2], [3, 4]], 4)
    assert sorted(map(len, groups)) == [1, 1, 1, 2]
    assert sorted(index for group in groups for index in group) == list(range(5))


def prompts_of(rows: list[dict[str, object]], **options: object) -> PromptSet:
    settings = {"window": 64, "response_length": 8, **options}
    return PromptSet(Dataset.from_list(rows), tiny_tokenizer(), **settings)  # type: ignore[arg-type]


def test_a_conversation_is_written_by_the_chat_template() -> None:
    row = prompts_of([{"prompt": user("Hello"), "topic": "greeting"}])[0]
    tokenizer = tiny_tokenizer()
    assert tokenizer.decode(row["input_ids"]) == "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"
    assert row["prompt"] == user("Hello")
    assert row["topic"] == "greeting"


def test_text_and_ids_give_the_same_prompt() -> None:
    ids = tiny_tokenizer()("Where is it?")["input_ids"]
    by_text, by_ids = prompts_of([{"prompt": "Where is it?"}])[0], prompts_of([{"input_ids": ids}])[0]
    assert by_text == by_ids


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"prompt": "fine"}, {"prompt": ""}], "row 2: the prompt is empty"),
        ([{"prompt": "How are you? " * 40}], "more than the model's window of 64"),
        ([{"prompt": [{"role": "assistant", "content": "Hi"}]}], "row 1: roles out of order"),
        ([{"question": "Hi"}], "PPO needs `prompt`"),
    ],
)
def test_bad_prompts_are_refused_with_their_row(rows: list[dict[str, object]], message: str) -> None:
    with pytest.raises(UserError, match=message):
        prompts_of(rows)


def test_conversations_need_a_chat_template() -> None:
    with pytest.raises(UserError, match="no chat template"):
        PromptSet(
            Dataset.from_list([{"prompt": user("Hi")}]),
            tiny_tokenizer(chat_template=None),
            window=None,
            response_length=1,
        )
