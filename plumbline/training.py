"""What every stage that trains with a `transformers.Trainer` has in common.

Configuration from the recipe's section, seeds, precision, checkpoints and resuming, progress, the saved model, the
training log and the metrics.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from datasets import Dataset
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME

from plumbline.adapters import finish_adapter
from plumbline.checkpoints import CompleteCheckpoints, last_complete_checkpoint
from plumbline.errors import UserError
from plumbline.model_files import is_adapter
from plumbline.models import context_window
from plumbline.progress import TrainerProgress

log = logging.getLogger(__name__)

Config = TypeVar("Config", bound=TrainingArguments)

LOG_FILE = "training_log.jsonl"
UNTOLD = ("runtime", "per_second", "num_tokens", "total_flos", "num_input_tokens_seen")
"""Parts of names of log entries that differ between a resumed and an uninterrupted run."""

COMMON_DEFAULTS: dict[str, Any] = {
    "eval_strategy": "steps",
    "save_strategy": "steps",
    "eval_steps": 0.2,  # five evaluations and checkpoints over the run
    "save_steps": 0.2,
    "save_total_limit": 2,
    "load_best_model_at_end": True,
    "metric_for_best_model": "eval_loss",
    "lr_scheduler_type": "cosine",
    "logging_steps": 10,
    "max_grad_norm": 1.0,
    "report_to": "none",
}
"""What a section does not name, for every training stage; a stage has its own on top."""


class TrainedSection(Protocol):
    """What the plumbing reads of a recipe's section."""

    @property
    def trainer(self) -> dict[str, Any]: ...  # fields of the trainer's configuration by its own names

    @property
    def lora(self) -> Any: ...  # a LoRA section, or None

    @property
    def load_in_4bit(self) -> bool: ...


class LossGuard(TrainerCallback):
    """Stops a training whose loss is no longer a number, before a checkpoint of it is written."""

    def __init__(self, stage: str) -> None:
        self.stage = stage

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Refuse a loss that is NaN or infinite."""
        for name in ("loss", "eval_loss"):
            value = (logs or {}).get(name)
            if value is not None and not math.isfinite(value):
                raise UserError(
                    f"{self.stage}: {name} became {value} at step {state.global_step}: lower "
                    f"{self.stage}.learning_rate (now {args.learning_rate:g}), or look for rows with odd text."
                )


def trainer_config(
    config_class: type[Config],
    section: TrainedSection,
    scratch: Path,
    defaults: Mapping[str, Any],
    *,
    stage: str,
    seed: int,
    evaluates: bool,
) -> Config:
    """The trainer's configuration: what the section names, over the stage's defaults, over the common ones.

    Args:
        config_class: `trl.SFTConfig` and the like.
        section: the recipe's section.
        scratch: where checkpoints go.
        defaults: the stage's own defaults.
        stage: the section's name, for messages.
        seed: of everything random.
        evaluates: whether there are held-out rows; without them the last weights are kept instead of the best.

    Raises:
        UserError: the trainer's configuration refuses a value.
    """
    values = completed(section.trainer, defaults, evaluates=evaluates)
    fixed = {"output_dir": str(scratch), "seed": seed, "disable_tqdm": True, "logging_nan_inf_filter": False}
    try:
        return config_class(**{**values, **fixed})
    except (ValueError, TypeError) as error:
        raise UserError(f"{stage}: {error}") from error


def completed(named: Mapping[str, Any], defaults: Mapping[str, Any], *, evaluates: bool = True) -> dict[str, Any]:
    """What a section names, over the stage's defaults, over the common ones, made to fit each other."""
    named = dict(named)
    values = {**COMMON_DEFAULTS, **_precision(named), **defaults}
    if not evaluates or named.get("eval_strategy") == "no":
        values |= {"eval_strategy": "no", "load_best_model_at_end": False}
        needless = ("eval_", "load_best_model_at_end") if not evaluates else ("eval_",)
        named = {key: value for key, value in named.items() if not key.startswith(needless)}
    elif named.get("save_strategy") == "no":
        values["load_best_model_at_end"] = False
    else:
        values |= _matched(named)
    values.setdefault("per_device_eval_batch_size", named.get("per_device_train_batch_size", 8))
    return {**values, **named}


def _precision(named: Mapping[str, Any]) -> dict[str, Any]:
    """bfloat16 autocast over float32 weights where the GPU has it; float32 elsewhere. Savings of memory only there."""
    on_gpu = torch.cuda.is_available()
    return {
        "bf16": on_gpu and torch.cuda.is_bf16_supported() and not named.get("fp16"),
        "gradient_checkpointing": on_gpu,
        "dataloader_pin_memory": on_gpu,
        "use_cpu": not torch.accelerator.is_available(),
    }


def _matched(named: Mapping[str, Any]) -> dict[str, Any]:
    """Evaluate and save at the same time, as keeping the best checkpoint needs, where only one of them is named."""
    matched: dict[str, Any] = {}
    for field in ("strategy", "steps"):
        given = [named[f"{what}_{field}"] for what in ("eval", "save") if f"{what}_{field}" in named]
        if len(given) == 1:
            matched |= {f"eval_{field}": given[0], f"save_{field}": given[0]}
    return matched


def max_length_for(section: TrainedSection, start: Path, *, stage: str, default: int = 1024) -> int | None:
    """The longest training sequence in tokens: the section's, else `default`, within the model's window.

    Raises:
        UserError: the section asks for more than the window holds.
    """
    window = context_window(start)
    if "max_length" not in section.trainer:
        return min(default, window) if window else default
    length = section.trainer["max_length"]
    if length is not None and window and length > window:
        raise UserError(f"{stage}.max_length {length} is more than the window of {start} ({window} tokens): lower it.")
    return None if length is None else int(length)


def keep_short(rows: Dataset, lengths: Sequence[int], longest: int | None, *, what: str, why: str) -> Dataset:
    """The rows of at most `longest` tokens; warns how many are left out.

    Args:
        rows: examples.
        lengths: of each, in tokens.
        longest: None keeps all.
        what: the rows' name in the warning, with the stage.
        why: what the limit is, in the warning.
    """
    kept = [row for row, length in enumerate(lengths) if longest is None or length <= longest]
    if len(kept) == len(rows):
        return rows
    log.warning("%s: left out %d of %d, longer than %s", what, len(rows) - len(kept), len(rows), why)
    return rows.select(kept)


def train_and_save(
    trainer: Trainer, *, stage: str, what: str, policy: Path, folder: Path, scratch: Path
) -> dict[str, Any]:
    """Train, or go on from the last complete checkpoint; save the model, its tokenizer and the log.

    Args:
        trainer: ready to train; its configuration is from `trainer_config`.
        stage: the section's name, for messages.
        what: what the progress bar says.
        policy: what the training started from (a folder of full weights or of an adapter).
        folder: where the final files go.
        scratch: where the checkpoints are.

    Returns:
        Metrics: `train_loss` (the last logged), `steps`, and those of the best (else the last) evaluation.

    Raises:
        UserError: the loss became NaN or infinite.
    """
    trainer.remove_callback(PrinterCallback)
    keep, trainer.args.save_total_limit = trainer.args.save_total_limit, None
    for callback in (LossGuard(stage), CompleteCheckpoints(keep), TrainerProgress(what)):
        trainer.add_callback(callback)
    _train_or_go_on(trainer, last_complete_checkpoint(scratch))
    trainer.save_model(str(folder))
    if trainer.is_world_process_zero():
        (folder / "training_args.bin").unlink(missing_ok=True)  # a pickle; no model folder holds one
        if is_adapter(folder):
            finish_adapter(folder, policy)
        (folder / "README.md").unlink(missing_ok=True)
        _write_log(trainer.state, folder / LOG_FILE)
    return _metrics(trainer.state)


def _train_or_go_on(trainer: Trainer, checkpoint: Path | None) -> None:
    """Train from the start or from a checkpoint; from the last one of a finished training only its result is loaded.

    A trainer that resumes behind its last step inside an epoch would train one step more.
    """
    state = TrainerState.load_from_json(str(checkpoint / TRAINER_STATE_NAME)) if checkpoint else None
    if state is None or state.global_step < state.max_steps:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        return
    trainer.state = state
    if trainer.args.load_best_model_at_end and state.best_model_checkpoint:
        trainer._load_best_model()
    else:
        trainer._load_from_checkpoint(str(checkpoint))


def _told(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if not any(part in key for part in UNTOLD)}


def _write_log(state: TrainerState, path: Path) -> None:
    entries = [_told(entry) for entry in state.log_history if "train_runtime" not in entry]
    path.write_text("".join(json.dumps(entry, sort_keys=True) + "\n" for entry in entries), encoding="utf-8")


def _metrics(state: TrainerState) -> dict[str, Any]:
    losses = [entry["loss"] for entry in state.log_history if "loss" in entry]
    evaluations = [entry for entry in state.log_history if "eval_loss" in entry]
    best = [entry for entry in evaluations if entry["step"] == state.best_global_step]
    metrics: dict[str, Any] = {"steps": state.global_step}
    if losses:
        metrics["train_loss"] = losses[-1]
    if evaluations:
        metrics["best_step"] = (best or evaluations)[-1]["step"]
        metrics |= {key: value for key, value in _told((best or evaluations)[-1]).items() if key.startswith("eval_")}
    return metrics


def effective_batch(config: TrainingArguments) -> int:
    """Rows that one optimizer step sees, over all devices."""
    return int(config.train_batch_size * config.gradient_accumulation_steps * config.world_size)


def enough_pairs(rows: int, config: TrainingArguments, *, stage: str) -> None:
    """Refuse fewer preference pairs than one optimizer step sees.

    Raises:
        UserError: says how many there are and how many are needed.
    """
    batch = effective_batch(config)
    if rows < batch:
        raise UserError(
            f"{stage}: {rows} preference pairs are left to train on, fewer than one batch of {batch}: collect more "
            f"judgements, or lower {stage}.per_device_train_batch_size or {stage}.gradient_accumulation_steps."
        )
