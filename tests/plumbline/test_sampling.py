"""Sampling: what is drawn, batches and their budget, resuming, refusals, the file of responses."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import plumbline.sampling
from plumbline.conversations import prompt_key
from plumbline.datafiles import PromptRow
from plumbline.errors import UserError
from plumbline.generation import _draw
from plumbline.models import identify, load_policy, load_tokenizer
from plumbline.recipe import SampleSection
from plumbline.sampling import (
    Response,
    Sampled,
    _plan,
    read_responses,
    sample_responses,
    sample_to_folder,
    stop_token_ids,
    write_responses,
)
from tests.tiny import tiny_model, user

PROMPTS = [user("Where is the " + "order " * (index % 5) + "?") for index in range(7)]
SETTINGS: dict[str, Any] = {"n": 2, "temperature": 1.0, "max_new_tokens": 12, "batch_tokens": 120, "seed": 5}


@pytest.fixture(scope="module", params=["llama", "qwen2"])
def policy(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any, Path]:
    folder = tiny_model(tmp_path_factory.mktemp("policy"), family=request.param, initializer_range=0.2)
    return load_policy(folder), load_tokenizer(folder), folder


def test_greedy_equals_transformers_generate(policy: tuple[Any, Any, Path]) -> None:
    """Also when rows of other lengths and rows that ended are in the batch."""
    model, tokenizer, _ = policy
    chosen = list(range(0, len(tokenizer), 3))  # many tokens end a response, so that rows leave at different steps
    model.generation_config.eos_token_id = chosen
    found = sample_responses(model, tokenizer, PROMPTS, **(SETTINGS | {"temperature": 0, "batch_tokens": 10_000}))
    for index, prompt in enumerate(PROMPTS):
        encoded = tokenizer.apply_chat_template(
            prompt, add_generation_prompt=True, return_dict=True, return_tensors="pt"
        )
        ids = model.generate(**encoded, do_sample=False, max_new_tokens=12, eos_token_id=chosen)
        ids = ids[0, encoded["input_ids"].shape[1] :].tolist()
        finished = ids[-1] in stop_token_ids(model, tokenizer)
        content = ids[:-1] if finished else ids
        text = tokenizer.decode(content, skip_special_tokens=True)
        assert found[2 * index] == found[2 * index + 1] == Sampled(index, text, ids, finished)
        assert found[2 * index].token_count == len(content)
    model.generation_config.eos_token_id = tokenizer.eos_token_id


def test_finished_says_whether_it_ended_by_itself(policy: tuple[Any, Any, Path]) -> None:
    model, tokenizer, _ = policy
    model.generation_config.eos_token_id = list(range(len(tokenizer)))  # every token ends
    ended = sample_responses(model, tokenizer, PROMPTS[:1], **SETTINGS)
    assert [(one.text, one.token_count, one.finished) for one in ended] == [("", 0, True)] * 2
    model.generation_config.eos_token_id = tokenizer.eos_token_id


def test_same_seed_same_responses(policy: tuple[Any, Any, Path]) -> None:
    model, tokenizer, _ = policy
    first = sample_responses(model, tokenizer, PROMPTS, **SETTINGS)
    assert [one.prompt_index for one in first] == [index for index in range(7) for _ in range(2)]
    assert sample_responses(model, tokenizer, PROMPTS, **SETTINGS) == first
    assert sample_responses(model, tokenizer, PROMPTS, **(SETTINGS | {"seed": 6})) != first


def test_killed_and_resumed_equals_uninterrupted(
    policy: tuple[Any, Any, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokenizer, _ = policy
    expected = sample_responses(model, tokenizer, PROMPTS, **SETTINGS)

    class Killed(BaseException):
        pass

    def dying(items: Iterable[Any], what: str, *, total: int | None = None) -> Iterator[Any]:
        for number, item in enumerate(items):
            if number == 2:
                raise Killed
            yield item

    with pytest.raises(Killed):
        sample_responses(model, tokenizer, PROMPTS, **SETTINGS, scratch=tmp_path, progress=dying)
    batches: list[int] = []
    generate = plumbline.sampling.generate
    monkeypatch.setattr(
        plumbline.sampling, "generate", lambda *given, **named: batches.append(1) or generate(*given, **named)
    )
    assert sample_responses(model, tokenizer, PROMPTS, **SETTINGS, scratch=tmp_path) == expected
    encoded = plumbline.sampling.encode_prompts(tokenizer, PROMPTS)
    assert len(batches) == len(_plan(encoded, 2, 12, 120)) - 2


def test_parts_of_another_policy_are_not_taken(policy: tuple[Any, Any, Path], tmp_path: Path) -> None:
    model, tokenizer, _ = policy
    other = load_policy(tiny_model(tmp_path / "other", seed=3, initializer_range=0.2))
    expected = sample_responses(other, tokenizer, PROMPTS, **SETTINGS)
    sample_responses(model, tokenizer, PROMPTS, **SETTINGS, scratch=tmp_path)
    assert sample_responses(other, tokenizer, PROMPTS, **SETTINGS, scratch=tmp_path) == expected


@given(
    lengths=st.lists(st.integers(1, 60), max_size=40),
    n=st.integers(1, 4),
    new=st.integers(1, 40),
    budget=st.integers(1, 1000),
)
def test_batches_hold_every_prompt_once_within_the_budget(lengths: list[int], n: int, new: int, budget: int) -> None:
    plan = _plan([[0] * length for length in lengths], n, new, budget)
    assert sorted(index for batch in plan for index in batch) == list(range(len(lengths)))
    for batch in plan:
        assert len(batch) == 1 or len(batch) * n * (max(lengths[index] for index in batch) + new) <= budget


def test_draw_follows_temperature_and_top_p() -> None:
    probabilities = torch.tensor([0.5, 0.3, 0.15, 0.05])
    logits = probabilities.log().expand(20_000, 4)
    generator = torch.Generator().manual_seed(0)

    def shares(temperature: float, top_p: float) -> torch.Tensor:
        drawn = _draw(logits, temperature, top_p, generator)
        return torch.bincount(drawn, minlength=4) / len(drawn)

    # Four standard errors of a share at 20,000 draws are below 0.0142.
    torch.testing.assert_close(shares(1.0, 1.0), probabilities, atol=0.0142, rtol=0)
    squared = probabilities**2 / (probabilities**2).sum()
    torch.testing.assert_close(shares(0.5, 1.0), squared, atol=0.0142, rtol=0)
    torch.testing.assert_close(shares(1.0, 0.7), torch.tensor([0.625, 0.375, 0, 0]), atol=0.0142, rtol=0)
    assert shares(1.0, 0.01).tolist() == shares(0, 1.0).tolist() == [1, 0, 0, 0]


def test_long_prompts_are_refused_by_row_before_any_work(policy: tuple[Any, Any, Path]) -> None:
    model, tokenizer, _ = policy
    prompts = [*PROMPTS, user("order " * 250), user("order " * 252)]
    with pytest.raises(UserError, match=r"rows 8 \(\d+ tokens\), 9 \(\d+ tokens\) and max_new_tokens 12 .* of 256"):
        sample_responses(model, tokenizer, prompts, **SETTINGS)


def test_responses_survive_the_file(tmp_path: Path) -> None:
    rows = [
        Response(user(f"Wo ist Ä{n}?"), "k", f"äöü {n}", "sft", "h", n, n % 2 == 0, 0.7, 2**40, '{"topic": "a"}')
        for n in range(2500)
    ]
    assert write_responses(iter(rows), tmp_path) == 2500
    assert [Response(**row) for row in read_responses(tmp_path)] == rows
    with pytest.raises(UserError, match="there are no responses in"):
        list(read_responses(tmp_path / "nowhere"))


def test_several_policies_sample_into_one_file(policy: tuple[Any, Any, Path], tmp_path: Path) -> None:
    _, _, folder = policy
    other = tiny_model(tmp_path / "other", seed=3, initializer_range=0.2)
    rows = [PromptRow(prompt, {"topic": str(index)}) for index, prompt in enumerate(PROMPTS[:3])]
    section = SampleSection(responses_per_prompt=2, max_new_tokens=8, temperature=0.9)
    metrics = sample_to_folder({"sft": folder, "other": other}, rows, section, tmp_path, tmp_path, seed=1)
    found = [Response(**row) for row in read_responses(tmp_path)]
    assert [(one.prompt, one.policy) for one in found] == [
        (row.prompt, name) for row in rows for name in ("sft", "sft", "other", "other")
    ]
    assert {one.policy_hash for one in found if one.policy == "sft"} == {identify(folder).weights_hash}
    assert all(one.prompt_key == prompt_key(one.prompt) and one.temperature == 0.9 for one in found)
    assert found[4].meta == '{"topic": "1"}'
    assert (metrics["responses"], metrics["prompts"]) == (12, 3)
    assert metrics["mean_tokens"] == sum(one.token_count for one in found) / 12
