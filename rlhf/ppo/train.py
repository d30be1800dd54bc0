"""The PPO stage of the chain: from a policy's and a reward model's folders to an aligned policy's folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from plumbline.adapters import check_joinable, last_adapter
from plumbline.errors import UserError
from plumbline.models import context_window, load_policy, load_tokenizer, starting_weights
from plumbline.recipe import AlignSection
from plumbline.training import keep_short, train_and_save, trainer_config
from rlhf.ppo.config import PPOConfig
from rlhf.ppo.data import tokenized
from rlhf.ppo.rewards import no_reward
from rlhf.ppo.trainer import PPOTrainer

DEFAULTS: dict[str, Any] = {
    "learning_rate": 3e-6,
    "lr_scheduler_type": "linear",
    "per_device_train_batch_size": 32,  # with the next line: 64 episodes in a rollout
    "gradient_accumulation_steps": 2,
    "micro_batch_tokens": 8192,  # bounds the memory of the update, whatever the size of a rollout
    "num_mini_batches": 2,
    "num_ppo_epochs": 2,
    "response_length": 256,
    "temperature": 1.0,
    "missing_eos_penalty": 1.0,
    "logging_steps": 1,
    "eval_strategy": "no",
    "load_best_model_at_end": False,
    "metric_for_best_model": "eval_objective/rlhf_reward",
}
"""What an `align` entry with `method: ppo` does not name. Sources are in docs/ppo.md."""

LORA_LEARNING_RATE = 3e-5

FIRST_AND_LAST = ("objective/scores", "objective/watched_scores", "objective/kl", "response/length", "response/ended")
PICTURE = "overoptimization.svg"


def train_ppo(
    policy: Path,
    reward: Path,
    prompts: Dataset,
    evaluation: Dataset | None,
    section: AlignSection,
    folder: Path,
    scratch: Path,
    *,
    seed: int,
    watch: Path | None = None,
) -> dict[str, Any]:
    """Align a policy with a reward model by PPO, or go on from the last complete checkpoint.

    Args:
        policy: folder of the policy to start from; it is the reference too.
        reward: folder of the reward model; the critic starts from it.
        prompts: with a column `prompt` of conversations that end with the user's message.
        evaluation: held-out prompts, or None.
        section: the recipe's `align` entry; its `trainer` fields are those of `PPOConfig`.
        folder: where the aligned policy goes, with its tokenizer.
        scratch: where checkpoints go.
        seed: of everything random.
        watch: folder of a reward model that is watched and not optimised; the picture of both scores goes beside the
            policy, as `overoptimization.svg`.

    Returns:
        Metrics: `reward` and `kl` (in nats) of the final policy on the held-out prompts, without them those of the last
        rollout; `scores_first`, `scores_last` and the like of the first and the last rollout; `eval_…` of the final
        policy; `stopped`, why the run ended before its last rollout, where it did; `dropped_prompts` and
        `dropped_eval_prompts`, which leave no room for a response in the window; with `watch`, also what
        `watch_metrics` gives.

    Raises:
        UserError: models, prompts or settings do not fit; a reward or the loss is no finite number.
    """
    trainer, dropped = make_trainer(policy, reward, prompts, evaluation, section, scratch, seed=seed, watch=watch)
    metrics = train_and_save(
        trainer, stage=section.name, what="Aligning by PPO", policy=policy, folder=folder, scratch=scratch
    )
    stopped = trainer.stop.reason if trainer.state.global_step < trainer.schedule.steps else None
    shown = _first_and_last(trainer.state.log_history) | (trainer.evaluate() if trainer.eval_dataset else {})
    watched = {} if watch is None else _watched(trainer, section.name, folder)
    return metrics | ({"stopped": stopped} if stopped else {}) | dropped | shown | _short(shown) | watched


def make_trainer(
    policy: Path,
    reward: Path | None,
    prompts: Dataset,
    evaluation: Dataset | None,
    section: AlignSection,
    scratch: Path,
    *,
    seed: int,
    watch: Path | None = None,
) -> tuple[PPOTrainer, dict[str, int]]:
    """The trainer of `train_ppo` before it trains, and how many prompts it left out, as among the metrics.

    The arguments are those of `train_ppo`; without a reward model (None) every response scores 0.

    Raises:
        UserError: models, prompts or settings do not fit.
    """
    tokenizer = load_tokenizer(policy)
    length = section.trainer.get("response_length", DEFAULTS["response_length"])
    readers = [folder for folder in (policy, reward, watch) if folder is not None]
    window = min(filter(None, map(context_window, readers)), default=None)
    longest = None if window is None else window - length
    fitting = _with_room(prompts, tokenizer, longest, what=f"{section.name}, prompts")
    held_out = _with_room(
        evaluation or prompts.select([]), tokenizer, longest, what=f"{section.name}, held-out prompts"
    )
    if not fitting:
        raise UserError(
            f"{section.name}: no prompt leaves room for a response of {length} tokens in the window of {window}: lower "
            f"{section.name}.response_length, or add shorter prompts."
        )
    defaults = DEFAULTS | ({"learning_rate": LORA_LEARNING_RATE} if section.lora else {})
    config = trainer_config(
        PPOConfig, section, scratch, defaults, stage=section.name, seed=seed, evaluates=len(held_out) > 0
    )
    if section.lora:
        check_joinable(policy)
    start = starting_weights(policy, scratch)

    def as_trained(model: Path, name: str) -> Path:
        """A reward model's folder; with LoRA, as an adapter over the weights that PPO trains over."""
        return last_adapter(model, policy, start, scratch / name) if section.lora else model

    trainer = PPOTrainer(
        args=config,
        processing_class=tokenizer,
        model=load_policy(start, trainable=True, load_in_4bit=section.load_in_4bit),
        ref_model=None,
        reward_model=no_reward if reward is None else as_trained(reward, "reward"),
        watch_reward_model=None if watch is None else as_trained(watch, "watch"),
        train_dataset=fitting,
        eval_dataset=held_out or None,
        peft_config=section.lora.to_peft("CAUSAL_LM") if section.lora else None,
    )
    dropped = {
        "dropped_prompts": len(prompts) - len(fitting),
        "dropped_eval_prompts": len(evaluation or ()) - len(held_out),
    }
    return trainer, dropped


def _with_room(prompts: Dataset, tokenizer: PreTrainedTokenizerBase, longest: int | None, *, what: str) -> Dataset:
    """The prompts, tokenised, that leave room for a whole response."""
    if len(prompts) == 0:
        return prompts
    prompts = tokenized(prompts, tokenizer, name=what)
    lengths = [len(ids) for ids in prompts["input_ids"]]
    return keep_short(prompts, lengths, longest, what=what, why=f"{longest} tokens, which leave room for a response")


def _watched(trainer: PPOTrainer, name: str, folder: Path) -> dict[str, Any]:
    """What was seen of over-optimisation; draws both scores into the stage's folder."""
    from rlhf.ppo.watch_report import draw_scores, watch_metrics, watched_entries  # matplotlib takes a second

    entries = watched_entries(trainer.state.log_history)
    if entries and trainer.is_world_process_zero():
        draw_scores({name: entries}, folder / PICTURE)
    return watch_metrics(entries, trainer.args.on_overoptimization)


def _first_and_last(history: list[dict[str, Any]]) -> dict[str, float]:
    rollouts = [entry for entry in history if FIRST_AND_LAST[0] in entry]
    if not rollouts:
        return {}
    return {
        f"{name.split('/')[1]}_{when}": entry[name]
        for when, entry in (("first", rollouts[0]), ("last", rollouts[-1]))
        for name in FIRST_AND_LAST
        if name in entry
    }


def _short(metrics: dict[str, float]) -> dict[str, float]:
    """What a person wants to see first: on held-out prompts, else in the last rollout."""
    evaluated = "eval_objective/scores" in metrics
    names = ("eval_objective/scores", "eval_objective/kl") if evaluated else ("scores_last", "kl_last")
    return {short: metrics[name] for short, name in zip(("reward", "kl"), names, strict=True) if name in metrics}
