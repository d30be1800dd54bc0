"""Checkpoints that a killed stage resumes from: only those that are whole count.

A trainer writes a checkpoint file by file, and deletes an old one file by file; a process killed in between leaves a
folder that looks whole. So a mark is written after the last file. It lists the files with their sizes, and a checkpoint
without the mark, or that is not as its mark says, is removed when the stage starts again. Old checkpoints are deleted
only after the new one is marked, and lose their mark first.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME

log = logging.getLogger(__name__)

MARK = "complete"

FEWEST = 2
"""The newest checkpoints that are always kept: should one be damaged, there is another."""


class CompleteCheckpoints(TrainerCallback):
    """Marks a checkpoint as complete after the trainer wrote it, and lets every checkpoint end on a log entry.

    The log entry makes the log of a resumed run the same as that of an uninterrupted one: a trainer averages the loss
    over the steps since the last entry, and forgets the steps before a checkpoint.

    Args:
        keep: how many of the newest checkpoints to keep (at least two), beside the best one; None keeps all. The
            trainer's own `save_total_limit` must be None then: it deletes before the new checkpoint is marked.
    """

    def __init__(self, keep: int | None = None) -> None:
        self.keep = keep

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Log where a checkpoint will be saved. Must be registered behind the trainer's own flow callback."""
        control.should_log = control.should_log or control.should_save

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """The same for checkpoints at the end of an epoch."""
        control.should_log = control.should_log or control.should_save

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Mark the checkpoint just written and delete those no longer needed."""
        args.distributed_state.wait_for_everyone()  # each process writes its own random state
        if not state.is_world_process_zero:
            return
        scratch = Path(args.output_dir)
        mark_complete(scratch / f"checkpoint-{state.global_step}")
        if self.keep is not None:
            best = Path(state.best_model_checkpoint).name if state.best_model_checkpoint else None
            for folder in by_step(scratch)[: -max(self.keep, FEWEST)]:
                if folder.name != best:
                    _remove(folder)


def mark_complete(folder: Path) -> None:
    """Write the mark: the checkpoint's files with their sizes in bytes."""
    partial = folder / f"{MARK}.partial"
    partial.write_text(json.dumps(_sizes(folder), indent=1), encoding="utf-8")
    partial.replace(folder / MARK)


def last_complete_checkpoint(scratch: Path) -> Path | None:
    """The newest checkpoint below `scratch` that a training can go on from, or None; others after it are removed.

    It is complete, and so is the best checkpoint up to then, which the training may end with.
    """
    folders = by_step(scratch)
    for folder in [folder for folder in folders if not _is_complete(folder)]:
        log.info("%s was not written or not deleted to the end, or is damaged: it is removed", folder)
        _remove(folder)
    for folder in reversed(by_step(scratch)):
        best = _best_of(folder)
        if best is None or (scratch / best).exists():
            return folder
        log.info("%s is removed: %s, the best checkpoint up to then, is gone", folder, best)
        _remove(folder)
    return None


def by_step(scratch: Path) -> list[Path]:
    """The checkpoints below a folder, the oldest first."""
    steps = {folder: re.fullmatch(r"checkpoint-(\d+)", folder.name) for folder in scratch.glob("checkpoint-*")}
    return [folder for _, folder in sorted((int(step[1]), folder) for folder, step in steps.items() if step)]


def _sizes(folder: Path) -> dict[str, int]:
    own = (MARK, f"{MARK}.partial")
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in own)
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}


def _is_complete(folder: Path) -> bool:
    """Whether every file that the mark lists is there in its size."""
    try:
        marked = json.loads((folder / MARK).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return False
    return isinstance(marked, dict) and marked.items() <= _sizes(folder).items()


def _best_of(folder: Path) -> str | None:
    """The name of the best checkpoint at the time that a checkpoint was written; None without evaluations."""
    path = folder / TRAINER_STATE_NAME
    best = json.loads(path.read_text(encoding="utf-8")).get("best_model_checkpoint") if path.exists() else None
    return Path(best).name if best else None


def _remove(folder: Path) -> None:
    """Delete a checkpoint, the mark first: a kill in between must not leave one that counts."""
    (folder / MARK).unlink(missing_ok=True)
    shutil.rmtree(folder)
