"""Logging, evaluation and checkpoints wait for the end of the rollout they fall in."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from rlhf.ppo.data import Schedule

WAITING = ("should_log", "should_evaluate", "should_save")


class RolloutBoundaries(TrainerCallback):
    """Puts off what the flow callback asks for inside a rollout to the rollout's last optimizer step.

    A checkpoint there needs nothing of the rollout, so a resumed run goes on exactly as the killed one would have. A
    checkpoint also ends on a log entry, so that the log of a resumed run is that of an uninterrupted one. Must be
    registered behind the trainer's own flow callback.
    """

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self._put_off: set[str] = set()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Forget what an earlier training put off."""
        self._put_off.clear()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Count epochs by prompts, and move the wishes of this step to the rollout's end."""
        rollouts, within = divmod(state.global_step, self.schedule.steps_per_rollout)
        state.epoch = rollouts * self.schedule.batch_size / self.schedule.prompts
        self._put_off |= {name for name in WAITING if getattr(control, name)}
        for name in WAITING:
            setattr(control, name, within == 0 and name in self._put_off)
        if within == 0:
            control.should_log = control.should_log or control.should_save
            self._put_off.clear()
