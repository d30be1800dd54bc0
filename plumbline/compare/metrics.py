"""Figures of one policy's responses: log-probabilities for the KL, words, and the scores of the judges."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from plumbline.compare.statistics import Floats
from plumbline.conversations import Conversation, normalise

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from plumbline.utility import Utility
    from reward import RewardModel

LOGITS = 1 << 27
"""Most logits of one batch (512 MiB in float32)."""


class TokenRow(NamedTuple):
    """Token ids of one response and of the prompt before it."""

    prompt: list[int]
    response: list[int]


@torch.inference_mode()
def response_log_probs(
    model: PreTrainedModel, rows: Sequence[TokenRow], *, temperature: float, batch_tokens: int
) -> Floats:
    """Log-probability of each response after its prompt, summed over its tokens.

    Args:
        model: in evaluation mode on its device.
        rows: token ids; a response may be empty.
        temperature: what the logits are divided by: that of the sampling.
        batch_tokens: most tokens of one batch, padding included.

    Returns:
        `(len(rows),)`, in nats.
    """
    sums = np.zeros(len(rows))
    vocabulary = model.config.get_text_config().vocab_size
    lengths = [len(row.prompt) + len(row.response) for row in rows]
    order = sorted((index for index, row in enumerate(rows) if row.response), key=lambda index: -lengths[index])
    while order:
        longest = lengths[order[0]]
        size = max(1, min(batch_tokens, LOGITS // vocabulary) // longest)
        batch, order = order[:size], order[size:]
        sums[batch] = _batch_log_probs(model, [rows[i] for i in batch], temperature)
    return sums


def _batch_log_probs(model: PreTrainedModel, rows: Sequence[TokenRow], temperature: float) -> Floats:
    """Padded on the left, so that all responses end at the same place and only their logits are kept."""
    device = model.device
    ids = _left_padded([row.prompt + row.response for row in rows]).to(device)
    mask = _left_padded([[1] * (len(row.prompt) + len(row.response)) for row in rows]).to(device)
    longest = max(len(row.response) for row in rows)
    logits = model(
        input_ids=ids,
        attention_mask=mask,
        position_ids=(mask.cumsum(-1) - 1).clamp(min=0),
        use_cache=False,
        logits_to_keep=longest + 1,
    ).logits[:, :-1]
    targets = ids[:, -longest:]
    scaled = logits.float() / temperature
    log_probs = scaled.gather(-1, targets[..., None]).squeeze(-1) - scaled.logsumexp(-1)  # (batch, longest)
    lengths = torch.tensor([len(row.response) for row in rows], device=device)
    is_response = torch.arange(longest, device=device) >= longest - lengths[:, None]
    return (log_probs.double() * is_response).sum(-1).cpu().numpy()


def _left_padded(rows: Sequence[list[int]]) -> torch.Tensor:
    return torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_side="left")


def count_words(text: str) -> int:
    """Words of a text, parted by white space."""
    return len(text.split())


def folded_words(text: str) -> list[str]:
    """The words of a text without case and punctuation, for distinct n-grams."""
    return normalise(text).split()


def reward_scores(
    judge: RewardModel, prompts: Sequence[Conversation], texts: Sequence[Sequence[str]], *, batch_tokens: int
) -> Floats:
    """Scores of a reward model, `(prompts, responses)`; NaN where a response is empty: there is nothing to score."""
    scores = np.full((len(texts), len(texts[0])), np.nan)
    places = [(row, column) for row, line in enumerate(texts) for column, text in enumerate(line) if text.strip()]
    conversations = [[*prompts[row], {"role": "assistant", "content": texts[row][column]}] for row, column in places]
    found = judge.score(conversations, batch_tokens=batch_tokens)
    for (row, column), score in zip(places, found.tolist(), strict=True):
        scores[row, column] = score
    return scores


def utility_scores(utility: Utility, prompts: Sequence[Conversation], texts: Sequence[Sequence[str]]) -> Floats:
    """The known utility of each response, `(prompts, responses)`."""
    return np.array(
        [[utility.score(prompt, text) for text in line] for prompt, line in zip(prompts, texts, strict=True)]
    )


def empty_as_worst(scores: dict[str, Floats]) -> dict[str, Floats]:
    """Give empty responses (NaN) the lowest score that any policy's response has; 0 where all are empty."""
    finite = np.concatenate([values[np.isfinite(values)] for values in scores.values()])
    worst = float(finite.min()) if finite.size else 0.0
    return {name: np.where(np.isnan(values), worst, values) for name, values in scores.items()}
