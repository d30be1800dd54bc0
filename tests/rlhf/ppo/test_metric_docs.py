"""docs/ppo.md says of every logged metric what it is, what is healthy, and what to do when it is not."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rlhf.ppo import PPOTrainer
from tests.rlhf.ppo.helpers import classifier_of, conversations, good_share, trainer_for
from tests.rlhf.ppo.test_watch import bad_share
from tests.tiny import tiny_model

PAGE = Path(__file__).parents[3] / "docs" / "ppo.md"
NOT_A_METRIC = {"step"}
NEITHER_GOOD_NOR_BAD = ("train_", "total_flos", "learning_rate", "epoch")
"""Beginnings of names of what the user set, or of what is said at the end: nothing to do about them."""


def rows() -> dict[str, tuple[str, str, str]]:
    """The table's rows: what a metric is, what is healthy, what to do; by each name in the first column."""
    table = PAGE.read_text(encoding="utf-8").split("## Metrics")[1].split("The stage's manifest")[0]
    found = {}
    for line in table.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        for name in re.findall(r"`([^`]+)`", cells[0]):
            found[name] = (cells[1], cells[2], cells[3])
    return found


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Every name in the log of a run in which everything is on."""
    root = tmp_path_factory.mktemp("run")
    folder = tiny_model(root / "model")
    trainer: PPOTrainer = trainer_for(
        folder,
        root / "out",
        settings={
            "total_episodes": 24,
            "eval_strategy": "steps",
            "eval_steps": 4,
            "normalize_scores": True,
            "kl_target": 6.0,
            "kl_budget": 100.0,
            "missing_eos_penalty": 1.0,
            "overoptimization_window": 1,
        },
        reward_model=[classifier_of(folder), good_share],
        watch_reward_model=bad_share,
        eval_dataset=conversations(2),
    )
    trainer.train()
    names = {name for entry in trainer.state.log_history for name in entry} - NOT_A_METRIC
    assert {"watch/proxy_z", "eval_objective/watched_scores", "grad_norm", "train_loss"} <= names
    return names


def test_every_logged_metric_is_in_the_table(logged: set[str]) -> None:
    documented = rows()
    evaluated = set(re.findall(r"`([^`]+)`", documented["eval_…"][0]))
    missing = {
        name
        for name in logged
        if (name.removeprefix("eval_") not in evaluated if name.startswith("eval_") else name not in documented)
    }
    assert not missing


def test_every_metric_has_what_it_is_what_is_healthy_and_what_to_do() -> None:
    incomplete = [name for name, cells in rows().items() if not all(cells)]
    assert [name for name in incomplete if not name.startswith(NEITHER_GOOD_NOR_BAD)] == []
