"""What a training stage says while it runs."""

from __future__ import annotations

import logging

import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments

from plumbline.progress import TrainerProgress


def test_the_figures_of_a_running_stage_are_in_the_log(tmp_path, caplog: pytest.LogCaptureFixture) -> None:
    """A batch job has no terminal, and the stage writes its own log at its end."""
    settings = TrainingArguments(str(tmp_path), use_cpu=True)
    given = (settings, TrainerState(global_step=8, max_steps=48), TrainerControl())
    progress = TrainerProgress("Aligning by PPO")
    progress.on_train_begin(*given)
    with caplog.at_level(logging.INFO, "plumbline.progress"):
        progress.on_log(*given, logs={"objective/scores": 0.51234, "objective/kl": 2.0, "other": 1.0})
        progress.on_log(*given, logs={"train_runtime": 1.0})
    progress.on_train_end(*given)
    assert caplog.messages == ["Aligning by PPO: step 8 of 48: scores 0.512, kl 2"]
