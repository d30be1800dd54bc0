"""The progress bar of a training stage, for every `transformers.Trainer` that a stage runs."""

from __future__ import annotations

import logging
from typing import Any

from rich.progress import Progress, TaskID
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from plumbline.console import console, progress_bar, track
from plumbline.errors import counted

log = logging.getLogger(__name__)

__all__ = ["TrainerProgress", "track"]

SHOWN = ("loss", "eval_loss", "objective/scores", "objective/kl", "rewards/accuracies", "eval_rewards/accuracies")


class TrainerProgress(TrainerCallback):
    """Draws one bar over the optimizer steps: what is being trained, the rate, the time left, the last figures.

    Pass it to a trainer whose arguments have `disable_tqdm=True`. Only the main process draws.
    """

    def __init__(self, what: str) -> None:
        self.what = what
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Open the bar at the step a resumed run starts from."""
        if not state.is_world_process_zero:
            return
        self._bar = progress_bar()
        self._bar.start()
        self._task = self._bar.add_task(
            self.what, total=state.max_steps, completed=state.global_step, unit="step", note=""
        )

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Move the bar to the optimizer step just made."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=state.global_step)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Show the last logged figures behind the bar, and keep them in the run's log, where nobody sees the bar."""
        if self._bar is None or self._task is None or not logs:
            return
        shown = ", ".join(f"{name.split('/')[-1]} {float(logs[name]):.3g}" for name in SHOWN if name in logs)
        if shown:
            self._bar.update(self._task, note=shown)
            log.info("%s: step %d of %d: %s", self.what, state.global_step, state.max_steps, shown)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Close the bar; where the output is no terminal, leave one line."""
        if self._bar is None:
            return
        self._bar.stop()
        self._bar = None
        if not console.is_terminal:
            console.print(f"{self.what}: {counted(state.global_step, 'step')} done")
