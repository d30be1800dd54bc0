"""The memory plan: by hand from given bytes, and against what a tiny run really allocates."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from torch.profiler import ProfilerActivity, profile

from rlhf.ppo import PPOTrainer
from rlhf.ppo.footprint import footprint_of
from rlhf.ppo.memory import PROGRAM, Footprint, machine_memory, plan_memory
from tests.rlhf.ppo.helpers import classifier_of, settings_for, trainer_for
from tests.tiny import tiny_model

MADE_UP = Footprint(
    weights={"policy": 400, "reference": 400, "critic": 300, "reward": 300},
    trained=700,
    cache_per_token=10,
    activations=50,
    activations_per_token=20,
    vocabulary=1000,
)


def args_for(tmp_path: Path, **settings: Any) -> Any:
    """Settings as a trainer keeps them: rollouts of 8 episodes, mini-batches of 4, micro-batches of 2, 6 tokens."""
    args = settings_for(tmp_path, **settings)
    args.local_batch_size = 8
    return args


def test_a_plan_worked_out_by_hand(tmp_path: Path) -> None:
    plan = plan_memory(MADE_UP, args_for(tmp_path), longest_prompt=14)
    on_a_cpu = {"kept by the allocator": 700 + 850 + 240_000}
    assert plan.always == {"program": PROGRAM, **MADE_UP.weights, "optimizer": 1400, **on_a_cpu}
    assert plan.rollout == {"key-value cache": 8 * 20 * 10, "sampling": 8 * 1000 * 24}
    assert plan.update == {"gradients": 700, "activations": 50 + 2 * 20 * 20, "logits": 2 * 6 * 1000 * 4 * 5}
    assert plan.total == PROGRAM + 1400 + 1400 + 2 * (700 + 850 + 240_000)  # the update is larger than the rollout
    assert "policy" in plan.in_words() and "key-value cache" in plan.in_words()


def test_only_the_larger_of_rollout_and_update_counts(tmp_path: Path) -> None:
    plan = plan_memory(replace(MADE_UP, cache_per_token=10_000), args_for(tmp_path), longest_prompt=14)
    assert plan.total == PROGRAM + 1400 + 1400 + 2 * (8 * 20 * 10_000 + 8 * 1000 * 24)


@pytest.mark.parametrize(
    ("settings", "part", "expected"),
    [
        ({"optim": "adamw_8bit"}, "optimizer", 350),
        ({"optim": "sgd"}, "optimizer", 0),
        ({"micro_batch_tokens": 60}, "activations", 50 + 3 * 20 * 20),
        ({"micro_batch_tokens": 5}, "activations", 50 + 1 * 20 * 20),
        ({"micro_batch_tokens": 9999}, "activations", 50 + 4 * 20 * 20),  # no more than a mini-batch
        ({"local_rollout_forward_batch_size": 3}, "key-value cache", 3 * 20 * 10),
    ],
)
def test_what_settings_change(tmp_path: Path, settings: dict[str, Any], part: str, expected: int) -> None:
    assert plan_memory(MADE_UP, args_for(tmp_path, **settings), longest_prompt=14).parts()[part] == expected


@pytest.mark.parametrize(
    ("settings", "part"),
    [({}, "always"), ({"vllm_enable_sleep_mode": True}, "rollout"), ({"vllm_mode": "server"}, None)],
)
def test_a_colocated_vllm_has_its_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], part: str | None
) -> None:
    monkeypatch.setattr("rlhf.ppo.memory.machine_memory", lambda device: (10**6, "made up"))
    args = args_for(tmp_path)
    for name, value in {"rollout_engine": "vllm", "vllm_gpu_memory_utilization": 0.3, **settings}.items():
        setattr(args, name, value)  # without vLLM the settings themselves refuse it
    plan = plan_memory(MADE_UP, args, longest_prompt=14)
    assert "key-value cache" not in plan.parts(), "it is vLLM's"
    assert plan.parts().get("vLLM") == (300_000 if part else None)
    assert part is None or "vLLM" in getattr(plan, part)


def test_logits_are_made_in_chunks(tmp_path: Path) -> None:
    large = replace(MADE_UP, vocabulary=2**26)
    assert plan_memory(large, args_for(tmp_path), longest_prompt=14).update["logits"] == 2**27 * 4 * 5


def trainer_of(tmp_path: Path, lora: bool, **settings: Any) -> PPOTrainer:
    folder = tiny_model(tmp_path / "model", hidden=64, vocab_size=4000)
    adapter = {"peft_config": LoraConfig(r=4, target_modules="all-linear")} if lora else {}
    common = {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 2, "num_ppo_epochs": 1}
    common |= {"total_episodes": 32, "response_length": 64, "stop_token": None}
    return trainer_for(
        folder, tmp_path / "out", settings=common | settings, reward_model=classifier_of(folder), **adapter
    )


def test_the_weights_of_each_role_are_counted_once(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, lora=False)
    # embedding, and in each of 2 layers: 4 projections, 3 of the MLP (twice as wide), 2 norms; and the last norm
    policy = 4 * (4000 * 64 + 2 * (4 * 64 * 64 + 3 * 64 * 128 + 2 * 64) + 64)
    found = footprint_of(trainer)
    buffers = 2 * 4 * 16  # of the rotary embedding: inverse frequencies, and as they were at first
    classifier = policy + 4 * 64
    assert found.weights == {
        "policy": policy + buffers,
        "reference": policy + buffers,
        "critic": classifier + buffers,
        "reward": classifier + buffers,
    }
    assert found.trained == policy + classifier
    assert found.cache_per_token == 2 * 2 * 64 * 4  # keys and values in two layers, float32
    assert found.vocabulary == 4000


def test_with_lora_the_base_counts_once(tmp_path: Path) -> None:
    found = footprint_of(trainer_of(tmp_path, lora=True))
    assert found.weights["reference"] == 0
    assert found.trained < 0.1 * found.weights["policy"]
    assert found.weights["critic"] < 0.1 * found.weights["policy"]


def test_checkpointing_keeps_fewer_activations(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, lora=False)
    full = footprint_of(trainer).activations_per_token
    trainer.args.gradient_checkpointing = True
    assert footprint_of(trainer).activations_per_token == full // 2 + 2 * 64 * 4  # one of two layers, two inputs


def test_several_processes_keep_the_activations_of_both_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = trainer_of(tmp_path, lora=False)
    alone = footprint_of(trainer).activations_per_token
    monkeypatch.setattr("rlhf.ppo.footprint.learn_apart", lambda args: False)
    both = footprint_of(trainer).activations_per_token
    assert 1.95 * alone < both <= 2 * alone, "policy and critic are of one shape, but for the critic's head"


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
def test_the_plan_is_near_what_a_run_allocates(tmp_path: Path, lora: bool) -> None:
    trainer = trainer_of(tmp_path, lora)
    longest = max(map(len, trainer.prompts.dataset["input_ids"]))
    plan = plan_memory(footprint_of(trainer), trainer.args, longest)
    already_there = sum(size for name, size in plan.always.items() if name != "optimizer")
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        trainer.train()
    events = [event for event in profiled.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    assert 0.9 < (plan.total - already_there) / peak < 1.3


def test_this_machine_has_memory() -> None:
    size, where = machine_memory(torch.device("cpu"))
    assert size > 2**28 and where == "this machine's memory"
