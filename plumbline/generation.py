"""Autoregressive sampling in one batch, with a key-value cache that does not copy itself at each token."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from transformers import Cache, DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

KEPT_SHARE = 0.8
"""Continuations that ended leave the batch when no more than this share of it still runs: leaving copies the cache."""


class RoomyLayer(DynamicLayer):
    """A cache layer with room for the tokens to come: adding one writes it in place, where `cat` would copy all.

    Keys and values are `(batch, heads, seq, head_dim)` views into buffers of `seq + room`.
    """

    def __init__(self, layer: DynamicLayer, room: int) -> None:
        super().__init__()
        self.lazy_initialization(layer.keys, layer.values)
        self._keys, self._values = (_with_room(states, room) for states in (layer.keys, layer.values))
        self._show(layer.keys.shape[-2])

    def _show(self, length: int) -> None:
        self.keys, self.values = self._keys[..., :length, :], self._values[..., :length, :]

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write new states behind the ones that are there; return all."""
        start = self.keys.shape[-2]
        end = start + key_states.shape[-2]
        self._keys[..., start:end, :], self._values[..., start:end, :] = key_states, value_states
        self._show(end)
        return self.keys, self.values

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keep the rows `indices`, which ascend."""
        length, kept = self.keys.shape[-2], len(indices)
        self._keys[:kept, :, :length], self._values[:kept, :, :length] = self.keys[indices], self.values[indices]
        self._keys, self._values = self._keys[:kept], self._values[:kept]
        self._show(length)


def _with_room(states: torch.Tensor, room: int) -> torch.Tensor:
    batch, heads, length, size = states.shape
    buffer = states.new_empty(batch, heads, length + room, size)
    buffer[..., :length, :] = states
    return buffer


def make_room(cache: Cache, room: int) -> None:
    """Give a cache that holds the prompts room for so many tokens more, so that none of them copies it.

    Only plain layers are changed; others (sliding windows, recurrent states) grow in their own way.
    """
    if isinstance(cache, DynamicCache):
        cache.layers = [RoomyLayer(layer, room) if type(layer) is DynamicLayer else layer for layer in cache.layers]


@torch.inference_mode()
def generate(
    model: PreTrainedModel,
    rows: Sequence[Sequence[int]],
    n: int,
    pad: int,
    stop: Sequence[int],
    temperature: float,
    top_p: float,
    max_new_tokens: int,
    generator: torch.Generator,
) -> list[list[int]]:
    """Sample `n` continuations of each row of token ids, those of a row together.

    The prompts are read once each; the key-value cache is then repeated for the `n` continuations. Continuations that
    ended leave the batch.

    Args:
        model: a causal language model in evaluation mode.
        rows: token ids of the prompts, of any length each.
        n: continuations of each.
        pad: token id to pad the prompts with, on the left.
        stop: token ids that end a continuation.
        temperature: of the sampling; 0 takes the most probable token.
        top_p: keep the most probable tokens up to this mass.
        max_new_tokens: longest continuation.
        generator: the random state, on the model's device.

    Returns:
        Token ids of the `len(rows) * n` continuations, the stop token included.
    """
    ids, mask = _left_padded(rows, pad, model.device)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    out = model(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=True, logits_to_keep=1)
    cache, logits = out.past_key_values, out.logits[:, -1].repeat_interleave(n, dim=0)
    cache.batch_repeat_interleave(n)
    make_room(cache, max_new_tokens)
    mask = mask.repeat_interleave(n, dim=0)
    position = positions[:, -1:].repeat_interleave(n, dim=0)
    slots = list(range(len(rows) * n))  # which continuation each row of the batch is
    responses: list[list[int]] = [[] for _ in slots]
    running = set(slots)
    for step in range(1, max_new_tokens + 1):
        token = _draw(logits, temperature, top_p, generator)
        for slot, drawn in zip(slots, token.tolist(), strict=True):
            if slot in running:
                responses[slot].append(drawn)
                if drawn in stop:
                    running.discard(slot)
        if not running or step == max_new_tokens:
            break
        if len(running) <= KEPT_SHARE * len(slots):
            kept = torch.tensor([row for row, slot in enumerate(slots) if slot in running], device=model.device)
            slots = [slot for slot in slots if slot in running]
            token, mask, position = token[kept], mask[kept], position[kept]
            cache.batch_select_indices(kept)
        mask, position = torch.cat([mask, mask.new_ones(len(slots), 1)], dim=-1), position + 1
        out = model(
            input_ids=token[:, None],
            attention_mask=mask,
            position_ids=position,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        cache, logits = out.past_key_values, out.logits[:, -1]
    return responses


@torch.inference_mode()
def generate_stream(
    model: PreTrainedModel,
    ids: Sequence[int],
    *,
    stop: Sequence[int],
    temperature: float,
    max_new_tokens: int,
    generator: torch.Generator,
) -> Iterator[int]:
    """Sample one continuation, token by token, the stop token included; closing the iterator ends the work.

    Args:
        model: a causal language model in evaluation mode.
        ids: token ids of the prompt.
        stop, temperature, max_new_tokens, generator: as in `generate`.
    """
    given = torch.tensor([list(ids)], device=model.device)
    out = model(input_ids=given, use_cache=True, logits_to_keep=1)
    cache = out.past_key_values
    make_room(cache, max_new_tokens)
    for step in range(1, max_new_tokens + 1):
        token = _draw(out.logits[:, -1], temperature, 1.0, generator)
        drawn = int(token)
        yield drawn
        if drawn in stop or step == max_new_tokens:
            return
        out = model(input_ids=token[:, None], past_key_values=cache, use_cache=True, logits_to_keep=1)
        cache = out.past_key_values


def _left_padded(rows: Sequence[Sequence[int]], pad: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids `(batch, seq)` padded on the left, and their attention mask."""
    longest = max(len(row) for row in rows)
    ids = torch.full((len(rows), longest), pad, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for number, row in enumerate(rows):
        ids[number, longest - len(row) :] = torch.tensor(row)
        mask[number, longest - len(row) :] = 1
    return ids.to(device), mask.to(device)


def _draw(logits: torch.Tensor, temperature: float, top_p: float, generator: torch.Generator) -> torch.Tensor:
    """One token for each row of `(batch, vocabulary)` logits."""
    if temperature == 0:
        return logits.argmax(dim=-1)
    probabilities = torch.softmax(logits.float() / temperature, dim=-1)
    if top_p < 1:
        ordered, order = probabilities.sort(dim=-1, descending=True)
        # A token stays while the mass before it is below top_p, so that the most probable one always stays.
        ordered[ordered.cumsum(-1) - ordered >= top_p] = 0
        probabilities = torch.zeros_like(probabilities).scatter(-1, order, ordered)
    return torch.multinomial(probabilities, 1, generator=generator).squeeze(-1)
