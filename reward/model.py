"""The reward model: one score for a conversation that ends with the assistant's message."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors import safe_open
from transformers import AutoModelForSequenceClassification, PreTrainedModel, PreTrainedTokenizerBase
from trl.trainer.reward_trainer import suppress_seqcls_warning

from plumbline.conversations import Conversation, conversation_fault
from plumbline.errors import UserError
from plumbline.identity import adapter_base
from plumbline.model_files import from_folder, is_adapter, weight_files
from plumbline.models import context_window, fastest_device, load_tokenizer


class RewardModel:
    """Scores conversations in float32: higher is better; only differences have a meaning.

    The score is read at the last token of the conversation, found by the attention mask, so it does not depend on what
    else is in the batch nor on the padding token.

    Args:
        model: a sequence classifier with one label, or a PEFT model of one.
        tokenizer: with the chat template that the model was trained with.
    """

    def __init__(self, model: PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerBase) -> None:
        self.model, self.tokenizer = model.eval(), tokenizer

    @classmethod
    def load(cls, path: str | Path, *, device: str | torch.device | None = None) -> RewardModel:
        """Load a reward model: full weights, or an adapter with its head over its base.

        Args:
            path: the model folder.
            device: where to; default: the accelerator, or the CPU.

        Raises:
            UserError: the folder holds no classifier with one label.
        """
        if not _has_head(Path(path)):
            raise UserError(f"{path} is no reward model: it has no head `score`. Train one, or name another folder.")
        model = load_classifier(Path(path))
        return cls(model.to(device or fastest_device()), load_tokenizer(path))

    @torch.inference_mode()
    def score(self, conversations: Sequence[Conversation], *, batch_tokens: int = 16384) -> torch.Tensor:
        """Score conversations.

        Args:
            conversations: each ends with the assistant's message.
            batch_tokens: most tokens of one batch, padding included.

        Returns:
            `(len(conversations),)` float32 on the CPU.

        Raises:
            UserError: a conversation does not end with the assistant's message or is longer than the model's window;
                the message names its row.
        """
        encoded = self._encode(conversations)
        # The same text is scored once: rows of a batch differ in the last bits, and equal texts must have equal scores.
        waiting = sorted(set(encoded), key=lambda ids: (-len(ids), ids))
        scores: dict[tuple[int, ...], float] = {}
        while waiting:
            size = max(1, batch_tokens // len(waiting[0]))
            batch, waiting = waiting[:size], waiting[size:]
            scores.update(zip(batch, self._score_batch(batch).tolist(), strict=True))
        return torch.tensor([scores[ids] for ids in encoded], dtype=torch.float32)

    def _encode(self, conversations: Sequence[Conversation]) -> list[tuple[int, ...]]:
        for row, conversation in enumerate(conversations, 1):
            fault = conversation_fault(conversation, must_end_with="assistant")
            if fault:
                raise UserError(f"conversation {row} cannot be scored: {fault}.")
        if not conversations:
            return []
        encoded = encode(self.tokenizer, conversations)
        window = context_window(self.model)
        for row, ids in enumerate(encoded, 1):
            if window and len(ids) > window:
                raise UserError(
                    f"conversation {row} has {len(ids)} tokens, more than the reward model's window of {window}: "
                    "shorten it, or sample with a lower max_new_tokens."
                )
        return encoded

    def _score_batch(self, rows: Sequence[Sequence[int]]) -> torch.Tensor:
        """Scores `(batch,)` of rows of token ids, padded on the right."""
        lengths = torch.tensor([len(row) for row in rows])
        mask = torch.arange(int(lengths.max())) < lengths[:, None]
        ids = torch.zeros_like(mask, dtype=torch.long)
        ids[mask] = torch.tensor([token for row in rows for token in row])
        device = self.model.device
        classifier = self.model.get_base_model() if isinstance(self.model, PeftModel) else self.model
        trunk = getattr(classifier, classifier.base_model_prefix)
        hidden = trunk(input_ids=ids.to(device), attention_mask=mask.long().to(device), use_cache=False)
        last = hidden.last_hidden_state[torch.arange(len(rows)), lengths.to(device) - 1]
        return classifier.score(last).float().squeeze(-1).cpu()


def encode(tokenizer: PreTrainedTokenizerBase, conversations: Sequence[Conversation]) -> list[tuple[int, ...]]:
    """The token ids of whole conversations, as a reward model reads them in training and in scoring."""
    texts = tokenizer.apply_chat_template(list(conversations), tokenize=False)
    return [tuple(ids) for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]


def _has_head(folder: Path) -> bool:
    """Whether a folder's weights, or those of the base below its adapter, have a head; else it would be random."""
    for part in (folder, adapter_base(folder)[1]) if is_adapter(folder) else (folder,):
        for path in weight_files(part):
            with safe_open(path, framework="pt") as file:
                if any(name.endswith("score.weight") for name in file.keys()):  # noqa: SIM118, the file is no dictionary
                    return True
    return False


def load_classifier(path: Path, **options: Any) -> PreTrainedModel:
    """Load a sequence classifier with one label in float32; an adapter is merged into its base, its head included.

    Args:
        path: a reward model, or the full weights of a policy (then the head is new and random).
        options: of `from_pretrained`, in place of float32.

    Raises:
        UserError: it is no classifier with one label whose head plumbline knows.
    """
    base = adapter_base(path)[1] if is_adapter(path) else path
    try:
        with suppress_seqcls_warning():
            model = from_folder(
                AutoModelForSequenceClassification,
                base,
                num_labels=1,
                use_safetensors=True,
                **(options or {"dtype": torch.float32}),
            )
    except (OSError, ValueError, RuntimeError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path} cannot be loaded as a reward model with one score: {first}") from error
    if not hasattr(model, "score"):
        raise UserError(f"{path} ({type(model).__name__}) is no decoder with a score head: train a reward model first.")
    if base != path:
        model = PeftModel.from_pretrained(model, path).merge_and_unload()
    return model
