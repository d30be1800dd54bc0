"""Supervised fine-tuning on conversations by TRL's SFTTrainer; the loss is on the assistant's turns and their end."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import IntervalStrategy, PreTrainedTokenizerBase, set_seed
from transformers.utils import is_flash_attn_2_available
from trl import SFTConfig, SFTTrainer

from plumbline.adapters import check_joinable
from plumbline.errors import UserError
from plumbline.models import load_policy, load_tokenizer, starting_weights, training_chat_template
from plumbline.training import TrainedSection, max_length_for, train_and_save, trainer_config

log = logging.getLogger(__name__)

SFT_DEFAULTS: dict[str, Any] = {
    "assistant_only_loss": True,
    "per_device_train_batch_size": 8,
    "num_train_epochs": 3,
    "learning_rate": 2e-5,
    "warmup_steps": 0.05,
}
"""What `sft:` does not name, on top of `plumbline.training.COMMON_DEFAULTS`."""

LORA_LEARNING_RATE = 2e-4
"""Adapters start from nothing and take about ten times the rate of full weights."""


def train_sft(
    model: Path,
    train: Dataset,
    evaluation: Dataset | None,
    section: TrainedSection,
    folder: Path,
    scratch: Path,
    *,
    seed: int,
) -> dict[str, Any]:
    """Fine-tune a model on conversations and write the policy to `folder`.

    The loss is on the assistant's turns, their end-of-turn token included, so the policy learns to stop; that token
    becomes the tokenizer's eos where it was another one. The checkpoint with the lowest held-out loss is kept; without
    held-out rows the last one.

    Args:
        model: full weights or an adapter; an adapter is merged, see `plumbline.models`.
        train: rows with `messages`.
        evaluation: held-out rows with `messages`, or None; no row counts as None.
        section: fields of `trl.SFTConfig` in `trainer`, `lora`, `load_in_4bit`.
        folder: where the model goes.
        scratch: where checkpoints go; training goes on from the last complete one.
        seed: of everything random.

    Returns:
        `train_loss`, `eval_loss`, `eval_mean_token_accuracy`, `steps`, `train_rows`, `truncated_rows` and more.

    Raises:
        UserError: no chat template, no pad token, a template that cannot mark the assistant's turns, conversations that
            are all longer than `max_length`, a loss that became NaN.
    """
    start = _start(model, section, scratch)
    tokenizer = load_tokenizer(start)
    template = training_chat_template(tokenizer)
    defaults = SFT_DEFAULTS | {"eos_token": end_of_turn(tokenizer, template)}
    return run_sft_trainer(
        start, model, tokenizer, train, evaluation, section, folder, scratch, defaults=defaults, stage="sft", seed=seed
    )


def _start(model: Path, section: TrainedSection, scratch: Path) -> Path:
    if section.lora is not None:
        check_joinable(model)
    return starting_weights(model, scratch)


def end_of_turn(tokenizer: PreTrainedTokenizerBase, template: str) -> str:
    """The token that ends the assistant's turn by a template with generation marks; the model stops by emitting it."""
    rendered = tokenizer.apply_chat_template(
        [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}],
        chat_template=template,
        return_dict=True,
        return_assistant_tokens_mask=True,
    )
    marked = [token for token, mask in zip(rendered["input_ids"], rendered["assistant_masks"], strict=True) if mask]
    special = set(tokenizer.get_added_vocab().values())
    last = next(token for token in reversed(marked) if token in special)  # `training_chat_template` made sure of it
    return str(tokenizer.convert_ids_to_tokens(last))


def run_sft_trainer(
    start: Path,
    policy: Path,
    tokenizer: PreTrainedTokenizerBase,
    train: Dataset,
    evaluation: Dataset | None,
    section: TrainedSection,
    folder: Path,
    scratch: Path,
    *,
    defaults: dict[str, Any],
    stage: str,
    seed: int,
) -> dict[str, Any]:
    """Run TRL's SFTTrainer from full weights at `start`; shared by fine-tuning and adaptation."""
    evaluation = evaluation or None  # no row is no evaluation
    defaults = defaults | {"max_length": max_length_for(section, start, stage=stage)}
    if section.lora is not None:
        defaults["learning_rate"] = LORA_LEARNING_RATE
    config = trainer_config(
        SFTConfig, section, scratch, defaults, stage=stage, seed=seed, evaluates=evaluation is not None
    )
    set_seed(seed)
    trainer = SFTTrainer(
        model=load_policy(
            start, trainable=True, load_in_4bit=section.load_in_4bit, attn_implementation=_attention(config, stage)
        ),
        args=config,
        train_dataset=train,
        eval_dataset=evaluation,
        processing_class=tokenizer,
        peft_config=section.lora.to_peft("CAUSAL_LM") if section.lora is not None else None,
    )
    truncated = _truncated(trainer.train_dataset, config)
    if len(trainer.train_dataset) == 0:
        raise UserError(
            f"{stage}: every row is cut before the assistant says anything, at {stage}.max_length {config.max_length}: "
            "raise it, or shorten the prompts."
        )
    if evaluation is not None and len(trainer.eval_dataset) == 0:
        _do_not_evaluate(trainer)
        log.warning(
            "%s: every held-out row is cut at max_length %s: there is no held-out loss", stage, config.max_length
        )
    if truncated:
        log.warning("%s: %d rows are longer than max_length %s and were cut", stage, truncated, config.max_length)
    metrics = train_and_save(trainer, stage=stage, what=_WHAT[stage], policy=policy, folder=folder, scratch=scratch)
    return {**metrics, "train_rows": len(train), "truncated_rows": truncated}


def _do_not_evaluate(trainer: SFTTrainer) -> None:
    """Leave out the evaluation; the last weights are the result then."""
    trainer.eval_dataset = None
    trainer.args.eval_strategy = IntervalStrategy.NO
    trainer.args.load_best_model_at_end = False


_WHAT = {"sft": "Supervised fine-tuning", "adapt": "Adapting to the domain"}


def _attention(config: SFTConfig, stage: str) -> str | None:
    """Packed rows need attention that keeps them apart: flash attention where it is, else a dense block mask."""
    if not config.packing:
        return None
    if config.bf16 and is_flash_attn_2_available() and torch.cuda.is_available():
        return "flash_attention_2"
    log.info(
        "%s: packing without flash attention: a block-diagonal mask keeps packed rows apart; it costs "
        "(per_device_train_batch_size x max_length)^2, so keep that batch small",
        stage,
    )
    return None


def _truncated(dataset: Dataset, config: SFTConfig) -> int:
    """Rows that fill `max_length` to the last token, nearly all because they were cut there."""
    if config.max_length is None:
        return 0
    if config.packing:
        lengths = [length for row in dataset["seq_lengths"] for length in row] if len(dataset) else []
    else:
        lengths = [len(ids) for ids in dataset["input_ids"]]
    return sum(length >= config.max_length for length in lengths)
