"""A stage's metrics in words, for people who read a model card; by their own names they are in the manifest."""

from __future__ import annotations

from typing import Any

WORDS = {
    "steps": "training steps",
    "best_step": "step whose weights were kept",
    "epoch": "passes over the data",
    "train_loss": "training loss",
    "train_rows": "demonstrations trained on",
    "truncated_rows": "demonstrations cut to fit",
    "train_pairs": "pairs trained on",
    "dropped_pairs": "pairs left out: too long",
    "dropped_eval_pairs": "held-out pairs left out: too long",
    "dropped_prompts": "prompts left out: too long",
    "dropped_eval_prompts": "held-out prompts left out: too long",
    "eval_loss": "held-out loss",
    "eval_entropy": "held-out entropy of the next token, nats",
    "eval_mean_token_accuracy": "held-out accuracy of the next token",
    # a reward model
    "accuracy": "held-out accuracy over pairs",
    "accuracy_low": "its 95% interval, lower end",
    "accuracy_high": "its 95% interval, upper end",
    "length_accuracy": "accuracy of preferring the longer response",
    "eval_pairs": "held-out pairs",
    "eval_prompts": "held-out prompts",
    "reward_mean": "mean reward of held-out responses",
    "reward_std": "standard deviation of that reward",
    "eval_margin": "held-out margin of the reward",
    "eval_min_reward": "lowest held-out reward, mean over batches",
    "eval_mean_reward": "held-out reward, mean over batches",
    "eval_max_reward": "highest held-out reward, mean over batches",
    # DPO: the implicit reward is beta times how much likelier a response became
    "eval_rewards/accuracies": "held-out accuracy over pairs",
    "eval_rewards/margins": "held-out margin of the implicit reward",
    "eval_rewards/chosen": "held-out implicit reward, chosen",
    "eval_rewards/rejected": "held-out implicit reward, rejected",
    "eval_logits/chosen": "held-out mean logit, chosen",
    "eval_logits/rejected": "held-out mean logit, rejected",
    "eval_logps/chosen": "held-out log-probability, chosen",
    "eval_logps/rejected": "held-out log-probability, rejected",
    # PPO
    "stopped": "ended before its last rollout by",
    "eval_objective/scores": "held-out reward",
    "eval_objective/kl": "held-out KL to the SFT model, nats",
    "eval_objective/rlhf_reward": "held-out reward less the KL penalty",
    "eval_response/length": "held-out response length, tokens",
    "eval_response/ended": "held-out share of responses that ended by themselves",
    "eval_objective/watched_scores": "held-out watched reward",
    "watched_scores_first": "watched reward in the first rollout",
    "watched_scores_last": "watched reward in the last rollout",
    "overoptimization_tests": "rollouts tested for over-optimisation",
    "overoptimization_seen": "rollouts in which over-optimisation was seen",
    "overoptimization_episode": "episodes after which it was first seen",
    "overoptimization_action": "what was done about it",
    "kl_coef_last": "KL coefficient in the last rollout",
    "scores_first": "reward in the first rollout",
    "scores_last": "reward in the last rollout",
    "kl_first": "KL to the SFT model in the first rollout, nats",
    "kl_last": "KL to the SFT model in the last rollout, nats",
    "length_first": "response length in the first rollout, tokens",
    "length_last": "response length in the last rollout, tokens",
    "ended_first": "share that ended by themselves in the first rollout",
    "ended_last": "share that ended by themselves in the last rollout",
}

REPEATED = {
    "reward": ("eval_objective/scores", "scores_last"),
    "kl": ("eval_objective/kl", "kl_last"),
    "eval_accuracy": ("accuracy",),
}
"""Metrics that say again what one of the others says, where that one is there."""


DONE = {"warn": "the run only warned", "stop": "the run ended there", "raise_kl": "the KL coefficient was raised"}
"""What a PPO stage did about over-optimisation, by its `on_overoptimization`."""


def watch_note(metrics: dict[str, Any]) -> str | None:
    """A sentence on what a PPO stage's watched reward showed; None where nothing was watched."""
    tests = metrics.get("overoptimization_tests")
    if tests is None:
        return None
    if not tests:
        return "the run was too short for the watched reward to be tested."
    if not metrics["overoptimization_seen"]:
        return f"over-optimisation was not seen in {tests} tested rollouts."
    done = DONE[metrics["overoptimization_action"]]
    return f"over-optimisation was seen after {metrics['overoptimization_episode']:,} episodes; {done}."


def in_words(metrics: dict[str, Any]) -> dict[str, str]:
    """What to print: each figure once, under its name in words; one that has none here under its own, as code."""
    return {
        WORDS.get(name, f"`{name}`"): f"{value:.4g}" if isinstance(value, float) else str(value)
        for name, value in metrics.items()
        if not any(other in metrics for other in REPEATED.get(name, ()))
    }
