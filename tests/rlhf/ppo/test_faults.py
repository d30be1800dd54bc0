"""The opposite of faults of TRL 1.12's trainer that no other file tests; docs/ppo-correctness.md lists them all."""

from __future__ import annotations

import json
import random
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, TrainerCallback

import rlhf.ppo.generation
import rlhf.ppo.rewards
import rlhf.ppo.rollout
import rlhf.ppo.trainer
from rlhf.ppo import PPOTrainer
from rlhf.ppo.core import ClippedLoss
from rlhf.ppo.generation import Response
from rlhf.ppo.metrics import UpdateSums, rollout_metrics
from rlhf.ppo.rollout import Rollout
from tests.rlhf.ppo.helpers import classifier_of, conversations, entries, leaning_model, policy_of, trainer_for
from tests.rlhf.ppo.test_resume import same_weights
from tests.tiny import tiny_model, tiny_tokenizer

PAD_ID, EOS_ID = tiny_tokenizer().pad_token_id, tiny_tokenizer().eos_token_id


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("model"))


def finite(trainer: PPOTrainer) -> bool:
    """Whether all weights and all logged figures are finite numbers."""
    logged = [value for entry in trainer.state.log_history for value in entry.values()]
    return all(map(np.isfinite, logged)) and all(torch.isfinite(t).all() for t in trainer.model.state_dict().values())


# Responses that begin with a pad token, or are an end token and nothing else


@pytest.mark.parametrize("token", [PAD_ID, EOS_ID], ids=["pad first", "end first"])
def test_responses_of_a_pad_or_end_token_are_learned_from(tmp_path: Path, token: int) -> None:
    """Mini-batches of one row, so that a response whose tokens were all masked would have no token to divide by."""
    folder = leaning_model(tmp_path / "model", token, 0.6)
    seen: list[list[int]] = []

    def reward(completion_ids: list[list[int]], **columns: Any) -> list[float]:
        seen.extend(completion_ids)
        return [float(len(set(ids))) for ids in completion_ids]

    settings = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 8, "num_mini_batches": 8}
    trainer = trainer_for(folder, tmp_path / "out", settings=settings, reward_model=[reward, classifier_of(folder)])
    trainer.train()
    assert finite(trainer)
    assert sum(ids[0] == token for ids in seen) >= 4
    ended = [ids[-1] == EOS_ID for ids in seen]
    assert all(len(ids) == 6 for ids, over in zip(seen, ended, strict=True) if not over), "a pad token ends nothing"
    assert sum(entries(trainer, "response/length")) / 2 == np.mean([len(ids) for ids in seen])
    assert sum(entries(trainer, "val/num_eos_tokens")) == sum(ended)
    if token == EOS_ID:
        assert any(ids == [EOS_ID] for ids in seen), "also an empty response"


# Padding counts nowhere


def test_what_padding_is_made_of_changes_nothing(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every logged figure and every weight is the same with another token as padding."""
    runs = []
    for padding in (0, 7):
        for module in (rlhf.ppo.generation, rlhf.ppo.rollout, rlhf.ppo.rewards):
            monkeypatch.setattr(module, "PADDING", padding)
        settings = {"stop_token_id": 20, "response_length": 24, "whiten_rewards": True, "normalize_scores": True}
        trainer = trainer_for(folder, tmp_path / str(padding), settings=settings, reward_model=classifier_of(folder))
        trainer.train()
        runs.append(trainer)
    assert same_weights(*runs)
    for ours, other in zip(*(trainer.state.log_history[:-1] for trainer in runs), strict=True):
        assert timeless(ours) == timeless(other)


def timeless(entry: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in entry.items() if "runtime" not in name and "per_second" not in name}


LENGTHS, ENDED = (3, 1, 5, 2), (True, False, False, True)


def rollout_of(rows: list[int]) -> Rollout:
    """Episodes with figures that depend on row and position, and rubbish at the padding."""
    made = Rollout.of_responses(
        0, [[5]] * len(rows), [Response([6] * LENGTHS[row], ENDED[row]) for row in rows], torch.device("cpu")
    )
    positions = torch.arange(made.mask.shape[1])
    for number, name in enumerate(("logprobs", "ref_logprobs", "values", "entropy", "returns"), 1):
        figures = torch.stack([torch.sin(number + 10.0 * row + positions) for row in rows])
        setattr(made, name, figures.where(made.mask, number * 1e6))
    return made


def metrics_by_hand(scores: Tensor, learned: Tensor, kl_coef: float) -> dict[str, float]:
    """The metrics of all four episodes, from lists of the real tokens."""
    made = rollout_of([0, 1, 2, 3])
    tokens = {
        name: [getattr(made, name)[row, :length].tolist() for row, length in enumerate(LENGTHS)]
        for name in ("logprobs", "ref_logprobs", "values", "entropy", "returns")
    }
    kl = [sum(np.subtract(a, b)) for a, b in zip(tokens["logprobs"], tokens["ref_logprobs"], strict=True)]
    values, returns = np.concatenate(tokens["values"]), np.concatenate(tokens["returns"])
    return {
        "objective/kl": np.mean(kl),
        "objective/entropy": -np.mean([sum(row) for row in tokens["logprobs"]]),
        "objective/non_score_reward": -kl_coef * np.mean(kl),
        "objective/rlhf_reward": learned.mean().item() - kl_coef * np.mean(kl),
        "objective/scores": scores.mean().item(),
        "objective/scores_std": scores.std(correction=0).item(),
        "objective/kl_coef": kl_coef,
        "response/length": 11 / 4,
        "response/ended": 0.5,
        "val/num_eos_tokens": 2.0,
        "policy/entropy_avg": np.concatenate(tokens["entropy"]).mean(),
        "val/explained_variance": 1 - np.var(returns - values) / np.var(returns),
    }


def on_two_processes(work: Callable[[int, Callable[[Tensor], Tensor]], Any]) -> list[Any]:
    """What `work(rank, reduce)` gives on two ranks at the same time, `reduce` summing over both."""
    barrier, parts, found = threading.Barrier(2), {}, {}

    def one(rank: int) -> None:
        def reduce(tensor: Tensor) -> Tensor:
            parts[rank] = tensor
            barrier.wait(timeout=10)
            total = parts[0] + parts[1]
            barrier.wait(timeout=10)
            return total

        found[rank] = work(rank, reduce)

    threads = [threading.Thread(target=one, args=(rank,)) for rank in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [found[0], found[1]]


def test_rollout_metrics_are_of_real_tokens_and_of_all_processes() -> None:
    scores, learned = torch.tensor([1.0, -2.0, 0.5, 3.0]), torch.tensor([1.0, -3.0, -0.5, 3.0])
    settings: dict[str, Any] = {"kl_coef": 0.3, "kl_estimator": "k1"}
    expected = pytest.approx(metrics_by_hand(scores, learned, 0.3), abs=1e-5)
    alone = rollout_metrics(rollout_of([0, 1, 2, 3]), scores, learned, **settings, reduce=lambda tensor: tensor)
    assert alone == expected

    def part(rank: int, reduce: Callable[[Tensor], Tensor]) -> dict[str, float]:
        rows = [[0, 1, 2], [3]][rank]
        return rollout_metrics(rollout_of(rows), scores[rows], learned[rows], **settings, reduce=reduce)

    assert on_two_processes(part) == [expected, expected]


def test_update_metrics_weigh_every_token_alike_over_micro_batches_and_processes() -> None:
    log_ratio = torch.linspace(-0.5, 0.7, 11)
    losses = [torch.linspace(start, 2.0, 11) for start in (0.0, 1.0)]
    clipped = [(log_ratio > 0.2).float(), (log_ratio < -0.3).float()]
    ratio = log_ratio.exp()
    expected = {
        "policy/approxkl_avg": (0.5 * log_ratio**2).mean().item(),
        "policy/clipfrac_avg": clipped[0].mean().item(),
        "loss/policy_avg": losses[0].mean().item(),
        "loss/value_avg": losses[1].mean().item(),
        "val/clipfrac_avg": clipped[1].mean().item(),
        "val/ratio": ratio.mean().item(),
        "val/ratio_var": ratio.var(correction=0).item(),
    }

    def part(rank: int, reduce: Callable[[Tensor], Tensor]) -> dict[str, float]:
        sums = UpdateSums(torch.device("cpu"))
        for tokens in [(slice(0, 7), slice(7, 8)), (slice(8, 11),)][rank]:  # 7 and 1 tokens here, 3 there
            policy, value = (ClippedLoss(a[tokens], b[tokens]) for a, b in zip(losses, clipped, strict=True))
            sums.add(policy, value, log_ratio[tokens])
        return sums.metrics(reduce)

    assert on_two_processes(part) == [pytest.approx(expected, abs=1e-6)] * 2


# The same seed gives the same run


def test_the_seed_alone_decides_a_run(folder: Path, tmp_path: Path) -> None:
    """Whatever the global random states were, when the trainer was made and when it began to train."""
    runs = []
    for number, seed in enumerate((5, 5, 6)):
        scramble(number)
        trainer = trainer_for(folder, tmp_path / str(number), settings={"seed": seed})
        scramble(10 + number)
        trainer.train()
        runs.append(trainer)
    assert same_weights(runs[0], runs[1])
    assert not same_weights(runs[0], runs[2])


def scramble(number: int) -> None:
    random.seed(number)
    np.random.seed(number)
    torch.manual_seed(number)


# Callbacks and epochs


class Events(TrainerCallback):
    """Counts every event, and keeps at which steps some of them came."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.steps: dict[str, list[int]] = {"on_log": [], "on_evaluate": [], "on_save": []}

    def __getattribute__(self, name: str) -> Any:
        if not name.startswith("on_"):
            return super().__getattribute__(name)

        def heard(args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            self.counts[name] += 1
            if name in self.steps and (name != "on_log" or "loss" in logs):
                self.steps[name].append(state.global_step)

        return heard


def test_every_event_of_the_loop_reaches_callbacks(folder: Path, tmp_path: Path) -> None:
    events = Events()
    settings = {"eval_strategy": "steps", "eval_steps": 4, "save_strategy": "steps", "save_steps": 8}
    trainer_for(folder, tmp_path, settings=settings, eval_dataset=conversations(2), callbacks=[events]).train()
    assert events.counts == {
        "on_init_end": 1,
        "on_train_begin": 1,
        "on_epoch_begin": 1,
        "on_step_begin": 8,
        "on_pre_optimizer_step": 8,
        "on_optimizer_step": 8,
        "on_step_end": 8,
        "on_log": 5,  # two rollouts, two evaluations, and the end
        "on_evaluate": 2,
        "on_save": 1,
        "on_epoch_end": 1,
        "on_train_end": 1,
    }


@pytest.mark.parametrize(
    ("episodes", "steps"), [(48, [12, 20, 24]), (40, [12, 20])], ids=["ends inside a pass", "ends with a pass"]
)
def test_what_is_done_each_epoch_is_done_when_a_pass_over_the_prompts_has_ended(
    folder: Path, tmp_path: Path, episodes: int, steps: list[int]
) -> None:
    """20 prompts in rollouts of 8: the first pass ends in the third rollout, the second one with the fifth."""
    events = Events()
    each = {f"{what}_strategy": "epoch" for what in ("logging", "eval", "save")}
    trainer_for(
        folder,
        tmp_path,
        settings={"total_episodes": episodes, **each},
        train_dataset=conversations(20),
        eval_dataset=conversations(2),
        callbacks=[events],
    ).train()
    assert events.steps == {"on_log": steps, "on_evaluate": steps, "on_save": steps}


# Settings that had no effect


class Dtypes:
    """The dtypes that a layer gives."""

    def __init__(self, module: nn.Module) -> None:
        self.seen: list[torch.dtype] = []
        module.register_forward_hook(lambda module, inputs, output: self.seen.append(output.dtype))


@pytest.mark.parametrize(("on", "dtype"), [(False, torch.float32), (True, torch.bfloat16)])
def test_bf16_decides_the_precision_of_every_pass(folder: Path, tmp_path: Path, on: bool, dtype: torch.dtype) -> None:
    reference = policy_of(folder)
    trainer = trainer_for(folder, tmp_path, settings={"bf16": on, "total_episodes": 8}, ref_model=reference)
    layers = [
        model.model.layers[0].mlp.down_proj
        for model in (trainer.model.policy.model, trainer.model.critic.model, reference)
    ]
    seen = [Dtypes(layer) for layer in layers]
    trainer.train()
    assert all(set(one.seen) == {dtype} for one in seen)
    assert trainer.model.policy.model.dtype == torch.float32, "the weights stay what they are"


def test_gradient_checkpointing_runs_layers_again_in_the_backward_pass(folder: Path, tmp_path: Path) -> None:
    counts = []
    for on in (False, True):
        trainer = trainer_for(folder, tmp_path / str(on), settings={"gradient_checkpointing": on, "total_episodes": 8})
        models = (trainer.model.policy.model, trainer.model.critic.model)
        seen = [Dtypes(model.model.layers[0].input_layernorm) for model in models]
        trainer.train()
        counts.append([len(one.seen) for one in seen])
    updates = 4 * 2  # micro-batches of the rollout, in two epochs
    assert [[after - before for before, after in zip(*counts, strict=True)]] == [[updates, updates]]


@pytest.mark.parametrize(
    ("precision", "settings"),
    [("float32", {}), ("float32", {"bf16": True}), ("bfloat16", {}), ("bfloat16", {"micro_batch_tokens": 60})],
    ids=["float32", "autocast", "bfloat16 weights", "bfloat16 weights, token budget"],
)
def test_ratios_of_the_first_epoch_are_exactly_one(
    folder: Path, tmp_path: Path, precision: str, settings: dict[str, Any]
) -> None:
    """In bfloat16 the same row gives other figures in another batch or with a key-value cache."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=precision)
    options = {"learning_rate": 0.0, "num_ppo_epochs": 1, "stop_token_id": 20, "response_length": 24, **settings}
    trainer = trainer_for(folder, tmp_path, settings=options, model=model)
    trainer.train()
    assert entries(trainer, "val/ratio") == [1.0, 1.0]
    assert entries(trainer, "policy/approxkl_avg") == [0.0, 0.0]
    assert entries(trainer, "objective/kl") == [0.0, 0.0]


def test_the_generation_settings_of_the_model_do_not_bend_the_law(folder: Path, tmp_path: Path) -> None:
    """Top-k, a temperature of its own and penalties would sample from another law than the update differentiates."""
    found = []
    for bent in (False, True):
        model = policy_of(folder)
        if bent:
            model.generation_config.update(do_sample=True, top_k=1, top_p=0.1, temperature=0.1, repetition_penalty=9.0)
        trainer = trainer_for(folder, tmp_path / str(bent), model=model)
        trainer.train()
        found.append(entries(trainer, "loss"))
    assert found[0] == found[1]


@pytest.mark.parametrize(("setting", "expected"), [({}, 1e-8), ({"adam_epsilon": 1e-5}, 1e-5)])
def test_the_epsilon_of_adam_is_the_setting(
    folder: Path, tmp_path: Path, setting: dict[str, float], expected: float
) -> None:
    trainer = trainer_for(folder, tmp_path, settings={**setting, "value_learning_rate": 1e-4})
    trainer.train()
    assert {group["eps"] for group in trainer.optimizer.param_groups} == {expected}


def test_scores_are_centred_scaled_and_then_clipped(folder: Path, tmp_path: Path) -> None:
    settings = {"normalize_scores": True, "score_clip": 1.0, "kl_coef": 0.0, "total_episodes": 8}

    def reward(completions: list[Any], **columns: Any) -> list[float]:
        return [100.0, *[0.0] * (len(completions) - 1)]

    trainer = trainer_for(folder, tmp_path, settings=settings, reward_model=reward)
    trainer.train()
    # Mean 12.5, deviation 35.36: the first one is 2.47, clipped to 1; the seven others are −0.3536.
    assert entries(trainer, "objective/rlhf_reward") == pytest.approx([(1 - 7 * 0.35355) / 8], abs=1e-4)
    assert entries(trainer, "objective/scores") == [12.5], "what is logged is the reward as it came"


MOVING = {"learning_rate": 3e-2, "num_ppo_epochs": 4, "kl_coef": 0.5, "stop_token_id": 20, "response_length": 12}
"""Updates that are large enough for every clipping to matter."""


@pytest.fixture(scope="module")
def plain(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> PPOTrainer:
    return moved(folder, tmp_path_factory.mktemp("plain"))


def moved(folder: Path, output: Path, **settings: Any) -> PPOTrainer:
    trainer = trainer_for(folder, output, settings={**MOVING, **settings}, reward_model=classifier_of(folder))
    trainer.train()
    return trainer


@pytest.mark.parametrize(
    "setting",
    [
        {"cliprange": 0.1},
        {"cliprange_high": 0.8},
        {"dual_clip": 1.01},
        {"cliprange_value": 0.01},
        {"vf_coef": 0.5},
        {"gamma": 0.9},
        {"lam": 0.5},
        {"kl_coef": 0.1},
        {"kl_estimator": "k3"},
        {"whiten_rewards": True},
        {"bootstrap_truncated": True},
        {"missing_eos_penalty": 1.0},
        {"temperature": 0.8},
        {"max_grad_norm": 0.01},
        {"value_warmup_rollouts": 1},
        {"num_mini_batches": 4},
    ],
    ids=lambda setting: next(iter(setting)),
)
def test_every_setting_of_the_update_has_an_effect(
    folder: Path, tmp_path: Path, plain: PPOTrainer, setting: dict[str, Any]
) -> None:
    assert not same_weights(moved(folder, tmp_path, **setting), plain)


def test_clip_higher_at_the_lower_range_changes_nothing(folder: Path, tmp_path: Path, plain: PPOTrainer) -> None:
    assert same_weights(moved(folder, tmp_path, cliprange_high=0.2), plain)


def test_a_response_that_its_own_stop_token_ended_is_not_penalised(tmp_path: Path) -> None:
    """The penalty is for what did not end, not for what does not end with the eos token."""
    folder = leaning_model(tmp_path / "model", 20, 0.2)
    settings = {"stop_token_id": 20, "missing_eos_penalty": 1.0, "kl_coef": 0.0, "total_episodes": 8}
    trainer = trainer_for(folder, tmp_path, settings=settings, reward_model=lambda prompts, **rest: [0.0] * 8)
    trainer.train()
    (ended,) = entries(trainer, "response/ended")
    assert 0 < ended < 1
    assert entries(trainer, "objective/rlhf_reward") == pytest.approx([ended - 1])


def test_the_learning_rate_falls_with_each_optimizer_step(folder: Path, tmp_path: Path) -> None:
    rates: list[float] = []

    class Rates(TrainerCallback):
        def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            rates.append(kwargs["optimizer"].param_groups[0]["lr"])

    trainer_for(folder, tmp_path, settings={"lr_scheduler_type": "linear"}, callbacks=[Rates()]).train()
    assert rates == pytest.approx([1e-3 * (8 - step) / 8 for step in range(8)])


def test_samples_are_shown_without_held_out_prompts(folder: Path, tmp_path: Path) -> None:
    rows = trainer_for(folder, tmp_path).generate_completions()
    assert [row["prompt"] for row in rows] == conversations()["prompt"]
    assert all(row["response"] and 0 <= row["score"] <= 1 for row in rows)


def test_each_evaluation_writes_what_was_said(folder: Path, tmp_path: Path) -> None:
    settings = {"eval_strategy": "steps", "eval_steps": 4, "num_eval_samples": 2}
    trainer = trainer_for(
        folder, tmp_path, settings=settings, eval_dataset={"a": conversations(3), "of/b": conversations(1)}
    )
    trainer.train()
    files = {path.stem: path.read_text(encoding="utf-8").splitlines() for path in (tmp_path / "samples").iterdir()}
    assert {name: len(lines) for name, lines in files.items()} == {
        "eval_a-4": 2,
        "eval_of-b-4": 1,
        "eval_a-8": 2,
        "eval_of-b-8": 1,
    }
    row = json.loads(files["eval_of-b-8"][0])
    assert row["prompt"] == conversations(1)[0]["prompt"] and row["response"]
    assert row["score"] == entries(trainer, "eval_of/b_objective/scores")[-1]
    silent = trainer_for(
        folder, tmp_path / "none", settings={**settings, "num_eval_samples": 0}, eval_dataset=conversations(2)
    )
    silent.evaluate()
    assert not (tmp_path / "none" / "samples").exists()


@pytest.mark.parametrize("on", [True, False])
def test_freed_memory_is_kept_while_training_on_a_cpu_unless_that_is_off(
    folder: Path, tmp_path: Path, on: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    monkeypatch.setattr(rlhf.ppo.trainer, "reuse_freed_memory", lambda: calls.append(1))
    trainer = trainer_for(folder, tmp_path, settings={"total_episodes": 8, **({} if on else {"reuse_memory": False})})
    assert not calls, "a trainer that does not train changes nothing of the process"
    trainer.train()
    assert calls == [1] * on
