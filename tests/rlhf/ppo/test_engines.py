"""The engines of transformers: the same law as the trainer's own sampler, its ends, and random numbers that repeat."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig
from transformers import AutoModelForCausalLM, GenerationConfig, HfArgumentParser, PreTrainedModel

from plumbline.errors import UserError
from rlhf.ppo import PPOConfig, PPOTrainer
from rlhf.ppo.engines import Engine
from rlhf.ppo.engines.choice import PlumblineEngine
from rlhf.ppo.engines.of_transformers import ContinuousBatchingEngine, GenerateEngine
from rlhf.ppo.generation import Response, Sampling
from rlhf.ppo.models import TokenLogprobs
from rlhf.ppo.rollout import Rollout
from tests.rlhf.ppo.helpers import entries, settings_for, trainer_for
from tests.tiny import tiny_model

PROMPTS = [[5, 6, 7], [8], [9, 10, 11, 12, 13], [14, 15]]
ENGINES = {
    "plumbline": PlumblineEngine,
    "generate": GenerateEngine,
    "continuous_batching": ContinuousBatchingEngine,
}
each_engine = pytest.mark.parametrize("name", ENGINES)
OTHER_LAW = {"temperature": 3.0, "top_k": 2, "repetition_penalty": 9.0, "min_p": 0.3, "suppress_tokens": [*range(200)]}
"""A model's own generation configuration, which must not reach a rollout."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def model(folder: Path) -> PreTrainedModel:
    """The tiny model with some tokens far likelier than others."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="float32").eval()
    model.lm_head.weight.data *= 8
    model.generation_config = GenerationConfig(do_sample=True, **OTHER_LAW)
    return model


def engine_of(name: str, model: PreTrainedModel, sampling: Sampling) -> Engine:
    return ENGINES[name](model, sampling)  # type: ignore[abstract]


def noise(rows: int, length: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((rows, length))


def trainers_logprobs(model: PreTrainedModel, response: Response, prompt: list[int], temperature: float) -> list[float]:
    rollout = Rollout.of_responses(0, [prompt], [response], torch.device("cpu"))
    batch = rollout.micro_batch([0])
    with torch.no_grad():
        return TokenLogprobs(model, temperature)(batch.input_ids, batch.response_mask)[0].tolist()


@each_engine
def test_first_tokens_are_drawn_from_the_tempered_softmax(model: PreTrainedModel, name: str) -> None:
    rows, temperature = 1500, 0.7
    engine = engine_of(name, model, Sampling(temperature, 1, frozenset(), batch_rows=500))
    responses = engine.generate([PROMPTS[0]] * rows, noise(rows, 1))
    shares = torch.bincount(torch.tensor([response.tokens[0] for response in responses]), minlength=400) / rows
    with torch.no_grad():
        expected = torch.softmax(model(torch.tensor([PROMPTS[0]])).logits[0, -1] / temperature, dim=-1)
    assert expected.max() > 0.05
    assert expected[:200].sum() > 0.2
    torch.testing.assert_close(shares, expected, atol=0.03, rtol=0)
    assert shares[:200].sum().item() == pytest.approx(expected[:200].sum().item(), abs=0.04)


@each_engine
def test_an_engine_tells_the_logprobs_that_the_trainer_finds(model: PreTrainedModel, name: str) -> None:
    """Of responses of different lengths, after prompts of different lengths, in batches that hold not all of them."""
    sampling = Sampling(0.7, 8, frozenset(range(60)), batch_rows=6)
    responses = engine_of(name, model, sampling).generate(PROMPTS * 10, noise(40, 8))
    assert len({len(response.tokens) for response in responses}) > 2
    for prompt, response in zip(PROMPTS * 10, responses, strict=True):
        assert response.logprobs == pytest.approx(trainers_logprobs(model, response, prompt, 0.7), abs=1e-4)


@each_engine
def test_responses_end_at_a_stop_token_or_the_longest_length(model: PreTrainedModel, name: str) -> None:
    stop = frozenset(range(100))
    responses = engine_of(name, model, Sampling(1.0, 6, stop)).generate(PROMPTS * 4, noise(16, 6))
    for response in responses:
        assert not stop & {*response.tokens[:-1]}
        assert response.ended == (response.tokens[-1] in stop)
        assert response.ended or len(response.tokens) == 6
    assert len({response.ended for response in responses}) == 2
    free = engine_of(name, model, Sampling(1.0, 6, frozenset())).generate(PROMPTS, noise(4, 6))
    assert [(len(response.tokens), response.ended) for response in free] == [(6, False)] * 4


@each_engine
def test_the_same_noise_gives_the_same_responses_and_leaves_torchs_random_numbers(
    model: PreTrainedModel, name: str
) -> None:
    engine = engine_of(name, model, Sampling(1.0, 6, frozenset(range(60)), batch_rows=4))
    state, own = torch.get_rng_state(), model.generation_config
    first = engine.generate(PROMPTS, noise(4, 6))
    assert torch.equal(torch.get_rng_state(), state)
    assert model.generation_config is own
    torch.manual_seed(123)
    assert engine.generate(PROMPTS, noise(4, 6)) == first
    assert engine.generate(PROMPTS, noise(4, 6, seed=1)) != first
    assert engine.generate([], np.empty((0, 0))) == []


def test_generate_does_not_wait_for_other_processes(model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it would under ZeRO-3, where an evaluation gives processes different numbers of batches."""
    monkeypatch.setattr("transformers.generation.utils.is_deepspeed_zero3_enabled", lambda: True)
    monkeypatch.setattr("transformers.generation.utils._get_torch_distributed_world_size", lambda: 2)
    responses = GenerateEngine(model, Sampling(1.0, 3, frozenset())).generate(PROMPTS, noise(4, 3))
    assert [len(response.tokens) for response in responses] == [3] * 4


def test_settings_of_continuous_batching_reach_it(model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []
    generate_batch = model.generate_batch

    def recorded(*args: Any, **options: Any) -> Any:
        given.append(options["continuous_batching_config"])
        return generate_batch(*args, **options)

    monkeypatch.setattr(model, "generate_batch", recorded)
    engine = ContinuousBatchingEngine(model, Sampling(1.0, 2, frozenset()), {"page_size": 16, "scheduler_type": "fifo"})
    assert len(engine.generate(PROMPTS, noise(4, 2))) == 4
    assert (given[0].page_size, given[0].return_logprobs) == (16, True)


def test_a_cache_that_does_not_fit_is_told(model: PreTrainedModel) -> None:
    engine = ContinuousBatchingEngine(model, Sampling(1.0, 2, frozenset()), {"num_blocks": 10**9})
    with pytest.raises(UserError, match=r"Memory footprint .* is more than .*Change transformers_continuous_batching_"):
        engine.generate(PROMPTS, noise(4, 2))


def test_what_continuous_batching_lost_is_told(model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "generate_batch", lambda *args, **options: {})
    engine = ContinuousBatchingEngine(model, Sampling(1.0, 2, frozenset()))
    with pytest.raises(UserError, match="continuous batching gave 0 of 4 responses"):
        engine.generate(PROMPTS, noise(4, 2))


@pytest.mark.parametrize(("name", "lora"), [("generate", False), ("generate", True), ("continuous_batching", True)])
def test_the_trainer_learns_from_every_engine_at_ratio_one(folder: Path, tmp_path: Path, name: str, lora: bool) -> None:
    """The rollouts come from the policy as it is now: after updates, too, the trainer finds the same probabilities."""
    trainer = trainer_for(
        folder,
        tmp_path,
        settings={"rollout_engine": name, "temperature": 0.7, "learning_rate": 1e-2},
        peft_config=LoraConfig(r=4, target_modules="all-linear") if lora else None,
    )
    trainer.train()
    assert abs(entries(trainer, "objective/kl")[1]) > 1e-3, "the policy must have moved"
    assert max(entries(trainer, "sampling/sampling_logp_difference/max")) < 1e-4
    assert entries(trainer, "sampling/importance_sampling_ratio/mean") == pytest.approx([1, 1], abs=1e-4)
    assert entries(trainer, "sampling/importance_sampling_ratio/clipped") == [0, 0]


def test_a_resumed_run_with_generate_samples_as_the_uninterrupted_one(folder: Path, tmp_path: Path) -> None:
    settings = {"rollout_engine": "generate", "total_episodes": 24, "save_strategy": "steps", "save_steps": 4}

    def trained(output: str, **resume: Any) -> PPOTrainer:
        trainer = trainer_for(folder, tmp_path / output, settings=settings)
        trainer.train(**resume)
        return trainer

    whole = trained("whole")
    resumed = trained("resumed", resume_from_checkpoint=tmp_path / "whole" / "checkpoint-4")
    assert entries(whole, "objective/scores")[1:] == entries(resumed, "objective/scores")[1:]
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, resumed.model.state_dict()[name]), name


def test_settings_of_continuous_batching_are_read_from_the_command_line(tmp_path: Path) -> None:
    name = "transformers_continuous_batching_config"
    given = ["--output_dir", str(tmp_path), "--use_cpu", "--rollout_engine", "continuous_batching"]
    (args,) = HfArgumentParser((PPOConfig,)).parse_args_into_dataclasses([*given, f"--{name}", '{"page_size": 16}'])
    assert args.transformers_continuous_batching_config == {"page_size": 16}
    with pytest.raises(ValueError, match=f"{name} is 'page_size': it must be a JSON object"):
        settings_for(
            tmp_path, rollout_engine="continuous_batching", transformers_continuous_batching_config="page_size"
        )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rollout_engine": "sglang"}, "'plumbline', 'generate', 'continuous_batching' or 'vllm'"),
        ({"importance_sampling_mode": "truncate"}, "'token_truncate', 'token_mask', 'sequence_truncate' or"),
        ({"importance_sampling_clip_max": 0.0}, "importance_sampling_clip_max is 0.0: it must be above 0"),
        (
            {"vllm_mode": "server"},
            "vllm_mode is 'server', but rollout_engine is 'plumbline': set rollout_engine to 'vl",
        ),
        ({"rollout_engine": "generate", "transformers_continuous_batching_config": {}}, "rollout_engine is 'generate'"),
        (
            {"rollout_engine": "continuous_batching", "transformers_continuous_batching_config": {"pages": 16}},
            "_config has 'pages', which transformers' ContinuousBatchingConfig has not: it has .*page_size",
        ),
        ({"rollout_engine": "vllm"}, "not installed: pip install 'plumbline\\[vllm\\]'"),
    ],
)
def test_settings_that_no_engine_can_follow_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], message: str
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=message):
        settings_for(tmp_path, **settings)
