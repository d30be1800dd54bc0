"""Weights that are split over the processes: FSDP2 and DeepSpeed ZeRO-3.

Each layer is gathered for its own forward and backward pass, so every process must make as many passes as any other.
Sampling does not fit that: processes make responses of different lengths. So the policy is gathered once, before a
rollout is sampled, and split again after. (An engine with weights of its own gathers what it fetches by itself.)
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import Accelerator, DistributedType, PartialState
from accelerate.utils import FullyShardedDataParallelPlugin
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import Trainer

from plumbline.errors import UserError
from rlhf.ppo.config import PPOConfig
from rlhf.ppo.data import split_rows
from rlhf.ppo.rollout import MicroBatch, Rollout


def splits_weights(args: PPOConfig) -> str | None:
    """What splits the weights in this run, by name; None where each process has them whole."""
    if _wants_fsdp(args):
        return "FSDP2"
    return "ZeRO-3" if _zero_stage(args) == 3 else None


def check_sharding(args: PPOConfig) -> None:
    """Refuse what PPO cannot run on; before any model is loaded.

    Raises:
        UserError: says which setting to change.
    """
    if _wants_fsdp(args):
        version = (args.fsdp_plugin_args or {}).get("fsdp_version", os.environ.get("FSDP_VERSION", "1"))
        if int(version) != 2:
            raise UserError("PPOTrainer runs on FSDP2, not FSDP1: set fsdp_version: 2 in accelerate's configuration.")
        if os.environ.get("FSDP_CPU_RAM_EFFICIENT_LOADING", "false").lower() in ("true", "1"):
            raise UserError(
                "with fsdp_cpu_ram_efficient_loading only the first process has the weights, from which reference, "
                "critic and reward are made: set it to false in accelerate's configuration."
            )
    if args.deepspeed:
        raise UserError(
            "PPOTrainer takes DeepSpeed from accelerate launch, as in examples/accelerate/zero3.yaml, not from the "
            "setting deepspeed, which makes DeepSpeed divide each gradient by gradient_accumulation_steps once more."
        )
    if _zero_stage(args) == 3 and not args.ds3_gather_for_generation:
        raise UserError(
            "ds3_gather_for_generation is False: ZeRO-3 would gather each layer for each token, for which all "
            "processes must sample equally long: leave it at True."
        )


def _wants_fsdp(args: PPOConfig) -> bool:
    return args.fsdp_plugin_args is not None or os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"


def _zero_stage(args: PPOConfig) -> int:
    return 0 if args.deepspeed_plugin is None else args.deepspeed_plugin.zero_stage


def prepare_fsdp(accelerator: Accelerator, args: PPOConfig) -> bool:
    """Set accelerate up for FSDP2 where it is asked for.

    Returns:
        Whether it is.
    """
    state = accelerator.state
    if _wants_fsdp(args) and state.distributed_type == DistributedType.MULTI_CPU:
        # accelerate leaves FSDP off there; with gloo it works.
        state.fsdp_plugin = FullyShardedDataParallelPlugin(**(args.fsdp_plugin_args or {}))
        if state.mixed_precision != "no":
            state.fsdp_plugin.set_mixed_precision(state.mixed_precision)
        state.distributed_type = PartialState().distributed_type = DistributedType.FSDP
    if not accelerator.is_fsdp2:
        return False
    precision = state.fsdp_plugin.mixed_precision_policy
    if precision is not None:  # log-probabilities and values must leave the model in float32
        state.fsdp_plugin.mixed_precision_policy = MixedPrecisionPolicy(precision.param_dtype, torch.float32)
    return True


def shard_frozen(accelerator: Accelerator, model: nn.Module | None) -> None:
    """Split a model that is not trained, such as the reference, like the trained one: by transformer block.

    Args:
        accelerator: of the run; without FSDP2 nothing is done.
        model: with `_no_split_modules`, the names of its blocks' classes; changed in place.
    """
    if model is None or not accelerator.is_fsdp2:
        return
    plugin = accelerator.state.fsdp_plugin
    options: dict[str, Any] = {"mp_policy": plugin.mixed_precision_policy or MixedPrecisionPolicy()}
    options |= {"offload_policy": plugin.cpu_offload, "reshard_after_forward": True}
    for module in [module for module in model.modules() if type(module).__name__ in model._no_split_modules]:
        fully_shard(module, **options)
    fully_shard(model, **options)


@contextmanager
def whole_policy(accelerator: Accelerator, model: nn.Module, policy: nn.Module) -> Iterator[None]:
    """Have the policy's weights whole on each process, gathered once.

    All processes must enter and leave; between, none waits for another.

    Args:
        accelerator: of the run.
        model: policy and critic, as accelerate prepared them.
        policy: the part of it that is gathered; other weights stay split, but for those that FSDP2 keeps at the root.
    """
    if isinstance(model, FSDPModule):
        with _unsharded(model, policy, accelerator.state.fsdp_plugin.reshard_after_forward):
            yield
    elif any(hasattr(parameter, "ds_id") for parameter in policy.parameters()):
        from trl.models.utils import add_hooks, remove_hooks

        with importlib.import_module("deepspeed").zero.GatheredParameters(list(policy.parameters())):
            remove_hooks(model)  # they would split a layer again as soon as it has run
            try:
                yield
            finally:
                add_hooks(model)
    else:
        yield


@contextmanager
def _unsharded(root: nn.Module, policy: nn.Module, reshard_after_forward: bool) -> Iterator[None]:
    if not hasattr(root, "fsdp_is_ready"):
        root.fsdp_is_ready = lambda: None
        register_fsdp_forward_method(root, "fsdp_is_ready")
    with torch.no_grad():
        root.fsdp_is_ready()  # FSDP2 takes the first module that runs for the root: this must not be a block
    blocks = [module for module in policy.modules() if isinstance(module, FSDPModule)]
    for module in (root, *blocks):
        module.unshard()
    for block in blocks:
        block.set_reshard_after_forward(False, recurse=False)
    try:
        yield
    finally:
        for block in blocks:
            block.set_reshard_after_forward(reshard_after_forward, recurse=False)
            block.reshard()


def split_again(model: nn.Module) -> None:
    """Let each process keep its part alone of what FSDP2 has gathered and not yet given back."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


@contextmanager
def whole_on_cpu(model: nn.Module, needed: bool) -> Iterator[None]:
    """Have FSDP2's parameters whole, in the CPU's memory and in their own precision, to be written to a file.

    Args:
        model: policy and critic, split by FSDP2; all processes must enter.
        needed: whether this process writes; the others keep nothing.
    """
    split_again(model)
    places = [
        (module, name, parameter)
        for module in model.modules()
        for name, parameter in module._parameters.items()
        if isinstance(parameter, DTensor)
    ]
    whole: dict[Tensor, Tensor] = {}
    for _, _, parameter in places:
        if parameter not in whole:
            gathered = parameter.full_tensor().detach()
            whole[parameter] = nn.Parameter(gathered.cpu(), parameter.requires_grad) if needed else parameter
    for module, name, parameter in places:
        module._parameters[name] = whole[parameter]
    try:
        yield
    finally:
        for module, name, parameter in places:
            module._parameters[name] = parameter


@contextmanager
def saving_whole(trainer: Trainer) -> Iterator[None]:
    """Let `Trainer.save_model` write FSDP2's weights as those of one process; what it does itself may write none."""
    if not trainer.is_fsdp_enabled:
        yield
        return
    trainer.is_fsdp_enabled = False
    try:
        with whole_on_cpu(trainer.model, needed=trainer.args.should_save):
            yield
    finally:
        trainer.is_fsdp_enabled = True


def split_like(model: nn.Module, state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Whole weights as a model takes them: where FSDP2 has split it, this process's part of each."""
    split = next((parameter for parameter in model.parameters() if isinstance(parameter, DTensor)), None)
    if split is None:
        return state_dict
    return {
        name: distribute_tensor(tensor, split.device_mesh, split.placements, src_data_rank=None)
        for name, tensor in state_dict.items()
    }


def evaluation_batches(rollout: Rollout | None, args: PPOConfig) -> list[MicroBatch]:
    """The batches of a process's held-out episodes (None: it has none), and behind them so many without rows that
    every process makes as many forward passes.
    """
    batches = []
    if rollout is not None:
        groups = split_rows(rollout.lengths, rows=args.per_device_eval_batch_size)
        batches = [rollout.micro_batch(group) for group in groups]
    if args.world_size == 1:
        return batches
    nothing = MicroBatch(
        rows=torch.zeros(0, dtype=torch.long, device=args.device),
        input_ids=torch.zeros(1, 2, dtype=torch.long, device=args.device),
        response_mask=torch.zeros(1, 2, dtype=torch.bool, device=args.device),
    )
    return batches + [nothing] * (max_over_processes(len(batches), args.device) - len(batches))


def max_over_processes(number: int, device: torch.device) -> int:
    """The largest of the processes' numbers."""
    tensor = torch.tensor(number, device=device)
    torch.distributed.all_reduce(tensor, torch.distributed.ReduceOp.MAX)
    return int(tensor)
