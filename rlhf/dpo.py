"""Direct preference optimisation (arXiv:2305.18290), by TRL's DPOTrainer."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from accelerate import PartialState
from datasets import Dataset, load_from_disk
from transformers import PreTrainedTokenizerBase, set_seed
from trl import DPOConfig, DPOTrainer
from trl.trainer import dpo_trainer

from plumbline.adapters import check_joinable
from plumbline.console import track
from plumbline.length_groups import LengthGroupedPairs, short_first
from plumbline.models import load_policy, load_tokenizer, starting_weights
from plumbline.training import TrainedSection, enough_pairs, keep_short, max_length_for, train_and_save, trainer_config

DPO_DEFAULTS: dict[str, Any] = {
    "per_device_train_batch_size": 8,
    "num_train_epochs": 1,
    "learning_rate": 1e-6,
    "warmup_steps": 0.1,
    "beta": 0.1,
    "precompute_ref_log_probs": True,
    "train_sampling_strategy": "group_by_length",
}
"""What a `dpo` section does not name, on top of `plumbline.training.COMMON_DEFAULTS`."""

LORA_LEARNING_RATE = 1e-5


class PairTrainer(LengthGroupedPairs, DPOTrainer):
    """TRL's trainer, which can group pairs by length."""


@contextmanager
def own_bar() -> Iterator[None]:
    """plumbline's bar in place of the one that TRL's trainer draws while it asks the reference about every pair."""

    def own(iterable: Iterable[Any], **_: Any) -> Iterable[Any]:
        return track(iterable, "Asking the reference", unit="batch") if PartialState().is_main_process else iterable

    theirs, dpo_trainer.tqdm = dpo_trainer.tqdm, own
    try:
        yield
    finally:
        dpo_trainer.tqdm = theirs


@own_bar()
def train_dpo(
    policy: Path,
    train: Dataset,
    evaluation: Dataset | None,
    section: TrainedSection,
    folder: Path,
    scratch: Path,
    *,
    seed: int,
) -> dict[str, Any]:
    """Align a policy by DPO and write it to `folder`.

    The reference is the policy at the start. Its log-probabilities are computed once, before the training, and kept in
    `scratch`, so no second model is in memory and a resumed training does not compute them again.

    Args:
        policy: full weights or an adapter; an adapter is merged, see `plumbline.models`.
        train: rows with `prompt`, `chosen`, `rejected` (messages).
        evaluation: held-out rows of prompts that are not in `train`, or None.
        section: fields of `trl.DPOConfig` in `trainer`, `lora`, `load_in_4bit`.
        folder: where the policy goes.
        scratch: where checkpoints go; training goes on from the last complete one.
        seed: of everything random.

    Returns:
        `train_loss`, `eval_loss`, `eval_rewards/accuracies`, `eval_rewards/margins`, `train_pairs`, `dropped_pairs` and
        more.

    Raises:
        UserError: fewer pairs than a batch, all prompts longer than `max_length`, a loss that became NaN.
    """
    stage = str(getattr(section, "name", "") or "dpo")
    if section.lora is not None:
        check_joinable(policy)
    start = starting_weights(policy, scratch)
    max_length = max_length_for(section, start, stage=stage)
    defaults = DPO_DEFAULTS | {"max_length": max_length}
    if section.lora is not None:
        defaults["learning_rate"] = LORA_LEARNING_RATE
    tokenizer = load_tokenizer(start)
    if section.trainer.get("truncation_mode") == "keep_end":
        max_length = None  # cuts prompts at their start, so every response has something to learn from
    fitting = _fitting(train, tokenizer, max_length, f"{stage}, training pairs")
    held_out = _fitting(evaluation or train.select([]), tokenizer, max_length, f"{stage}, held-out pairs")
    config = trainer_config(DPOConfig, section, scratch, defaults, stage=stage, seed=seed, evaluates=len(held_out) > 0)
    enough_pairs(len(fitting), config, stage=stage)
    set_seed(seed)
    trainer = PairTrainer(
        model=load_policy(start, trainable=True, load_in_4bit=section.load_in_4bit),
        args=config,
        train_dataset=_on_disk(short_first(fitting), scratch / "train"),
        eval_dataset=_on_disk(short_first(held_out), scratch / "evaluation") if held_out else None,
        processing_class=tokenizer,
        peft_config=section.lora.to_peft("CAUSAL_LM") if section.lora is not None else None,
    )
    metrics = train_and_save(
        trainer, stage=stage, what="Aligning by DPO", policy=policy, folder=folder, scratch=scratch
    )
    return {**metrics, "train_pairs": len(fitting), "dropped_pairs": len(train) - len(fitting)}


def _fitting(pairs: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int | None, what: str) -> Dataset:
    """The pairs whose prompt leaves room for a token of the response, which is cut at `max_length`."""
    if max_length is None or len(pairs) == 0:
        return pairs
    prompts = tokenizer.apply_chat_template(list(pairs["prompt"]), add_generation_prompt=True, return_dict=True)
    lengths = [len(ids) for ids in prompts["input_ids"]]
    return keep_short(pairs, lengths, max_length - 1, what=what, why=f"max_length {max_length} with a response")


def _on_disk(pairs: Dataset, folder: Path) -> Dataset:
    """The pairs as files in `folder`: the trainer keeps what it computes from them (log-probabilities) beside them."""
    if not folder.exists():
        partial = folder.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        pairs.select_columns(["prompt", "chosen", "rejected"]).save_to_disk(str(partial))
        partial.rename(folder)
    return load_from_disk(str(folder))
