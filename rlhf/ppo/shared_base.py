"""Policy, reference, critic and reward over one base in memory.

With LoRA each of them is little: an adapter and, for critic and reward, a head. A *view* of a model is a tree of
modules of its own whose parameters are the model's very tensors, so that an adapter put on the view leaves the model
alone. Policy, critic and reward are thus ordinary PEFT models, each with its own adapter always active: nothing is
switched between them, one backward pass reaches policy and critic, and the frozen weights below them exist once.
"""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from peft import LoraConfig, PeftConfig, PeftModel
from safetensors import safe_open
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from plumbline.errors import UserError
from plumbline.identity import adapter_base
from plumbline.model_files import code_is_trusted, is_adapter, weight_files
from rlhf.ppo.models import disable_dropout, freeze, with_adapter

LEAVES_THE_BASE_ALONE = (True, False, "gaussian", "orthogonal")
"""Values of `init_lora_weights` that change nothing of the weights below the adapter."""


def obstacle(policy: PreTrainedModel | PeftModel, config: PeftConfig | None) -> str | None:
    """Why a policy's base cannot be shared; None where it can.

    Args:
        policy: full weights, or a PEFT model.
        config: of the adapter that the policy is about to get; None where it has one.
    """
    configs = [config] if config is not None else list(policy.peft_config.values())
    reasons = [reason for reason in map(_needs_a_base_of_its_own, configs) if reason]
    if reasons:
        return reasons[0]
    if isinstance(policy, PeftModel) and any(weights.requires_grad for weights in view_of(policy).parameters()):
        return "weights of its base are trained beside the adapter"
    return None


def _needs_a_base_of_its_own(config: PeftConfig) -> str | None:
    if not isinstance(config, LoraConfig):
        return f"the adapter is {config.peft_type}, not LoRA"
    if config.bias != "none":
        return f"the adapter's bias={config.bias!r} trains biases of the base"
    if config.init_lora_weights not in LEAVES_THE_BASE_ALONE:
        return f"the adapter's init_lora_weights={config.init_lora_weights!r} changes the base"
    if config.layer_replication:
        return "the adapter's layer_replication changes the base"
    return None


def view_of(model: PreTrainedModel | PeftModel) -> PreTrainedModel:
    """A model without its adapters, as modules of their own over the same tensors."""
    view = _copy_over_tensors_of(model, model)
    return view.unload() if isinstance(view, PeftModel) else view


def _copy_over_tensors_of(owner: nn.Module, model: nn.Module) -> nn.Module:
    """A copy of `model` in which those of its tensors that `owner` has, too, are shared and all others are copied."""
    return copy.deepcopy(model, {id(tensor): tensor for tensor in (*owner.parameters(), *owner.buffers())})


def classifier_over(policy: PreTrainedModel | PeftModel) -> PreTrainedModel:
    """A sequence classifier with one label over the policy's own backbone, its head float32 zeros.

    Raises:
        UserError: transformers has no such classifier with this backbone and a linear `score`.
    """
    view = view_of(policy)
    config = copy.deepcopy(view.config)
    config.num_labels = 1
    with torch.device("meta"):  # the weights that it would begin with are never made
        classifier = AutoModelForSequenceClassification.from_config(config, trust_remote_code=code_is_trusted())
    head = getattr(classifier, "score", None)
    if type(classifier.base_model) is not type(view.base_model) or not isinstance(head, nn.Linear):
        raise UserError(
            f"no critic can stand on the base of {type(view).__name__}: {type(classifier).__name__} has another "
            "backbone or no linear `score`. Set share_base=False and give a value_model."
        )
    setattr(classifier, classifier.base_model_prefix, view.base_model)
    classifier.score = nn.Linear(head.in_features, 1, bias=head.bias is not None, device=view.device)
    for tensor in classifier.score.parameters():
        nn.init.zeros_(tensor)
    return classifier


def classifier_adapter_over(policy: PreTrainedModel | PeftModel, folder: str | Path) -> PeftModel | None:
    """Load the adapter of a classifier (a reward model) over the policy's own base, frozen, dropout off.

    Returns:
        None where the folder is no LoRA adapter, or was trained over other weights than those of the policy's backbone.

    Raises:
        UserError: the adapter's base cannot be found or is not the one it was trained on.
    """
    folder = Path(folder)
    if not is_adapter(folder):
        return None
    config = PeftConfig.from_pretrained(str(folder))
    if _needs_a_base_of_its_own(config) or not holds_backbone_of(view_of(policy), adapter_base(folder)[1]):
        return None
    model = PeftModel.from_pretrained(classifier_over(policy), folder)
    disable_dropout(model)
    return freeze(model)


def move_onto_base(model: PeftModel, policy: PreTrainedModel | PeftModel) -> bool:
    """Let a classifier with an adapter use the policy's own backbone tensors in place of its equal ones.

    Returns:
        Whether it does; False, and nothing changed, where the weights differ.
    """
    own, shared = (dict(view_of(one).base_model.named_parameters()) for one in (model, policy))
    if own.keys() != shared.keys() or not all(_same_values(shared[name], own[name]) for name in own):
        return False
    replacements = {id(tensor): shared[name] for name, tensor in own.items()}
    for module in model.modules():
        for name, tensor in module._parameters.items():
            module._parameters[name] = replacements.get(id(tensor), tensor)
    return True


def stands_on(model: PeftModel, policy: PreTrainedModel | PeftModel) -> bool:
    """Whether a model's backbone is the policy's, in memory."""
    shared = {id(tensor) for tensor in policy.parameters()}
    return all(id(tensor) in shared for tensor in view_of(model).base_model.parameters())


def holds_backbone_of(model: PreTrainedModel, folder: Path) -> bool:
    """Whether a folder's safetensors are the weights of a model's backbone, value by value.

    One tensor is read at a time. Weights in bfloat16 are those of a model in float32 with the same values.
    """
    waiting = dict(model.base_model.named_parameters())
    for path in weight_files(folder):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118, the file is no dictionary
                own = waiting.pop(name.removeprefix(f"{model.base_model_prefix}."), None)
                if own is not None and not _same_values(own, file.get_tensor(name)):
                    return False
    return not waiting


def _same_values(own: Tensor, stored: Tensor) -> bool:
    wider = torch.promote_types(own.dtype, stored.dtype)
    return own.shape == stored.shape and torch.equal(own.detach().to(wider), stored.detach().to(own.device, wider))


def critic_from_adapter(model: PeftModel, policy: PreTrainedModel | PeftModel) -> PeftModel:
    """A trainable copy of a classifier's adapter and head, over the policy's own base as the classifier itself."""
    critic = _copy_over_tensors_of(policy, model)
    critic.set_adapter(critic.active_adapter)  # only what belongs to the adapter gets gradients
    return critic


def fresh_critic(policy: PreTrainedModel | PeftModel, config: PeftConfig) -> PeftModel:
    """A critic with a new adapter and a head of zeros over the policy's own base."""
    config = copy.deepcopy(config)
    config.inference_mode = False
    return with_adapter(classifier_over(policy), config, "SEQ_CLS")
