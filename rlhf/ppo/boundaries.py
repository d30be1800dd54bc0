"""Logging, evaluation and checkpoints wait for the end of the rollout they fall in."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import IntervalStrategy

from rlhf.ppo.data import Schedule

WAITING = {"should_log": "logging_strategy", "should_evaluate": "eval_strategy", "should_save": "save_strategy"}
"""What waits, and the setting that says whether it is done at steps or at epochs."""


class RolloutBoundaries(TrainerCallback):
    """Puts off what the flow callback asks for inside a rollout to the rollout's last optimizer step.

    An epoch is a pass over the prompts; what is to be done after each is done at the end of the rollout it ends in. (To
    the loop the whole run is one epoch, as the steps that it goes through are gone through once.)

    A checkpoint there needs nothing of the rollout, so a resumed run goes on exactly as the killed one would have. A
    checkpoint also ends on a log entry, so that the log of a resumed run is that of an uninterrupted one. Must be
    registered behind the trainer's own flow callback.
    """

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self._put_off: set[str] = set()
        self._last: dict[str, int] = {}  # optimizer step of the last evaluation and checkpoint

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
        if within == 0 and self._passes(rollouts) > self._passes(rollouts - 1):
            self._put_off |= self._wanted_after_an_epoch(args, state.epoch)
        for name in WAITING:
            setattr(control, name, within == 0 and name in self._put_off)
        if within == 0:
            control.should_log = control.should_log or control.should_save
            self._put_off.clear()

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Remember when."""
        self._last["should_evaluate"] = state.global_step

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Remember when."""
        self._last["should_save"] = state.global_step

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """At the end of the run: do not do again what its last step did."""
        for name, step in self._last.items():
            if step == state.global_step:
                setattr(control, name, False)

    def _passes(self, rollouts: int) -> int:
        """Passes over the prompts that are complete after so many rollouts."""
        return rollouts * self.schedule.batch_size // self.schedule.prompts

    def _wanted_after_an_epoch(self, args: TrainingArguments, epoch: float) -> set[str]:
        wanted = {name for name, strategy in WAITING.items() if getattr(args, strategy) == IntervalStrategy.EPOCH}
        return wanted - ({"should_evaluate"} if args.eval_delay > epoch else set())
