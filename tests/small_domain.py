"""A domain of a few rows and a tiny random model, for tests that run the whole chain in seconds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from tests.tiny import tiny_model

TOPICS = ("order", "refund", "password", "delivery", "invoice", "warranty", "account", "return")
MANNERS = (
    "Where is my {} now?",
    "I have a question about the {}.",
    "the {} is wrong!!",
    "Tell me more about {} please.",
)
MORE = ("What about the {} then?", "My {} is late, help.", "Can I change the {}?", "Who looks after the {}?")


RUBRIC = {
    "prompts": ["prompts.jsonl"],
    "weights": {"next_step": 0.2, "courteous": 0.2, "concise": 0.4, "no_invention": 0.2},
    "floor": 0.9,
    "words": {"at_least": 1, "at_most": 4, "for_each_further_topic": 1},
    "invention_penalty": 0.5,
    "facts": [],
    "next_step": ["please"],
    "courteous": ["sorry"],
    "rude": [],
    "inventions": [],
    "topics": {topic: {"must_mention": [topic], "facts": []} for topic in TOPICS},
}


def prompts(manners: tuple[str, ...]) -> list[dict]:
    """Rows of prompts: every manner of asking about every topic."""
    return [{"prompt": manner.format(topic), "topics": [topic]} for topic in TOPICS for manner in manners]


def write_lines(path: Path, rows: list[dict]) -> Path:
    """Write rows as JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def small_recipe(*, align: tuple[str, ...] = ("dpo", "ppo"), steps: int = 2) -> dict:
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


def make_small_domain(folder: Path, **changes: Any) -> Path:
    """Write model, data, utility and recipe into `folder`; return the recipe's path.

    Args:
        folder: where to.
        changes: sections that replace those of `small_recipe`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tiny_model(folder / "base")
    demonstrations = [
        {"messages": [user(row["prompt"]), {"role": "assistant", "content": f"Sorry. Yes. {row['prompt']}"}]}
        for row in prompts(MANNERS)
    ]
    write_lines(folder / "demonstrations.jsonl", demonstrations)
    rows = [{**row, "prompt": [user(row["prompt"])]} for row in prompts(MORE + MANNERS[:2])]
    write_lines(folder / "prompts.jsonl", rows)
    (folder / "utility.yaml").write_text(yaml.safe_dump(RUBRIC), encoding="utf-8")
    recipe = folder / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({**small_recipe(), **changes}, sort_keys=False), encoding="utf-8")
    return recipe


def user(text: str) -> dict[str, str]:
    """A user's message."""
    return {"role": "user", "content": text}
