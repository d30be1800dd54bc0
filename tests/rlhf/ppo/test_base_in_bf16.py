"""With LoRA under bf16 the frozen linear weights are stored in bfloat16, and a run is what autocast makes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel
from safetensors.torch import load_file
from torch import nn

from reward import RewardModel
from rlhf.ppo import PPOTrainer, setup
from rlhf.ppo.base_in_bf16 import BFloat16Linear, store_base_in_bf16
from rlhf.ppo.models import base_of
from tests.rlhf.ppo.helpers import entries, policy_of, reward_adapter, trainer_for
from tests.tiny import tiny_model

CHECKPOINTS = {"save_strategy": "steps", "save_steps": 4}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("model"), tie_word_embeddings=False)


def trainer_with(folder: Path, output: Path, *, lora: dict[str, Any] | None = None, **arguments: Any) -> PPOTrainer:
    config = LoraConfig(**{"r": 4, "target_modules": "all-linear", **(lora or {})})
    settings = {"bf16": True, "learning_rate": 1e-2, **arguments.pop("settings", {})}
    return trainer_for(folder, output, settings=settings, peft_config=config, **arguments)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.safetensors"))}


def in_bf16(model: nn.Module) -> set[str]:
    return {name for name, tensor in model.named_parameters() if tensor.dtype == torch.bfloat16}


def test_the_linear_base_alone_is_rounded(folder: Path, tmp_path: Path) -> None:
    trainer = trainer_with(folder, tmp_path, reward_model=reward_adapter(folder, tmp_path / "reward"))
    policy, critic = trainer.model.policy.model, trainer.model.critic.model
    scorer = trainer.reward.rewards[0].model
    for model in (policy, critic, scorer):
        rounded = in_bf16(model)
        assert len([name for name in rounded if "proj" in name]) == 2 * 7, "of both layers"
        assert not [name for name in rounded if any(part in name for part in ("lora_", "embed", "norm", "score"))]
        assert {type(module) for module in model.modules() if isinstance(module, nn.Linear)} >= {BFloat16Linear}
    assert any("lm_head" in name for name in in_bf16(policy))
    own = {name.replace(".base_layer", ""): tensor for name, tensor in base_of(policy).named_parameters()}
    for name, tensor in policy_of(folder).named_parameters():
        assert torch.equal(own[name], tensor.to(own[name].dtype)), name


@pytest.mark.parametrize("kind", ["float32", "switched off", "full weights", "dora", "vllm"])
def test_where_it_would_change_something_nothing_is_rounded(folder: Path, tmp_path: Path, kind: str) -> None:
    settings = {"float32": {"bf16": False}, "switched off": {"base_in_bf16": False}}.get(kind, {})
    if kind == "full weights":
        trainer = trainer_for(folder, tmp_path, settings={"bf16": True})
    elif kind == "vllm":
        trainer = trainer_with(folder, tmp_path, settings={"base_in_bf16": False})
        trainer.args.base_in_bf16, trainer.args.rollout_engine = True, "vllm"
        store_base_in_bf16(trainer.args, (trainer.model.policy.model, trainer.model.critic.model), [])
    else:
        trainer = trainer_with(folder, tmp_path, settings=settings, lora={"use_dora": kind == "dora"})
    assert not in_bf16(trainer.model)


def test_a_head_tied_to_the_embedding_stays(tmp_path: Path) -> None:
    tied = tiny_model(tmp_path / "tied", tie_word_embeddings=True)
    policy = trainer_with(tied, tmp_path).model.policy.model
    assert base_of(policy).lm_head.weight is base_of(policy).get_input_embeddings().weight
    assert base_of(policy).lm_head.weight.dtype == torch.float32
    assert in_bf16(policy)


@pytest.mark.parametrize("share_base", [True, False])
def test_a_run_is_bit_by_bit_that_of_autocast(folder: Path, tmp_path: Path, share_base: bool) -> None:
    own, plain = (
        trainer_with(folder, tmp_path / str(kept), settings={"base_in_bf16": kept, "share_base": share_base})
        for kept in (True, False)
    )
    assert in_bf16(own.model) and not in_bf16(plain.model)
    for trainer in (own, plain):
        trainer.train()
        trainer.save_model(str(Path(trainer.args.output_dir) / "end"))
    for name in ("loss", "grad_norm", "objective/scores", "objective/kl", "loss/value_avg", "policy/entropy_avg"):
        assert entries(own, name) == entries(plain, name), name
    assert files(tmp_path / "True" / "end") == files(tmp_path / "False" / "end")
    saved = load_file(tmp_path / "True" / "end" / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in saved.values()} == {torch.float32}
    assert max(tensor.abs().max() for name, tensor in saved.items() if "lora_B" in name) > 0


def test_base_files_stay_and_a_killed_run_resumes_bit_by_bit(folder: Path, tmp_path: Path) -> None:
    before = files(folder)
    reward = reward_adapter(folder, tmp_path / "reward")
    whole = trainer_with(folder, tmp_path / "a", reward_model=reward, settings=CHECKPOINTS)
    whole.train()
    again = trainer_with(folder, tmp_path / "b", reward_model=reward, settings=CHECKPOINTS)
    again.train(resume_from_checkpoint=tmp_path / "a" / "checkpoint-4")
    assert files(tmp_path / "a" / "checkpoint-8") == files(tmp_path / "b" / "checkpoint-8")
    assert files(folder) == before
    PeftModel.from_pretrained(policy_of(folder), tmp_path / "b" / "checkpoint-8")


def test_a_reward_on_the_base_scores_without_autocast_too(folder: Path, tmp_path: Path) -> None:
    reward = reward_adapter(folder, tmp_path / "reward")
    trainer = trainer_with(folder, tmp_path, reward_model=reward)
    conversation = [{"role": "user", "content": "Where is it?"}, {"role": "assistant", "content": "It is late."}]
    score = trainer.reward.rewards[0].scorer.score([conversation])
    assert score.dtype == torch.float32
    torch.testing.assert_close(score, RewardModel.load(reward).score([conversation]), atol=0.05, rtol=0.05)


def test_a_rounded_layer_takes_any_input() -> None:
    torch.manual_seed(0)
    layer, given = nn.Linear(8, 3), torch.randn(5, 8)
    with torch.autocast("cpu", torch.bfloat16):
        expected = layer(given)
    by_hand = given.bfloat16() @ layer.weight.detach().bfloat16().T + layer.bias.detach().bfloat16()
    layer.to(torch.bfloat16).__class__ = BFloat16Linear
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer(given), expected)
    assert layer(given).dtype == torch.float32
    torch.testing.assert_close(layer(given), by_hand.float(), atol=0.02, rtol=0.02)


@pytest.mark.parametrize("bf16", [False, True])
def test_learning_apart_is_bit_by_bit_learning_together(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bf16: bool
) -> None:
    """On one process the critic runs when the policy's activations are gone; several need one backward pass."""
    settings = {"bf16": bf16, "micro_batch_tokens": 60, "value_warmup_rollouts": 1, **CHECKPOINTS}
    apart = trainer_for(folder, tmp_path / "apart", settings=settings)
    assert setup.learn_apart(apart.args)
    apart.train()
    monkeypatch.setattr(setup, "learn_apart", lambda args: False)
    together = trainer_for(folder, tmp_path / "together", settings=settings)
    together.train()
    for name in ("loss", "grad_norm", "loss/value_avg", "policy/approxkl_avg"):
        assert entries(apart, name) == entries(together, name), name
    assert files(tmp_path / "apart" / "checkpoint-8") == files(tmp_path / "together" / "checkpoint-8")
