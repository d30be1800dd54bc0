"""How much memory a trainer's models take, measured on them: their weights, and what a few tokens leave behind."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from rlhf.ppo.memory import Footprint
from rlhf.ppo.models import base_of
from rlhf.ppo.setup import learn_apart
from rlhf.ppo.trainer import PPOTrainer

TOKENS = 32
"""Length of the sequences that are tried."""


def footprint_of(trainer: PPOTrainer) -> Footprint:
    """The footprint of a trainer's models, in the precision that it trains in.

    Activations are those of sequences of 32 and 64 tokens, from which a line goes on to longer ones: attention that
    keeps its (seq, seq) weights for the backward pass takes more.
    """
    policy = base_of(trainer.model.policy.model)
    short, long = (_kept_for_backward(trainer, tokens) for tokens in (TOKENS, 2 * TOKENS))
    per_token = (long - short) // TOKENS
    fixed = max(0, short - TOKENS * per_token)
    if trainer.args.gradient_checkpointing:  # each layer keeps its input, and one layer is made again at a time
        config = policy.config.get_text_config()
        layers = config.num_hidden_layers
        models = 1 if learn_apart(trainer.args) else 2
        per_token = per_token // layers + models * layers * config.hidden_size * 4  # in float32
    return Footprint(
        weights=_weights_by_role(trainer),
        trained=sum(weights.nbytes for weights in trainer.model.parameters() if weights.requires_grad),
        cache_per_token=_cache_bytes(trainer) // TOKENS,
        activations=fixed,
        activations_per_token=per_token,
        vocabulary=policy.get_output_embeddings().weight.shape[0],
    )


def _weights_by_role(trainer: PPOTrainer) -> dict[str, int]:
    roles: dict[str, list[nn.Module | None]] = {
        "policy": [trainer.model.policy],
        "reference": [trainer.reference.separate],
        "critic": [trainer.model.critic],
        "reward": [getattr(reward, "model", None) for reward in trainer.reward.rewards],
    }
    if trainer.watch is not None:
        roles["watched reward"] = [getattr(reward, "model", None) for reward in trainer.watch.reward.rewards]
    seen: set[int] = set()
    found = {}
    for role, modules in roles.items():
        own = {id(weights): weights.nbytes for module in modules for weights in _tensors(module)}
        found[role] = sum(size for key, size in own.items() if key not in seen)
        seen |= own.keys()
    return found


def _tensors(module: object) -> Iterable[Tensor]:
    return (*module.parameters(), *module.buffers()) if isinstance(module, nn.Module) else ()


def _some_tokens(trainer: PPOTrainer, count: int) -> Tensor:
    return torch.zeros((1, count), dtype=torch.long, device=trainer.args.device)


def _kept_for_backward(trainer: PPOTrainer, tokens: int) -> int:
    """Bytes that policy and critic keep of one sequence for the backward pass; without the head over the vocabulary."""
    model, ids = trainer.model, _some_tokens(trainer, tokens)
    model.train()
    kept = [
        _kept_by(trainer, lambda: base_of(model.policy.model).base_model(input_ids=ids, use_cache=False)),
        _kept_by(trainer, lambda: model.critic(ids)),
    ]
    return max(kept) if learn_apart(trainer.args) else sum(kept)


def _kept_by(trainer: PPOTrainer, forward: Callable[[], object]) -> int:
    weights = {tensor.untyped_storage().data_ptr() for tensor in trainer.model.parameters()}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with trainer.accelerator.autocast(), torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        output = forward()  # held until the end: a tensor that is freed leaves its address to another one
    del output
    return sum(kept.values())


@torch.no_grad()
def _cache_bytes(trainer: PPOTrainer) -> int:
    """Bytes of the key-value cache of a short sequence."""
    policy = base_of(trainer.model.policy.model)
    cache = DynamicCache(config=policy.config)
    trainer.model.eval()
    with trainer.accelerator.autocast():
        policy.base_model(input_ids=_some_tokens(trainer, TOKENS), past_key_values=cache, use_cache=True)
    states = (getattr(layer, name, None) for layer in cache.layers for name in ("keys", "values"))
    return sum(state.nbytes for state in states if isinstance(state, Tensor))
