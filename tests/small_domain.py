"""A domain of a few rows and a tiny random model, for tests that run the whole chain in seconds."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from tests.tiny import tiny_model

TOPICS = ("order", "refund", "password", "delivery", "invoice", "warranty", "account", "return")
MANNERS = ("Where is my {} now?", "I have a question about the {}.", "the {} is wrong!!", "Tell me more about {} please.")
MORE = ("What about the {} then?", "My {} is late, help.", "Can I change the {}?", "Who looks after the {}?")


def prompts(manners: tuple[str, ...]) -> list[str]:
    """Every manner of asking about every topic."""
    return [manner.format(topic) for topic in TOPICS for manner in manners]


def write_lines(path: Path, rows: list[dict]) -> Path:
    """Write rows as JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def small_recipe(folder: Path, *, align: tuple[str, ...] = ("dpo", "ppo"), steps: int = 2) -> dict:
    """The recipe of the small domain as plain values; every trainer makes `steps` optimizer steps."""
    training = {
        "max_steps": steps,
        "per_device_train_batch_size": 4,
        "learning_rate": 1e-3,
        "eval_steps": 1,
        "save_steps": 1,
        "logging_steps": 1,
    }
    methods = {
        "dpo": {"method": "dpo", **training, "learning_rate": 1e-4},
        "ppo": {
            "method": "ppo",
            "total_episodes": 8 * steps,
            "per_device_train_batch_size": 8,
            "num_ppo_epochs": 1,
            "num_mini_batches": 1,
            "response_length": 8,
            "learning_rate": 1e-4,
            "save_steps": 1,
            "logging_steps": 1,
        },
    }
    return {
        "name": "small",
        "seed": 3,
        "model": "base",
        "data": {
            "demonstrations": "demonstrations.jsonl",
            "prompts": "prompts.jsonl",
            "validation": 0.2,
            "test": 0.2,
        },
        "sft": dict(training),
        "sample": {"responses_per_prompt": 3, "max_new_tokens": 8, "batch_tokens": 256},
        "annotate": {
            "simulated": {
                "utility": "utility.yaml",
                "annotators": [{"name": "sim-a", "noise": 0.05}, {"name": "sim-b", "noise": 0.1}],
            }
        },
        "reward": dict(training),
        "align": [methods[name] for name in align],
        "compare": {"max_new_tokens": 8, "batch_tokens": 256, "bootstrap": 200, "samples_shown": 3},
    }


def make_small_domain(folder: Path, utility: str, **changes: dict) -> Path:
    """Write model, data, utility and recipe into `folder`; return the recipe's path.

    Args:
        folder: where to.
        utility: the text of utility.yaml.
        changes: sections that replace those of `small_recipe`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tiny_model(folder / "base")
    demonstrations = [
        {"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": f"Sorry. Yes. {text}"}]}
        for text in prompts(MANNERS)
    ]
    write_lines(folder / "demonstrations.jsonl", demonstrations)
    write_lines(folder / "prompts.jsonl", [{"prompt": text} for text in prompts(MORE + MANNERS[:2])])
    (folder / "utility.yaml").write_text(utility, encoding="utf-8")
    recipe = folder / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({**small_recipe(folder), **changes}, sort_keys=False), encoding="utf-8")
    return recipe
