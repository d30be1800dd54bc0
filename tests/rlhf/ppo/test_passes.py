"""What a rollout costs: every model reads every sequence as often as it must, and heads read response tokens alone."""

from __future__ import annotations

import gc
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import rlhf.ppo.models
from rlhf.ppo import PPOTrainer
from tests.rlhf.ppo.helpers import classifier_of, entries, leaning_model, policy_of, trainer_for
from tests.tiny import tiny_tokenizer

EPOCHS, BATCH = 3, 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that ends a response at each token with a probability of 1 in 8."""
    return leaning_model(tmp_path_factory.mktemp("model"), tiny_tokenizer().eos_token_id, 1 / 8)


class Passes:
    """Counts what goes through a module."""

    def __init__(self, module: nn.Module) -> None:
        self.rows: Counter[str] = Counter()
        self.shapes: list[torch.Size] = []
        self.options: set[str] = set()
        module.register_forward_pre_hook(self, with_kwargs=True)

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...], options: dict[str, Any]) -> None:
        ids = options.get("input_ids", inputs[0] if inputs else None)
        self.shapes.append(ids.shape)
        self.options |= {name for name, value in options.items() if value is True}
        sampling = "prompt" if ids.shape[1] > 1 else "token"
        self.rows[sampling if options.get("use_cache") else "whole"] += ids.shape[0]


def trainer_with(folder: Path, output: Path, **arguments: Any) -> PPOTrainer:
    """One rollout of responses of uneven length."""
    settings = {"num_ppo_epochs": EPOCHS, "total_episodes": BATCH, "response_length": 24}
    return trainer_for(folder, output, settings=settings | arguments.pop("settings", {}), **arguments)


def test_no_model_reads_a_sequence_twice_without_need(folder: Path, tmp_path: Path) -> None:
    """Policy and critic once before the update and once in each epoch; reference and reward once; each prompt once."""
    reference, reward = policy_of(folder), classifier_of(folder)
    trainer = trainer_with(folder, tmp_path, ref_model=reference, reward_model=reward)
    policy, critic = trainer.model.policy.model, trainer.model.critic.model
    passes = {name: Passes(m.model) for name, m in (("policy", policy), ("critic", critic), ("ref", reference))}
    passes["reward"] = Passes(reward.model)
    trainer.train()
    assert {name: one.rows["whole"] for name, one in passes.items()} == {
        "policy": BATCH * (1 + EPOCHS),
        "critic": BATCH * (1 + EPOCHS),
        "ref": BATCH,
        "reward": BATCH,
    }
    assert passes["policy"].rows["prompt"] == BATCH
    for one in passes.values():
        assert not {"output_hidden_states", "output_attentions"} & one.options
        assert one is passes["policy"] or "use_cache" not in one.options, "only sampling keeps a key-value cache"


@pytest.mark.parametrize("logits_at_once", [2**27, 400 * 5], ids=["one chunk", "chunks of five tokens"])
def test_logits_are_made_of_response_tokens_alone_and_in_chunks(
    folder: Path, tmp_path: Path, logits_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rlhf.ppo.models, "LOGITS_AT_ONCE", logits_at_once)
    trainer = trainer_with(folder, tmp_path, settings={"num_ppo_epochs": 1, "num_mini_batches": 1})
    head = Passes(trainer.model.policy.model.get_output_embeddings())
    trainer.train()
    packed = [shape[0] for shape in head.shapes if len(shape) == 2]
    tokens = round(entries(trainer, "response/length")[0] * BATCH)
    assert tokens < BATCH * 24, "some response must have ended early"
    chunked = logits_at_once < 2**27  # each chunk of the update is made again in the backward pass
    assert 2 * tokens <= sum(packed) <= (3 if chunked else 2) * tokens, "before the update and in it"
    assert max(packed) <= logits_at_once // 400
    sampled = [shape for shape in head.shapes if len(shape) == 3]
    assert all(shape[1] == 1 for shape in sampled), "sampling needs the logits of the last token only"


def test_the_entropy_is_asked_for_at_the_rollout_alone(folder: Path, tmp_path: Path) -> None:
    """It takes a whole softmax more."""
    trainer = trainer_with(folder, tmp_path)
    asked: list[bool] = []
    forward = trainer.model.forward

    def counted(input_ids: Any, response_mask: Any, with_entropy: bool = False, **more: Any) -> Any:
        if more.get("with_logprobs", True):  # else it is the critic's turn
            asked.append(with_entropy)
        return forward(input_ids, response_mask, with_entropy, **more)

    trainer.model.forward = counted
    trainer.train()
    assert Counter(asked) == {True: 4, False: 4 * EPOCHS}  # micro-batches of two rows


def test_memory_is_not_swept_while_training(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of TRL's update that took about a tenth; the loop of transformers sweeps once, before the first step."""
    swept: list[str] = []
    monkeypatch.setattr(gc, "collect", lambda *args: swept.append("gc"))
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: swept.append("cuda"))
    trainer_with(folder, tmp_path, settings={"total_episodes": 3 * BATCH}).train()
    assert len(swept) <= 1


def test_reference_and_reward_are_frozen(folder: Path, tmp_path: Path) -> None:
    reference, reward = policy_of(folder).train(), classifier_of(folder).train()
    trainer = trainer_with(folder, tmp_path, ref_model=reference, reward_model=reward)
    trainer.train()
    for model in (reference, reward):
        assert not model.training
        assert not any(parameter.requires_grad for parameter in model.parameters())
