"""The trainer: what it steps, logs, learns and refuses."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, DataCollatorWithPadding, TrainerCallback

from rlhf.ppo import PPOTrainer
from tests.rlhf.ppo.helpers import (
    classifier_of,
    conversations,
    entries,
    good_share,
    policy_of,
    settings_for,
    trainer_for,
)
from tests.tiny import EOS, tiny_model, user


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("model"))


class Steps(TrainerCallback):
    """Counts the optimizer's steps and keeps the gradient norms that it saw."""

    def __init__(self) -> None:
        self.steps, self.norms = 0, []

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        parameters = [p for p in kwargs["model"].parameters() if p.grad is not None]
        self.norms.append(torch.stack([p.grad.norm() for p in parameters]).norm().item())

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.steps += 1


def weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("prompts", [3, 5, 8, 20], ids=["fewer than a rollout", "uneven", "even", "more"])
def test_steps_are_epochs_times_mini_batches_per_rollout(folder: Path, tmp_path: Path, prompts: int) -> None:
    steps = Steps()
    trainer = trainer_for(
        folder,
        tmp_path,
        settings={"total_episodes": 20, "num_ppo_epochs": 3},
        train_dataset=conversations(prompts),
        callbacks=[steps],
    )
    trainer.train()
    rollouts = 3  # 20 episodes in rollouts of 8
    assert steps.steps == trainer.state.global_step == rollouts * 3 * 2
    assert entries(trainer, "episode") == [8, 16, 24]
    assert entries(trainer, "epoch")[:3] == [8 / prompts, 16 / prompts, 24 / prompts]


def test_max_steps_is_rounded_up_to_whole_rollouts(folder: Path, tmp_path: Path) -> None:
    trainer = trainer_for(folder, tmp_path, settings={"max_steps": 5})
    trainer.train()
    assert trainer.state.global_step == 8


def test_the_first_step_has_ratio_one_and_no_kl(folder: Path, tmp_path: Path) -> None:
    """Also with dropout in the configuration, a temperature, and several micro-batches."""
    model = AutoModelForCausalLM.from_pretrained(folder, attention_dropout=0.5, dtype="float32")
    trainer = trainer_for(
        folder, tmp_path, settings={"temperature": 0.7, "learning_rate": 0.0, "total_episodes": 8}, model=model
    )
    ratios: list[torch.Tensor] = []
    losses = trainer._losses

    def observed(model: Any, rollout: Any, batch: Any) -> Iterator[torch.Tensor]:
        logprobs = model(batch.input_ids, batch.response_mask).logprobs
        ratios.append((logprobs - rollout.packed(rollout.logprobs, batch)).exp())
        return losses(model, rollout, batch)

    trainer._losses = observed
    trainer.train()
    assert (ratios[0] == 1).all() and (ratios[1] == 1).all()
    assert entries(trainer, "objective/kl") == [0.0]
    assert entries(trainer, "val/ratio") == pytest.approx([1.0], abs=1e-6)
    assert entries(trainer, "policy/clipfrac_avg") == [0.0]


def test_gradients_are_clipped_and_the_norm_is_logged(folder: Path, tmp_path: Path) -> None:
    steps = Steps()
    trainer = trainer_for(folder, tmp_path, settings={"max_grad_norm": 1e-3}, callbacks=[steps])
    trainer.train()
    assert max(steps.norms) <= 1e-3 * 1.01
    assert min(entries(trainer, "grad_norm")) > 1e-3


def first_gradient(folder: Path, output: Path, **settings: Any) -> dict[str, torch.Tensor]:
    """The gradient of the first optimizer step."""
    found: dict[str, torch.Tensor] = {}

    class Keep(TrainerCallback):
        def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == 0:
                found.update({n: p.grad.clone() for n, p in kwargs["model"].named_parameters() if p.grad is not None})

    options = {"total_episodes": 8, "max_grad_norm": 0.0, "missing_eos_penalty": 0.5, **settings}
    trainer_for(folder, output, settings=options, callbacks=[Keep()], reward_model=classifier_of(folder)).train()
    return found


@pytest.mark.parametrize(
    "settings",
    [
        {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 1},
        {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 8},
        {"micro_batch_tokens": 60},
        {"local_rollout_forward_batch_size": 1},
    ],
    ids=["one micro-batch", "single rows", "token budget", "generated alone"],
)
def test_the_gradient_does_not_depend_on_micro_batches_nor_padding(
    folder: Path, tmp_path: Path, settings: dict[str, Any]
) -> None:
    """Losses are normalised by the tokens of the whole mini-batch, and padding adds nothing."""
    expected = first_gradient(folder, tmp_path / "one")
    for name, gradient in first_gradient(folder, tmp_path / "other", **settings).items():
        torch.testing.assert_close(gradient, expected[name], atol=1e-6, rtol=1e-4)


def test_padding_side_changes_nothing(folder: Path, tmp_path: Path) -> None:
    found = []
    for side in ("left", "right"):
        tokenizer = AutoTokenizer.from_pretrained(folder, padding_side=side)
        trainer = trainer_for(folder, tmp_path / side, processing_class=tokenizer, reward_model=classifier_of(folder))
        trainer.train()
        found.append([entries(trainer, name) for name in ("loss", "objective/scores", "objective/kl")])
    assert found[0] == found[1]


def test_pad_equal_to_eos_works(tmp_path: Path) -> None:
    """The same model under a tokenizer whose pad is the eos token: same tokens, same scores, same losses."""
    folder = tiny_model(tmp_path / "model")
    found = []
    for pad in (None, EOS):
        tokenizer = AutoTokenizer.from_pretrained(folder)
        tokenizer.pad_token = pad or tokenizer.pad_token
        reward = classifier_of(folder)
        reward.config.pad_token_id = tokenizer.pad_token_id
        trainer = trainer_for(
            folder,
            tmp_path / str(pad),
            processing_class=tokenizer,
            reward_model=reward,
            settings={"stop_token_id": 20, "missing_eos_penalty": 1.0, "total_episodes": 32, "response_length": 24},
        )
        trainer.train()
        assert sum(entries(trainer, "val/num_eos_tokens")) > 0
        found.append([entries(trainer, name) for name in ("loss", "objective/scores", "objective/rlhf_reward")])
    assert found[0] == found[1]


@pytest.mark.parametrize("kind", ["conversation", "text", "input_ids"])
def test_all_kinds_of_prompts_train(folder: Path, tmp_path: Path, kind: str) -> None:
    texts = ["Where is it?", "Hello", "I want a refund."]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rows: dict[str, list[dict[str, Any]]] = {
        "conversation": [{"prompt": user(text), "topic": text} for text in texts],
        "text": [{"prompt": text, "topic": text} for text in texts],
        "input_ids": [{"input_ids": tokenizer(text)["input_ids"], "topic": text} for text in texts],
    }
    seen: list[dict[str, Any]] = []

    def reward(prompts: list[Any], completions: list[Any], topic: list[str], **rest: Any) -> list[float]:
        for prompt, completion, column in zip(prompts, completions, topic, strict=True):
            seen.append({"prompt": prompt, "completion": completion, "topic": column})
        return [float(len(str(completion)) % 7) for completion in completions]

    trainer = trainer_for(folder, tmp_path, train_dataset=Dataset.from_list(rows[kind]), reward_model=reward)
    before = weights(trainer.model)
    trainer.train()
    after = weights(trainer.model)
    assert any((before[n] != after[n]).any() for n in before if n.startswith("policy"))
    assert any((before[n] != after[n]).any() for n in before if n.startswith("critic"))
    assert {row["topic"] for row in seen} == set(texts)
    for row in seen:
        if kind == "conversation":
            assert row["prompt"] == user(row["topic"])
            assert row["completion"][0]["role"] == "assistant"
        else:
            assert row["prompt"] == row["topic"]
            assert isinstance(row["completion"], str)


def test_a_planted_reward_is_learned(folder: Path, tmp_path: Path) -> None:
    trainer = trainer_for(
        folder,
        tmp_path,
        settings={
            "per_device_train_batch_size": 32,
            "gradient_accumulation_steps": 1,
            "total_episodes": 32 * 25,
            "learning_rate": 5e-3,
            "lr_scheduler_type": "constant",
            "kl_coef": 0.01,
        },
    )
    trainer.train()
    scores = entries(trainer, "objective/scores")
    assert sum(scores[:3]) / 3 < 0.35
    assert sum(scores[-3:]) / 3 > 0.55


def test_the_kl_penalty_holds_the_policy_back(folder: Path, tmp_path: Path) -> None:
    last = {}
    for coefficient in (0.0, 1.0):
        trainer = trainer_for(
            folder,
            tmp_path / str(coefficient),
            settings={
                "per_device_train_batch_size": 32,
                "gradient_accumulation_steps": 1,
                "total_episodes": 32 * 10,
                "learning_rate": 3e-3,
                "kl_coef": coefficient,
                "kl_target": None,
            },
        )
        trainer.train()
        last[coefficient] = entries(trainer, "objective/kl")[-1]
    assert last[1.0] < 0.5 * last[0.0]


def test_the_critic_starts_from_the_reward_model(folder: Path, tmp_path: Path) -> None:
    reward = classifier_of(folder)
    trainer = trainer_for(folder, tmp_path, reward_model=reward)
    critic = trainer.model.critic.model
    assert critic is not reward
    for name, tensor in reward.state_dict().items():
        torch.testing.assert_close(critic.state_dict()[name], tensor)
    trainer.train()
    assert all(parameter.requires_grad for parameter in critic.parameters())
    assert not torch.equal(critic.score.weight, reward.score.weight)


def test_without_a_reward_model_the_critic_starts_from_the_policy_at_zero(folder: Path, tmp_path: Path) -> None:
    trainer = trainer_for(folder, tmp_path)
    policy, critic = trainer.model.policy.model, trainer.model.critic.model
    torch.testing.assert_close(critic.model.embed_tokens.weight, policy.model.embed_tokens.weight)
    assert (trainer.model.critic(torch.tensor([[5, 6, 7]])) == 0).all()


def test_a_script_of_trl_gives_all_models_itself(folder: Path, tmp_path: Path) -> None:
    value, reference = classifier_of(folder), policy_of(folder)
    torch.nn.init.normal_(reference.model.norm.weight)
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    trainer = PPOTrainer(
        settings_for(tmp_path, total_episodes=8),
        tokenizer,
        policy_of(folder),
        reference,
        classifier_of(folder),
        Dataset.from_list([{"input_ids": [5, 6, 7]}, {"input_ids": [8, 9]}]),
        value,
        DataCollatorWithPadding(tokenizer),
    )
    assert trainer.model.critic.model is value
    trainer.train()
    assert entries(trainer, "objective/kl")[0] != 0.0, "the KL is to the reference that was given"
    assert all(not parameter.requires_grad for parameter in reference.parameters())


def test_a_reward_model_can_be_a_folder(folder: Path, tmp_path: Path) -> None:
    reward = classifier_of(folder)
    reward.save_pretrained(tmp_path / "reward")
    AutoTokenizer.from_pretrained(folder).save_pretrained(tmp_path / "reward")
    trainer = trainer_for(folder, tmp_path, reward_model=str(tmp_path / "reward"))
    torch.testing.assert_close(trainer.model.critic.model.score.weight, reward.score.weight)
    trainer.train()
    assert len(set(entries(trainer, "objective/scores"))) == 2


def test_lora_trains_adapters_against_the_base(folder: Path, tmp_path: Path) -> None:
    config = LoraConfig(r=4, target_modules="all-linear", lora_dropout=0.1)
    trainer = trainer_for(
        folder,
        tmp_path,
        peft_config=config,
        reward_model=classifier_of(folder),
        settings={"learning_rate": 1e-2, "total_episodes": 24},
    )
    assert trainer.reference.separate is None, "one base serves policy and reference"
    before = weights(trainer.model)
    trainer.train()
    moved = {name for name, tensor in weights(trainer.model).items() if not torch.equal(tensor, before[name])}
    assert moved and all("lora_" in name or "modules_to_save" in name for name in moved)
    assert {name.split(".")[0] for name in moved} == {"policy", "critic"}
    kl = entries(trainer, "objective/kl")
    assert kl[0] == 0.0 and kl[-1] != 0.0
    trainer.save_model(str(tmp_path / "saved"))
    again = PeftModel.from_pretrained(policy_of(folder), tmp_path / "saved").eval()
    ids = torch.tensor([[5, 6, 7, 8]])
    torch.testing.assert_close(again(ids).logits, trainer.model.policy.model.eval()(ids).logits)


def test_an_adapter_that_came_with_the_policy_is_its_own_reference(folder: Path, tmp_path: Path) -> None:
    model = get_peft_model(policy_of(folder), LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3, generator=torch.Generator().manual_seed(0))
    trainer = trainer_for(folder, tmp_path, model=model, settings={"learning_rate": 1e-2, "total_episodes": 24})
    trainer.train()
    kl = entries(trainer, "objective/kl")
    assert kl[0] == pytest.approx(0.0, abs=1e-5), "the reference has the adapter too"
    assert abs(kl[-1]) > 1e-3
    trainer.save_model(str(tmp_path / "saved"))
    assert (tmp_path / "saved" / "adapter_model.safetensors").exists()
    assert not (tmp_path / "saved" / "reference").exists()


def test_critic_warm_up_leaves_the_policy_alone(folder: Path, tmp_path: Path) -> None:
    trainer = trainer_for(folder, tmp_path, settings={"value_warmup_rollouts": 2, "total_episodes": 16})
    before = weights(trainer.model)
    trainer.train()
    for name, tensor in weights(trainer.model).items():
        if name.startswith("policy"):
            torch.testing.assert_close(tensor, before[name], atol=0, rtol=0)
    assert not torch.equal(trainer.model.critic.model.score.weight, before["critic.model.score.weight"])


def test_the_critic_can_have_its_own_learning_rate(folder: Path, tmp_path: Path) -> None:
    trainer = trainer_for(folder, tmp_path, settings={"learning_rate": 0.0, "value_learning_rate": 1e-2})
    before = weights(trainer.model)
    trainer.train()
    after = weights(trainer.model)
    assert all(torch.equal(after[n], before[n]) for n in before if n.startswith("policy"))
    assert any(not torch.equal(after[n], before[n]) for n in before if n.startswith("critic"))


def test_missing_end_tokens_cost_the_penalty_after_normalisation(folder: Path, tmp_path: Path) -> None:
    settings = {"missing_eos_penalty": 3.0, "normalize_scores": True, "kl_coef": 0.0, "stop_token": None}
    trainer = trainer_for(folder, tmp_path, settings={**settings, "total_episodes": 8})
    trainer.train()
    # No response ends; normalised scores of the first rollout have mean 0, so only the penalty is left.
    assert entries(trainer, "objective/rlhf_reward") == pytest.approx([-3.0], abs=1e-5)


def test_log_save_and_evaluation_wait_for_the_end_of_the_rollout(folder: Path, tmp_path: Path) -> None:
    trainer = trainer_for(
        folder,
        tmp_path,
        settings={
            "total_episodes": 24,
            "logging_steps": 3,
            "save_strategy": "steps",
            "save_steps": 5,
            "eval_strategy": "steps",
            "eval_steps": 7,
        },
        eval_dataset=conversations(3),
    )
    trainer.train()
    steps = {
        "loss": [entry["step"] for entry in trainer.state.log_history if "loss" in entry],
        "eval": [entry["step"] for entry in trainer.state.log_history if "eval_objective/scores" in entry],
        "save": sorted(int(path.name.split("-")[1]) for path in tmp_path.glob("checkpoint-*")),
    }
    assert steps == {"loss": [4, 8, 12], "eval": [8, 12], "save": [8, 12]}


def test_evaluation_is_the_same_each_time_and_leaves_training_alone(folder: Path, tmp_path: Path) -> None:
    def trained(output: Path, **settings: Any) -> PPOTrainer:
        trainer = trainer_for(folder, output, settings=settings, eval_dataset=conversations(4))
        trainer.train()
        return trainer

    with_evaluation = trained(tmp_path / "a", eval_strategy="steps", eval_steps=4)
    without = trained(tmp_path / "b")
    assert entries(with_evaluation, "loss") == entries(without, "loss")
    first, second = without.evaluate(), without.evaluate()
    assert first == second
    samples = without.generate_completions()
    assert sum(row["score"] for row in samples) / 4 == pytest.approx(first["eval_objective/scores"])


def test_best_checkpoint_is_loaded_at_the_end(folder: Path, tmp_path: Path) -> None:
    trainer = trainer_for(
        folder,
        tmp_path,
        settings={
            "total_episodes": 32,
            "learning_rate": 1e-2,
            "eval_strategy": "steps",
            "eval_steps": 4,
            "save_strategy": "steps",
            "save_steps": 4,
            "load_best_model_at_end": True,
            "metric_for_best_model": "eval_objective/scores",
        },
        eval_dataset=conversations(4),
    )
    trainer.train()
    assert trainer.evaluate()["eval_objective/scores"] == pytest.approx(max(entries(trainer, "eval_objective/scores")))


def test_the_saved_policy_loads_with_from_pretrained(folder: Path, tmp_path: Path) -> None:
    trainer = trainer_for(folder, tmp_path)
    trainer.train()
    trainer.save_model(str(tmp_path / "saved"))
    ids = torch.tensor([[5, 6, 7, 8]])
    again = policy_of(tmp_path / "saved").eval()
    assert torch.equal(again(ids).logits, trainer.model.policy.model.eval()(ids).logits)
    assert AutoTokenizer.from_pretrained(tmp_path / "saved").chat_template
    assert not list((tmp_path / "saved").glob("*.bin"))


def test_several_rewards_are_weighted(folder: Path, tmp_path: Path) -> None:
    def length(completion_ids: list[list[int]], **columns: Any) -> list[float]:
        return [float(len(ids)) for ids in completion_ids]

    alone = [
        trainer_for(folder, tmp_path / name, reward_model=one, settings={"total_episodes": 8, "learning_rate": 0.0})
        for name, one in (("a", good_share), ("b", length))
    ]
    both = trainer_for(
        folder,
        tmp_path / "c",
        reward_model=[good_share, length],
        settings={"total_episodes": 8, "learning_rate": 0.0, "reward_weights": [2.0, -0.5]},
    )
    for trainer in (*alone, both):
        trainer.train()
    first, second = (entries(trainer, "objective/scores")[0] for trainer in alone)
    assert entries(both, "objective/scores")[0] == pytest.approx(2 * first - 0.5 * second, abs=1e-5)


def test_gradient_checkpointing_gives_the_same_losses(folder: Path, tmp_path: Path) -> None:
    found = []
    for on in (False, True):
        trainer = trainer_for(folder, tmp_path / str(on), settings={"gradient_checkpointing": on})
        trainer.train()
        found.append(entries(trainer, "loss"))
    assert found[0] == pytest.approx(found[1], abs=1e-6)


def test_bfloat16_starts_at_ratio_one(folder: Path, tmp_path: Path) -> None:
    trainer = trainer_for(folder, tmp_path, settings={"bf16": True, "learning_rate": 0.0, "total_episodes": 8})
    trainer.train()
    assert entries(trainer, "objective/kl") == [0.0]
    assert entries(trainer, "policy/approxkl_avg")[0] < 1e-4


def test_torch_compile_compiles_for_any_shape_and_trains_the_same(folder: Path, tmp_path: Path) -> None:
    plain, compiled = (
        trainer_for(folder, tmp_path / name, settings={"total_episodes": 8, **settings})
        for name, settings in (("plain", {}), ("compiled", {"torch_compile_backend": "eager"}))
    )
    assert compiled.accelerator.state.dynamo_plugin.dynamic is True
    for trainer in (plain, compiled):
        trainer.train()
    own = weights(plain.model)
    for name, tensor in weights(compiled.model).items():
        assert torch.allclose(tensor, own[name], atol=1e-5), name
