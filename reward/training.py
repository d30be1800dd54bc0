"""Training a reward model on preference pairs, by TRL's RewardTrainer (Bradley–Terry loss)."""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase, set_seed
from trl import RewardConfig, RewardTrainer

from plumbline.adapters import check_joinable
from plumbline.errors import UserError
from plumbline.length_groups import LengthGroupedPairs, short_first
from plumbline.models import context_window, load_tokenizer, quantized_options, starting_weights
from plumbline.training import TrainedSection, enough_pairs, keep_short, max_length_for, train_and_save, trainer_config
from reward.accuracy import held_out_accuracy
from reward.model import RewardModel, encode, load_classifier

log = logging.getLogger(__name__)

REWARD_DEFAULTS: dict[str, Any] = {
    "per_device_train_batch_size": 8,
    "num_train_epochs": 1,
    "learning_rate": 1e-5,
    "warmup_steps": 0.05,
    "center_rewards_coefficient": 0.01,  # keeps the mean score near zero (arXiv:2312.09244), which PPO likes
    "train_sampling_strategy": "group_by_length",
}
"""What `reward:` does not name, on top of `plumbline.training.COMMON_DEFAULTS`."""

LORA_LEARNING_RATE = 1e-4


class PairTrainer(LengthGroupedPairs, RewardTrainer):
    """TRL's trainer, which can group pairs by length."""


class RewardSection(TrainedSection, Protocol):
    """What is read of the recipe's section."""

    @property
    def use_margin(self) -> bool: ...  # subtract the pair's margin in the loss


def train_reward(
    model: Path,
    train: Dataset,
    evaluation: Dataset | None,
    section: RewardSection,
    folder: Path,
    scratch: Path,
    *,
    seed: int,
) -> dict[str, Any]:
    """Train a reward model from a policy's weights and write it to `folder`.

    Args:
        model: the policy to start from; an adapter is merged, see `plumbline.models`.
        train: rows with `prompt`, `chosen`, `rejected` (messages) and `margin`.
        evaluation: held-out rows of prompts that are not in `train`, or None.
        section: fields of `trl.RewardConfig` in `trainer`, `lora`, `load_in_4bit`, `use_margin`.
        folder: where the model goes.
        scratch: where checkpoints go; training goes on from the last complete one.
        seed: of everything random, the head included.

    Returns:
        `train_loss`, `train_pairs`, `dropped_pairs` and `dropped_eval_pairs` (longer than `max_length`) and more; with
        held-out pairs also `eval_loss` and the fields of `reward.accuracy.HeldOut`.

    Raises:
        UserError: fewer pairs than a batch, all pairs longer than `max_length`, a loss that became NaN.
    """
    if section.lora is not None:
        check_joinable(model)
    start = starting_weights(model, scratch)
    max_length = max_length_for(section, start, stage="reward")
    defaults = REWARD_DEFAULTS | {"max_length": max_length}
    if section.lora is not None:
        defaults["learning_rate"] = LORA_LEARNING_RATE
    tokenizer = pad_apart(load_tokenizer(start))
    longest = max_length or context_window(start)
    fitting = _fitting(train, tokenizer, longest, "training")
    held_out = _fitting(evaluation or train.select([]), tokenizer, longest, "held-out")
    config = trainer_config(
        RewardConfig, section, scratch, defaults, stage="reward", seed=seed, evaluates=len(held_out) > 0
    )
    enough_pairs(len(fitting), config, stage="reward")
    set_seed(seed)
    trainer = PairTrainer(
        model=_classifier(start, section),
        args=config,
        train_dataset=_columns(fitting, section),
        eval_dataset=_columns(short_first(held_out), section) if held_out else None,
        processing_class=tokenizer,
        peft_config=section.lora.to_peft("SEQ_CLS") if section.lora is not None else None,
    )
    metrics = train_and_save(
        trainer, stage="reward", what="Training the reward model", policy=model, folder=folder, scratch=scratch
    )
    metrics |= {"train_pairs": len(fitting), "dropped_pairs": len(train) - len(fitting)}
    metrics["dropped_eval_pairs"] = len(evaluation or ()) - len(held_out)
    if not held_out:
        log.info("reward: there are no held-out pairs, so the reward model's accuracy is not known")
        return metrics
    return metrics | asdict(held_out_accuracy(RewardModel.load(folder), held_out))


def _fitting(pairs: Dataset, tokenizer: PreTrainedTokenizerBase, longest: int | None, which: str) -> Dataset:
    """The pairs of which both conversations have at most `longest` tokens."""
    if len(pairs) == 0:
        return pairs
    prompts, *sides = (pairs[column] for column in ("prompt", "chosen", "rejected"))
    chosen, rejected = (
        encode(tokenizer, [prompt + response for prompt, response in zip(prompts, side, strict=True)]) for side in sides
    )
    lengths = [max(map(len, pair)) for pair in zip(chosen, rejected, strict=True)]
    return keep_short(pairs, lengths, longest, what=f"reward, {which} pairs", why=f"{longest} tokens")


def _classifier(start: Path, section: RewardSection) -> PreTrainedModel:
    """The policy's trunk with a new head of one label; 4-bit weights leave the head alone."""
    if not section.load_in_4bit:
        return load_classifier(start)
    options = quantized_options()
    options["quantization_config"].llm_int8_skip_modules = ["score"]
    return load_classifier(start, **options)


def _columns(pairs: Dataset, section: RewardSection) -> Dataset:
    return pairs.select_columns(["prompt", "chosen", "rejected", *(["margin"] if section.use_margin else [])])


def pad_apart(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """Give a tokenizer whose pad token may end a conversation another pad token.

    Classifiers of transformers read the score at the last token that is not the pad token. Where pad and eos are one
    token and a conversation ends with it, that would be the token before.

    Raises:
        UserError: every special token occurs at the end of a conversation.
    """
    ending = tokenizer.apply_chat_template(
        [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], return_dict=True
    )["input_ids"]
    if tokenizer.pad_token_id != tokenizer.eos_token_id and tokenizer.pad_token_id not in ending:
        return tokenizer
    unused = [token for token, index in sorted(tokenizer.get_vocab().items()) if index not in ending]
    special = [token for token in tokenizer.all_special_tokens if token in unused]
    if not unused:
        raise UserError("the tokenizer has no token to pad with: set model.pad_token in the recipe.")
    tokenizer.pad_token = (special or unused)[0]
    log.info("reward: pad and eos are one token; the reward model pads with %r instead", tokenizer.pad_token)
    return tokenizer
