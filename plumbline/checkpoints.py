"""Checkpoints that a killed stage resumes from: only those that were written to the end count.

A trainer writes a checkpoint file by file; a process killed in between leaves a folder that looks whole. A mark is
written after the last file, and a checkpoint without the mark is removed when the stage starts again.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

MARK = "complete"


class CompleteCheckpoints(TrainerCallback):
    """Marks a checkpoint as complete after the trainer wrote it, and lets every checkpoint end on a log entry.

    The log entry makes the log of a resumed run the same as that of an uninterrupted one: a trainer averages the loss
    over the steps since the last entry, and forgets the steps before a checkpoint.
    """

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Log where a checkpoint will be saved. Must be registered behind the trainer's own flow callback."""
        control.should_log = control.should_log or control.should_save

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """The same for checkpoints at the end of an epoch."""
        control.should_log = control.should_log or control.should_save

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Mark the checkpoint just written."""
        if state.is_world_process_zero:
            (Path(args.output_dir) / f"checkpoint-{state.global_step}" / MARK).touch()


def last_complete_checkpoint(scratch: Path) -> Path | None:
    """The newest complete checkpoint below `scratch`, or None; unmarked ones are removed."""
    complete: dict[int, Path] = {}
    for folder in scratch.glob("checkpoint-*"):
        step = re.fullmatch(r"checkpoint-(\d+)", folder.name)
        if step is None:
            continue
        if (folder / MARK).exists():
            complete[int(step[1])] = folder
        else:
            shutil.rmtree(folder)
    return complete[max(complete)] if complete else None
