"""With LoRA under bfloat16 autocast, the frozen linear weights in bfloat16: half the memory, and the same numbers.

Autocast rounds float32 weights at every call; policy and critic each keep the rounded copy of a frozen weight until
their backward pass. Weights that are stored rounded are read as they are. What autocast does not round stays float32:
embeddings, norms, what is added up from layer to layer, and everything that is trained.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
from peft import LoraConfig, PeftModel
from torch import Tensor, nn

from rlhf.ppo.config import PPOConfig
from rlhf.ppo.models import base_of
from rlhf.ppo.sharded import splits_weights


class BFloat16Linear(nn.Linear):
    """A linear layer with weights in bfloat16 for input of any precision.

    Under autocast it gives what autocast makes of float32 weights, bit by bit; without, it rounds its input and gives
    the input's own precision back.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Output `(…, out_features)` for input `(…, in_features)`."""
        if torch.is_autocast_enabled(input.device.type):
            return super().forward(input)
        return super().forward(input.to(self.weight.dtype)).to(input.dtype)


def store_base_in_bf16(args: PPOConfig, trained: Sequence[nn.Module], others: Iterable[nn.Module]) -> None:
    """Round the frozen linear weights below LoRA adapters to bfloat16 in place, where `bf16` and `base_in_bf16` say so.

    Left alone are bases whose weights something else reads, too: FSDP2 and DeepSpeed, vLLM (which gets them with the
    adapter merged) and adapters that compute with the weights themselves, such as DoRA.

    Args:
        args: settings.
        trained: policy and critic, on their device.
        others: models that may stand on the same base in memory.
    """
    if not (args.bf16 and args.base_in_bf16) or args.rollout_engine == "vllm":
        return
    if splits_weights(args) or args.deepspeed_plugin is not None:
        return
    rounded: set[int] = set()
    for model in trained:
        if isinstance(model, PeftModel) and all(map(_reads_output_alone, model.peft_config.values())):
            for tensor in _rounded_by_autocast(model):
                tensor.data = tensor.data.to(torch.bfloat16)
                rounded.add(id(tensor))
            _let_go_of_file(base_of(model))
    for model in (*trained, *others):
        for module in model.modules():
            if type(module) is nn.Linear and id(module.weight) in rounded:
                module.__class__ = BFloat16Linear


def _reads_output_alone(config: object) -> bool:
    """Whether an adapter adds to what a layer gives, and does not look at the layer's weights."""
    return isinstance(config, LoraConfig) and not config.use_dora and not config.target_parameters


@torch.no_grad()
def _rounded_by_autocast(model: PeftModel) -> Iterator[Tensor]:
    """Frozen float32 weights and biases of the linear layers that a forward pass calls, and only under autocast."""
    base = base_of(model)
    linear = [module for module in base.modules() if type(module) is nn.Linear]
    elsewhere = {id(tensor) for module in base.modules() if type(module) is not nn.Linear for tensor in _own(module)}
    calls: dict[nn.Module, set[bool]] = {}

    def note(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        calls.setdefault(module, set()).add(torch.is_autocast_enabled(inputs[0].device.type))

    hooks = [module.register_forward_pre_hook(note) for module in linear]
    ids = torch.tensor([[0, 1]], device=base.device)
    with torch.autocast(base.device.type, torch.bfloat16):
        base(input_ids=ids, use_cache=False)
    for hook in hooks:
        hook.remove()
    for module in linear:
        tensors = _own(module)
        fit = all(t.dtype == torch.float32 and not t.requires_grad and id(t) not in elsewhere for t in tensors)
        if fit and calls.get(module) == {True}:
            yield from tensors


def _let_go_of_file(base: nn.Module) -> None:
    """Copy the frozen weights that stay: where they lie in the mapped weights file, all of it stays in memory."""
    for tensor in base.parameters():
        if not tensor.requires_grad and tensor.dtype == torch.float32:
            tensor.data = tensor.data.clone()


def _own(module: nn.Module) -> list[Tensor]:
    """The parameters of a module itself, without those of the modules in it."""
    return list(module.parameters(recurse=False))
