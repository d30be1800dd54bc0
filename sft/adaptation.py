"""Domain adaptation: continued pretraining on raw domain text before the fine-tuning, by TRL's SFTTrainer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from datasets import Dataset

from plumbline.adapters import check_joinable
from plumbline.errors import UserError
from plumbline.models import load_tokenizer, starting_weights
from plumbline.training import TrainedSection
from sft.training import run_sft_trainer

ADAPT_DEFAULTS: dict[str, Any] = {
    "packing": True,
    "packing_strategy": "bfd_split",  # long texts are split, none is cut
    "per_device_train_batch_size": 4,
    "num_train_epochs": 1,
    "learning_rate": 2e-5,
    "warmup_steps": 0.05,
}
"""What `adapt:` does not name, on top of `plumbline.training.COMMON_DEFAULTS`."""


def adapt(
    model: Path,
    corpus: Dataset,
    evaluation: Dataset | None,
    section: TrainedSection,
    folder: Path,
    scratch: Path,
    *,
    seed: int,
) -> dict[str, Any]:
    """Go on with the pretraining of a model on raw text and write it to `folder`.

    Each text ends with the eos token. Texts are packed into rows of `max_length` tokens and do not attend to each
    other.

    Args:
        model: full weights or an adapter; an adapter is merged, see `plumbline.models`.
        corpus: rows with `text`.
        evaluation: held-out rows with `text`, or None; no row counts as None.
        section: fields of `trl.SFTConfig` in `trainer`, `lora`, `load_in_4bit`.
        folder: where the model goes.
        scratch: where checkpoints go; training goes on from the last complete one.
        seed: of everything random.

    Returns:
        The metrics of `sft.train_sft`.

    Raises:
        UserError: there is no text, the model has no pad token, a loss became NaN.
    """
    if len(corpus) == 0:
        raise UserError("adapt: there is no text to train on: name files with text in data.corpus.")
    if section.lora is not None:
        check_joinable(model)
    start = starting_weights(model, scratch)
    tokenizer = load_tokenizer(start)
    return run_sft_trainer(
        start,
        model,
        tokenizer,
        corpus,
        evaluation,
        section,
        folder,
        scratch,
        defaults=ADAPT_DEFAULTS,
        stage="adapt",
        seed=seed,
    )
