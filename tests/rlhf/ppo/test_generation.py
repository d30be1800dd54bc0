"""Sampling: the law, the end, and independence of everything but the episode."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, PreTrainedModel

from rlhf.ppo.generation import Sampling, generate, sample
from tests.tiny import tiny_model

PROMPTS = [[5, 6, 7], [8], [9, 10, 11, 12, 13], [14, 15]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(tiny_model(tmp_path_factory.mktemp("model")))


def noise(rows: int, length: int) -> np.ndarray:
    return np.random.default_rng(0).random((rows, length))


def test_sampling_inverts_the_distribution_function() -> None:
    probabilities = torch.tensor([[0.2, 0.0, 0.5, 0.3]])
    logits = probabilities.log()
    draws = [int(sample(logits, torch.tensor([u]).double(), 1.0)[0]) for u in (0.0, 0.19, 0.21, 0.69, 0.71, 0.9999999)]
    assert draws == [0, 0, 2, 2, 3, 3]


def test_shares_of_samples_are_the_tempered_probabilities() -> None:
    logits, temperature = torch.tensor([1.0, 0.0, -1.0, 2.0]), 0.5
    uniform = torch.rand(20_000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    draws, logprobs = sample(logits.expand(20_000, 4), uniform, temperature)
    shares = torch.bincount(draws, minlength=4) / 20_000
    torch.testing.assert_close(shares, torch.softmax(logits / temperature, 0), atol=0.01, rtol=0)
    torch.testing.assert_close(logprobs, torch.log_softmax(logits / temperature, 0)[draws])


def test_cached_generation_is_that_of_whole_forward_passes(model: PreTrainedModel) -> None:
    uniforms = noise(4, 6)
    responses = generate(model, PROMPTS, uniforms, Sampling(1.0, 6, frozenset()))
    for prompt, row, response in zip(PROMPTS, uniforms, responses, strict=True):
        ids, logprobs = list(prompt), []
        for uniform in row:
            logits = model(torch.tensor([ids])).logits[:, -1]
            token, logprob = sample(logits, torch.tensor([uniform]), 1.0)
            ids.append(int(token))
            logprobs.append(logprob.item())
        assert response.tokens == ids[len(prompt) :]
        assert response.logprobs == pytest.approx(logprobs, abs=1e-5)
        assert not response.ended


def test_a_response_depends_on_its_own_prompt_and_noise_alone(model: PreTrainedModel) -> None:
    uniforms = noise(4, 8)
    together = generate(model, PROMPTS, uniforms, Sampling(1.0, 8, frozenset(range(40))))
    for rows in (1, 3):
        assert generate(model, PROMPTS, uniforms, Sampling(1.0, 8, frozenset(range(40)), batch_rows=rows)) == together
    alone = [
        generate(model, [PROMPTS[i]], uniforms[i : i + 1], Sampling(1.0, 8, frozenset(range(40))))[0] for i in range(4)
    ]
    assert alone == together
    assert {len(response.tokens) for response in together} != {8}, "some response must have ended early"


def test_the_stop_token_ends_a_response_and_belongs_to_it(model: PreTrainedModel) -> None:
    uniforms = noise(4, 8)
    free = generate(model, PROMPTS, uniforms, Sampling(1.0, 8, frozenset()))
    stop = free[2].tokens[3]
    stopped = generate(model, PROMPTS, uniforms, Sampling(1.0, 8, frozenset({stop})))
    for without, with_stop in zip(free, stopped, strict=True):
        if stop in without.tokens:
            assert with_stop.tokens == without.tokens[: without.tokens.index(stop) + 1]
            assert with_stop.ended
        else:
            assert (with_stop.tokens, with_stop.ended) == (without.tokens, False)


def test_ended_rows_leave_the_batch(model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[int] = []
    forward = model.forward

    def counted(*args: object, **kwargs: object) -> object:
        rows.append(kwargs["input_ids"].shape[0])  # type: ignore[attr-defined]
        return forward(*args, **kwargs)

    monkeypatch.setattr(model, "forward", counted)
    prompts, uniforms = PROMPTS * 8, noise(32, 30)
    responses = generate(model, prompts, uniforms, Sampling(1.0, 30, frozenset(range(60))))
    longest = max(len(response.tokens) for response in responses)
    assert len(rows) == longest
    assert rows[-1] <= 4
    assert sum(rows) < 0.6 * 32 * longest


def test_sliding_windows_are_kept(tmp_path: Path) -> None:
    folder = tiny_model(tmp_path, family="qwen2", use_sliding_window=True, sliding_window=4, max_window_layers=0)
    model = AutoModelForCausalLM.from_pretrained(folder)
    responses = generate(model, PROMPTS, noise(4, 8), Sampling(1.0, 8, frozenset(range(60))))
    alone = [
        generate(model, [p], noise(4, 8)[i : i + 1], Sampling(1.0, 8, frozenset(range(60))))[0]
        for i, p in enumerate(PROMPTS)
    ]
    assert responses == alone


def test_absolute_positions_count_from_the_prompts_first_token() -> None:
    """Rotary positions are relative, so only a model with a table of positions shows where the count began."""
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=400, n_positions=64, n_embd=32, n_layer=2, n_head=2, initializer_range=0.5)
    model = AutoModelForCausalLM.from_config(config).eval()
    uniforms = noise(4, 8)
    together = generate(model, PROMPTS, uniforms, Sampling(1.0, 8, frozenset()))
    alone = [generate(model, [PROMPTS[i]], uniforms[i : i + 1], Sampling(1.0, 8, frozenset()))[0] for i in range(4)]
    assert alone == together
