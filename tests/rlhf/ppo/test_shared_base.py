"""With LoRA, policy, reference, critic and reward stand on one base in memory, and compute what separate models do."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel, TrainerCallback

from plumbline.models import load_tokenizer
from reward import RewardModel
from rlhf.ppo import PPOTrainer
from rlhf.ppo.models import base_of
from rlhf.ppo.shared_base import classifier_adapter_over, classifier_over, holds_backbone_of, view_of
from tests.rlhf.ppo.helpers import classifier_of, entries, good_share, policy_of, reward_adapter, trainer_for
from tests.tiny import tiny_model, user

IDS = torch.tensor([[5, 6, 7, 8]])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def reward(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reward model that is an adapter over the policy's weights."""
    return reward_adapter(folder, tmp_path_factory.mktemp("reward"))


def lora(**values: Any) -> LoraConfig:
    return LoraConfig(**{"r": 4, "target_modules": "all-linear", **values})


def policy_with_adapter(folder: Path) -> PeftModel:
    torch.manual_seed(3)
    model = get_peft_model(policy_of(folder), lora(task_type="CAUSAL_LM"))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return model


def storages(*models: torch.nn.Module) -> dict[int, int]:
    """Elements of each storage below the models' parameters, by address."""
    return {
        tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() // tensor.element_size()
        for model in models
        for tensor in model.parameters()
    }


def size(model: torch.nn.Module, *parts: str) -> int:
    return sum(tensor.numel() for name, tensor in model.named_parameters() if any(part in name for part in parts))


def reward_of(trainer: PPOTrainer) -> Any:
    return trainer.reward.rewards[0].model


def test_four_roles_hold_the_base_once(folder: Path, reward: Path, tmp_path: Path) -> None:
    trainer = trainer_for(folder, tmp_path, peft_config=lora(), reward_model=reward)
    policy, critic, scorer = trainer.model.policy.model, trainer.model.critic.model, reward_of(trainer)
    assert trainer.reference.separate is None
    expected = size(policy_of(folder), "") + size(policy, "lora_")
    expected += sum(size(model, "lora_", "score") for model in (critic, scorer))
    for _ in range(2):  # before and after the training
        assert sum(storages(policy, critic, scorer).values()) == expected
        trainer.train()
    separate = trainer_for(folder, tmp_path, peft_config=lora(), reward_model=reward, settings={"share_base": False})
    models = (separate.model, reward_of(separate))
    assert sum(storages(*models).values()) > 2.9 * size(policy_of(folder), "")


def test_a_policy_that_came_with_an_adapter_shares_its_base_too(folder: Path, reward: Path, tmp_path: Path) -> None:
    trainer = trainer_for(folder, tmp_path, model=policy_with_adapter(folder), reward_model=reward)
    policy, critic, scorer = trainer.model.policy.model, trainer.model.critic.model, reward_of(trainer)
    expected = size(policy_of(folder), "") + size(policy, "lora_")  # the reference's adapter among them
    expected += sum(size(model, "lora_", "score") for model in (critic, scorer))
    assert sum(storages(policy, critic, scorer).values()) == expected
    trainable = {name.split(".")[0] for name, tensor in trainer.model.named_parameters() if tensor.requires_grad}
    assert trainable == {"policy", "critic"}


class Gradients(TrainerCallback):
    """Keeps the gradients of every optimizer step, by parameter."""

    def __init__(self) -> None:
        self.steps: list[dict[str, torch.Tensor]] = []

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        found = {name: p.grad.clone() for name, p in kwargs["model"].named_parameters() if p.grad is not None}
        self.steps.append(found)


def separated(model: torch.nn.Module) -> torch.nn.Module:
    """A copy that shares no tensor with anything."""
    found = copy.deepcopy(model)
    found.requires_grad_(False)
    found.set_adapter("default")
    return found


@pytest.mark.parametrize(
    ("scorer", "adapter", "checkpointing"),
    [
        ("adapter", "new", False),
        ("adapter", "came with the policy", True),
        ("full", "came with the policy", False),
        ("function", "new", True),
    ],
)
def test_losses_and_gradients_are_those_of_separate_models(
    folder: Path, reward: Path, tmp_path: Path, scorer: str, adapter: str, checkpointing: bool
) -> None:
    """The separate models are made by other code: copies of the trained parts, the reward merged into its own base."""
    rewards = {"adapter": reward, "full": classifier_of(folder), "function": good_share}
    settings = {"gradient_checkpointing": checkpointing, "total_episodes": 24, "max_grad_norm": 0.0}
    policy = {"peft_config": lora()} if adapter == "new" else {"model": policy_with_adapter(folder)}
    seen = Gradients(), Gradients()
    torch.manual_seed(1)
    shared = trainer_for(
        folder, tmp_path / "a", settings=settings, reward_model=rewards[scorer], callbacks=[seen[0]], **policy
    )
    alone = trainer_for(
        folder,
        tmp_path / "b",
        settings={**settings, "share_base": False},
        model=separated(shared.model.policy.model) if adapter == "new" else policy_with_adapter(folder),
        ref_model=policy_of(folder) if adapter == "new" else None,
        value_model=separated(shared.model.critic.model),
        reward_model=RewardModel.load(reward) if scorer == "adapter" else rewards[scorer],
        callbacks=[seen[1]],
    )
    assert set(storages(shared.model)).isdisjoint(storages(alone.model))
    for trainer in (shared, alone):
        trainer.train()
    for name in ("loss", "loss/policy_avg", "loss/value_avg", "objective/scores", "objective/kl", "grad_norm"):
        assert entries(shared, name) == pytest.approx(entries(alone, name), abs=1e-5), name
    assert len(seen[0].steps) == len(seen[1].steps) == 12
    for one, other in zip(seen[0].steps, seen[1].steps, strict=True):
        assert one.keys() == other.keys()
        assert all("lora_" in name or "score" in name for name in one)
        for name, gradient in one.items():
            torch.testing.assert_close(gradient, other[name], atol=1e-5, rtol=1e-4)
    moved = [name for name in seen[0].steps[-1] if seen[0].steps[-1][name].abs().max() > 0]
    assert {name.split(".")[0] for name in moved} == {"policy", "critic"}


def test_training_leaves_base_reference_and_reward_as_they_were(folder: Path, reward: Path, tmp_path: Path) -> None:
    trainer = trainer_for(folder, tmp_path, peft_config=lora(), reward_model=reward, settings={"learning_rate": 1e-2})
    conversation = [*user("Where is my order?"), {"role": "assistant", "content": "It is late."}]
    scorer = trainer.reward.rewards[0].scorer
    expected = RewardModel.load(reward).score([conversation])
    before, plain = scorer.score([conversation]), policy_of(folder).eval()(IDS).logits
    torch.testing.assert_close(before, expected, atol=1e-5, rtol=1e-5)
    trainer.train()
    assert torch.equal(scorer.score([conversation]), before)
    assert all(not parameter.requires_grad for parameter in scorer.model.parameters())
    for name, tensor in base_of(trainer.model.policy.model).named_parameters():
        if "lora_" not in name:
            assert not tensor.requires_grad
    with trainer.model.policy.model.disable_adapter():
        torch.testing.assert_close(trainer.model.policy.model.eval()(IDS).logits, plain)
    assert not torch.allclose(trainer.model.policy.model(IDS).logits, plain, atol=1e-4)


def test_the_critic_starts_from_the_rewards_adapter_and_head(folder: Path, reward: Path, tmp_path: Path) -> None:
    trainer = trainer_for(folder, tmp_path, peft_config=lora(), reward_model=reward)
    critic, scorer = trainer.model.critic.model, reward_of(trainer)
    assert critic.peft_config["default"].r == 3, "the reward's adapter, not peft_config"
    merged = RewardModel.load(reward).model
    expected = merged.score(merged.model(IDS).last_hidden_state).squeeze(-1)
    torch.testing.assert_close(trainer.model.critic(IDS), expected, atol=1e-5, rtol=1e-5)
    own = {name: tensor for name, tensor in critic.named_parameters() if tensor.requires_grad}
    assert {name.split(".")[-2] for name in own} == {"default"}
    assert set(storages(scorer)) & {tensor.data_ptr() for tensor in own.values()} == set()


def test_without_a_reward_on_the_base_the_critic_starts_at_zero_and_says_so(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    trainer = trainer_for(folder, tmp_path, peft_config=lora(r=5), reward_model=classifier_of(folder))
    assert (trainer.model.critic(IDS) == 0).all()
    assert trainer.model.critic.model.peft_config["default"].r == 5
    assert "a new adapter on the policy's base with a head of zeros" in caplog.text
    before = trainer.model.critic.model.get_base_model().score.weight.clone()
    trainer.train()
    assert not torch.equal(trainer.model.critic.model.get_base_model().score.weight, before)


def test_a_reward_over_other_weights_keeps_its_own_base(folder: Path, tmp_path: Path) -> None:
    other = reward_adapter(tiny_model(tmp_path / "other", seed=1), tmp_path / "reward")
    trainer = trainer_for(folder, tmp_path, peft_config=lora(), reward_model=other)
    assert not isinstance(reward_of(trainer), PeftModel)
    assert (trainer.model.critic(IDS) == 0).all()
    trainer.train()


def test_a_reward_in_memory_moves_onto_the_base(folder: Path, reward: Path, tmp_path: Path) -> None:
    base = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1, dtype="float32")
    model = PeftModel.from_pretrained(base, reward).eval()
    before = base(IDS).logits
    trainer = trainer_for(folder, tmp_path, peft_config=lora(), reward_model=model)
    embeddings = [part.get_input_embeddings().weight for part in (model, trainer.model.policy.model)]
    assert embeddings[0] is embeddings[1]
    assert torch.equal(base(IDS).logits, before)
    assert trainer.model.critic.model.peft_config["default"].r == 3
    other = RewardModel(PeftModel.from_pretrained(classifier_of(folder), reward), load_tokenizer(reward))
    with torch.no_grad():
        other.model.get_input_embeddings().weight[0, 0] += 1
    trainer = trainer_for(folder, tmp_path, peft_config=lora(), reward_model=other)
    assert not set(storages(other.model)) & set(storages(trainer.model))


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"bias": "all"}, "trains biases of the base"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights='pissa' changes the base"),
    ],
)
def test_adapters_that_change_the_base_are_not_shared(
    folder: Path, reward: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, values: dict[str, Any], why: str
) -> None:
    caplog.set_level("INFO")
    trainer = trainer_for(folder, tmp_path, peft_config=lora(**values), reward_model=reward)
    assert why in caplog.text
    assert not set(storages(trainer.model.policy)) & set(storages(trainer.model.critic, reward_of(trainer)))


def test_a_base_that_is_trained_beside_the_adapter_is_not_shared(folder: Path, tmp_path: Path) -> None:
    model = policy_with_adapter(folder)
    model.get_base_model().model.norm.weight.requires_grad_(True)
    trainer = trainer_for(folder, tmp_path, model=model)
    assert not set(storages(trainer.model.policy)) & set(storages(trainer.model.critic))


def test_checkpoints_hold_each_part_as_from_pretrained_loads_it(folder: Path, reward: Path, tmp_path: Path) -> None:
    trainer = trainer_for(
        folder,
        tmp_path,
        peft_config=lora(),
        reward_model=reward,
        settings={"save_strategy": "steps", "save_steps": 4, "learning_rate": 1e-2},
    )
    trainer.train()
    saved = tmp_path / "checkpoint-8"
    base = size(policy_of(folder), "")
    for part in (saved, saved / "value_model"):
        assert sum(tensor.numel() for tensor in load_file(part / "adapter_model.safetensors").values()) < base
        assert json.loads((part / "adapter_config.json").read_text())["base_model_name_or_path"] == str(folder)
    policy = PeftModel.from_pretrained(policy_of(folder), saved).eval()
    torch.testing.assert_close(policy(IDS).logits, trainer.model.policy.model.eval()(IDS).logits)
    critic = PeftModel.from_pretrained(classifier_of(folder), saved / "value_model").get_base_model()
    values = critic.score(critic.model(IDS).last_hidden_state).squeeze(-1)
    torch.testing.assert_close(values, trainer.model.critic(IDS))
    AutoTokenizer.from_pretrained(folder).save_pretrained(saved / "value_model")
    again = trainer_for(folder, tmp_path / "again", peft_config=lora(), value_model=saved / "value_model")
    torch.testing.assert_close(again.model.critic(IDS), values)
    assert sum(parameter.requires_grad for parameter in again.model.critic.parameters()) > 0
    assert set(storages(again.model.policy)) & set(storages(again.model.critic))


def test_a_view_is_the_model_without_its_adapter_over_the_same_tensors(folder: Path) -> None:
    policy = policy_with_adapter(folder)
    view = view_of(policy)
    assert isinstance(view, PreTrainedModel) and not isinstance(view, PeftModel)
    assert set(storages(view)) < set(storages(policy))
    assert torch.equal(view.eval()(IDS).logits, policy_of(folder).eval()(IDS).logits)
    assert not torch.allclose(policy.eval()(IDS).logits, view(IDS).logits)
    classifier = classifier_over(policy)
    assert isinstance(classifier, type(classifier_of(folder)))
    assert torch.equal(classifier.model(IDS).last_hidden_state, view.model(IDS).last_hidden_state)


def test_weights_are_compared_value_by_value(folder: Path, reward: Path, tmp_path: Path) -> None:
    model = policy_of(folder)
    assert holds_backbone_of(model, folder)
    assert not holds_backbone_of(model.to(torch.bfloat16), folder), "rounded weights are other weights"
    model.save_pretrained(tmp_path)
    assert holds_backbone_of(model.float(), tmp_path), "the values of bfloat16 are exact in float32"
    with torch.no_grad():
        model.model.norm.weight[3] += 1e-3
    assert not holds_backbone_of(model, tmp_path)
    assert classifier_adapter_over(model, reward) is None
    assert classifier_adapter_over(policy_of(folder), folder) is None, "full weights are no adapter"
