"""Policy, critic and reference as modules that give log-probabilities and values of tokens.

A batch of sequences is `(batch, seq)`: prompt and response back to back, right-padded. As the models are causal, right
padding changes nothing of the real tokens, so no attention mask is needed. `response_mask` `(batch, seq)` marks the
responses' tokens; what is asked of them comes back packed, `(tokens,)`, row after row. The logits of a token exist only
while its chunk is worked on.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from peft import PeftConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from plumbline.errors import UserError
from plumbline.model_files import code_is_trusted

LOGITS_AT_ONCE = 2**27
"""Most logits (tokens × vocabulary) that exist at once: 0.5 GB in float32."""

REFERENCE = "reference"
"""Name of the frozen copy of an adapter that the policy started from."""


class TokenLogprobs(nn.Module):
    """A causal language model, asked for the log-probabilities of given tokens.

    Args:
        model: full weights, or a PEFT model.
        temperature: divides the logits, as in sampling.
    """

    def __init__(self, model: PreTrainedModel | PeftModel, temperature: float) -> None:
        super().__init__()
        self.model, self.temperature = model, temperature
        self._no_split_modules = blocks_of(model)
        self._check_logits()

    @property
    def causal_lm(self) -> PreTrainedModel:
        """The model itself; adapters, where there are any, are layers of it."""
        return base_of(self.model)

    def forward(self, input_ids: Tensor, response_mask: Tensor, with_entropy: bool = False) -> tuple[Tensor, Tensor]:
        """Log-probability and, where wanted, entropy in nats of each response token, both `(tokens,)`."""
        hidden = self.causal_lm.base_model(input_ids=input_ids, use_cache=False).last_hidden_state
        hidden = hidden[:, :-1][response_mask[:, 1:]]
        targets = input_ids[:, 1:][response_mask[:, 1:]]
        size = max(1, LOGITS_AT_ONCE // self.causal_lm.get_output_embeddings().weight.shape[0])
        chunks = list(zip(hidden.split(size), targets.split(size), strict=True))
        # One chunk keeps its logits for the backward pass; several would add up, so each makes them again.
        again = len(chunks) > 1 and torch.is_grad_enabled()
        parts = [
            checkpoint(self._of_tokens, *chunk, with_entropy, use_reentrant=False)
            if again
            else self._of_tokens(*chunk, with_entropy)
            for chunk in chunks
        ]
        logprobs, entropies = zip(*parts, strict=True)
        return torch.cat(logprobs), torch.cat(entropies)

    def _of_tokens(self, hidden: Tensor, targets: Tensor, with_entropy: bool) -> tuple[Tensor, Tensor]:
        logits = self._logits(hidden).float() / self.temperature
        normalizer = logits.logsumexp(dim=-1)
        logprobs = logits.gather(1, targets.unsqueeze(1)).squeeze(1) - normalizer
        if not with_entropy:
            return logprobs, logits.new_empty(0)
        entropy = normalizer - (torch.softmax(logits, dim=-1) * logits).sum(dim=-1)
        return logprobs, entropy

    def _logits(self, hidden: Tensor) -> Tensor:
        """Logits of hidden states, with what some families do to them after the head."""
        model = self.causal_lm
        config = model.config.get_text_config()
        logits = model.get_output_embeddings()(hidden)
        if scale := getattr(config, "logit_scale", None):  # Cohere
            logits = logits * scale
        if divisor := getattr(config, "logits_scaling", None):  # Granite
            logits = logits / divisor
        if cap := getattr(config, "final_logit_softcapping", None):  # Gemma
            logits = torch.tanh(logits / cap) * cap
        return logits

    @torch.no_grad()
    def _check_logits(self) -> None:
        """Make sure that head and backbone, called one after the other, give the model's own logits.

        Raises:
            UserError: they do not; a wrong gradient would follow.
        """
        model = self.causal_lm
        ids = torch.tensor([[0, 1]], device=model.get_input_embeddings().weight.device)
        with evaluating(model):
            own = model(input_ids=ids, use_cache=False).logits
            ours = self._logits(model.base_model(input_ids=ids, use_cache=False).last_hidden_state)
        if not torch.allclose(own.float(), ours.float(), atol=1e-2, rtol=1e-2):
            raise UserError(
                f"{type(model).__name__} changes its logits in a way that PPO does not know: please report this model."
            )


class TokenValues(nn.Module):
    """The critic: a sequence classifier with one label, read at every position."""

    def __init__(self, model: PreTrainedModel | PeftModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor) -> Tensor:
        """Value `(batch, seq)` of the state after each token, in float32."""
        return scores_at_tokens(self.model, input_ids)


class ActorCritic(nn.Module):
    """Policy and critic in one module, so that one optimizer, one checkpoint and one DDP wrapper see both."""

    def __init__(self, policy: TokenLogprobs, critic: TokenValues) -> None:
        super().__init__()
        self.policy, self.critic = policy, critic
        self._no_split_modules = sorted({*blocks_of(policy.model), *blocks_of(critic.model)})  # for accelerate

    class Output(NamedTuple):
        """Of the response tokens `(tokens,)`: log-probability, entropy; and the value `(batch, seq)` of each state."""

        logprobs: Tensor
        entropy: Tensor
        values: Tensor

    def forward(
        self,
        input_ids: Tensor,
        response_mask: Tensor,
        with_entropy: bool = False,
        with_logprobs: bool = True,
        with_values: bool = True,
    ) -> Output:
        """Ask policy and critic, or one of them alone, about a batch of sequences."""
        logprobs = entropy = values = torch.empty(0, device=input_ids.device)
        if with_logprobs:
            logprobs, entropy = self.policy(input_ids, response_mask, with_entropy)
        if with_values:
            values = self.critic(input_ids).clone()  # FSDP2 wants no view
        return self.Output(logprobs, entropy, values)

    def activation_checkpointing_enable(self, **options: Any) -> None:
        """Recompute activations in the backward pass, in both models (`TrainingArguments.gradient_checkpointing`)."""
        for model in (self.policy.model, self.critic.model):
            base_of(model).activation_checkpointing_enable(**options)
            base_of(model).enable_input_require_grads()


def base_of(model: PreTrainedModel | PeftModel) -> PreTrainedModel:
    """The transformers model inside a PEFT model, or the model itself."""
    return model.get_base_model() if isinstance(model, PeftModel) else model


def blocks_of(model: PreTrainedModel | PeftModel) -> list[str]:
    """Names of the classes of a model's transformer blocks, which are each split over processes as a whole."""
    return sorted(base_of(model)._no_split_modules or ())


def scores_at_tokens(classifier: nn.Module, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
    """Score `(batch, seq)` that a sequence classifier with one label gives at every position, in float32."""
    model = base_of(classifier)
    backbone = getattr(model, model.base_model_prefix)
    hidden = backbone(input_ids=input_ids, attention_mask=attention_mask, use_cache=False).last_hidden_state
    head = model.score
    dtype = next((parameter.dtype for parameter in head.parameters()), hidden.dtype)
    with torch.autocast(hidden.device.type, enabled=False):
        return head(hidden.to(dtype)).squeeze(-1).float()


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode for a while."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def disable_dropout(model: nn.Module) -> None:
    """Turn every dropout off: with it, the log-probability of the same token would differ from one pass to the next."""
    for module in model.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
        for name, value in vars(module).items():
            if "dropout" in name and isinstance(value, float):
                setattr(module, name, 0.0)


def freeze(model: nn.Module) -> nn.Module:
    """Evaluation mode, no gradients."""
    return model.eval().requires_grad_(False)


def with_adapter(model: PreTrainedModel, config: PeftConfig, task_type: str) -> PeftModel:
    """Put a new adapter on a model; a classifier's head is trained beside it."""
    config = copy.deepcopy(config)
    config.task_type = task_type
    if task_type == "SEQ_CLS":
        config.modules_to_save = ["score"]
        config.target_modules = _without_head(config.target_modules, model)
    return get_peft_model(model, config)


def _without_head(target_modules: Any, model: PreTrainedModel) -> Any:
    if target_modules != "all-linear":
        return target_modules
    backbone = getattr(model, model.base_model_prefix)
    return sorted({name.split(".")[-1] for name, module in backbone.named_modules() if isinstance(module, nn.Linear)})


class Reference:
    """The policy that the KL is measured against: a model of its own, or adapters of the policy.

    Args:
        policy: the policy being trained.
        model: a separate reference model; None takes it from the policy: with a new adapter, the policy without it;
            with an adapter that it came with, a frozen copy of that; with full weights, a frozen copy of the model.
        new_adapter: whether the policy's adapter was put on it for this training.
        adapter_name: an adapter of the policy that is the reference.
    """

    def __init__(
        self,
        policy: TokenLogprobs,
        model: PreTrainedModel | None,
        *,
        new_adapter: bool = False,
        adapter_name: str | None = None,
    ) -> None:
        self.separate: TokenLogprobs | None = None
        self.adapter_name = adapter_name
        self.trained_adapter: str = policy.model.active_adapter if isinstance(policy.model, PeftModel) else ""
        if model is None and not isinstance(policy.model, PeftModel):
            model = copy.deepcopy(policy.model)
        if model is not None:
            disable_dropout(model)
            self.separate = TokenLogprobs(freeze(model), policy.temperature)
        elif not new_adapter and adapter_name is None:
            self.adapter_name = REFERENCE
            _copy_adapter(policy.model, self.trained_adapter, REFERENCE)

    def logprobs(self, actor_critic: ActorCritic, input_ids: Tensor, response_mask: Tensor) -> Tensor:
        """Log-probability `(tokens,)` that the reference gives to each response token."""
        if self.separate is not None:
            return self.separate(input_ids, response_mask)[0]
        with self._adapters_of_reference(actor_critic.policy.model):
            return actor_critic(input_ids, response_mask, with_values=False).logprobs

    @contextmanager
    def _adapters_of_reference(self, model: PeftModel) -> Iterator[None]:
        if self.adapter_name is None:
            with model.disable_adapter():
                yield
            return
        model.set_adapter(self.adapter_name)
        try:
            yield
        finally:
            model.set_adapter(self.trained_adapter)


def _copy_adapter(model: PeftModel, source: str, target: str) -> None:
    from peft import get_peft_model_state_dict, set_peft_model_state_dict

    model.add_adapter(target, copy.deepcopy(model.peft_config[source]))
    set_peft_model_state_dict(model, get_peft_model_state_dict(model, adapter_name=source), adapter_name=target)
    model.set_adapter(source)


def critic_from_reward(reward: PreTrainedModel | PeftModel) -> PreTrainedModel:
    """A trainable copy of a reward model: its backbone, and its head as the value head."""
    critic = copy.deepcopy(reward)
    if isinstance(critic, PeftModel):
        critic = critic.merge_and_unload()
    return critic.requires_grad_(True)


def critic_from_policy(policy: PreTrainedModel | PeftModel) -> PreTrainedModel:
    """A critic with the policy's backbone and a head of zeros, for a reward that is no model over the same tokens."""
    source = base_of(policy)
    config = copy.deepcopy(source.config)
    config.num_labels = 1
    critic = AutoModelForSequenceClassification.from_config(config, trust_remote_code=code_is_trusted())
    critic = critic.to(source.dtype)
    state = copy.deepcopy(policy).merge_and_unload() if isinstance(policy, PeftModel) else source
    getattr(critic, critic.base_model_prefix).load_state_dict(state.base_model.state_dict())
    nn.init.zeros_(critic.score.weight)
    return critic.to(source.device)
