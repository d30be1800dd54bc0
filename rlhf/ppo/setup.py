"""From the arguments of `PPOTrainer` to the parts it works with."""

from __future__ import annotations

import copy
import logging
import math
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import torch
from accelerate import Accelerator
from peft import PeftConfig, PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase, set_seed

from plumbline.errors import UserError
from plumbline.models import context_window, load_policy
from rlhf.ppo.config import PPOConfig
from rlhf.ppo.data import Schedule
from rlhf.ppo.generation import Sampling
from rlhf.ppo.models import (
    ActorCritic,
    Reference,
    TokenLogprobs,
    TokenValues,
    base_of,
    critic_from_policy,
    critic_from_reward,
    disable_dropout,
    with_adapter,
)
from rlhf.ppo.rewards import CombinedRewards, ModelReward, Reward, ScorerReward, make_reward
from rlhf.ppo.sharded import splits_weights
from rlhf.ppo.shared_base import (
    classifier_adapter_over,
    critic_from_adapter,
    fresh_critic,
    move_onto_base,
    obstacle,
    stands_on,
)

log = logging.getLogger(__name__)

ModelSource: TypeAlias = PreTrainedModel | PeftModel | str | Path


def with_batch_sizes(args: PPOConfig) -> PPOConfig:
    """A copy of the settings with the batch sizes filled in, for a loop in which each optimizer step is one item."""
    local = args.per_device_train_batch_size * args.gradient_accumulation_steps
    args = copy.copy(args)
    args.micro_batch_size = args.per_device_train_batch_size * args.world_size
    args.local_batch_size, args.batch_size = local, local * args.world_size
    args.local_mini_batch_size = local // args.num_mini_batches
    args.mini_batch_size = args.batch_size // args.num_mini_batches
    args.gradient_accumulation_steps = 1  # the trainer accumulates over micro-batches by itself, within one step
    args._n_gpu = min(args.n_gpu, 1)  # several GPUs need `accelerate launch`; DataParallel is not for this model
    if args.ddp_find_unused_parameters is None:
        args.ddp_find_unused_parameters = False
    return args


def make_output_folder(args: PPOConfig) -> None:
    """Make `output_dir`, so that a run cannot fail at its first checkpoint.

    Raises:
        UserError: it cannot be made or written to.
    """
    folder = Path(args.output_dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"output_dir {folder} cannot be made ({error.strerror}): set another one.") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"output_dir {folder} cannot be written to: set another one, or change its permissions.")


def compile_any_shape(accelerator: Accelerator) -> None:
    """With `torch_compile`, compile for any shape at once, as no two micro-batches are alike.

    Otherwise torch compiles for the first shape, and again as others come. ACCELERATE_DYNAMO_USE_DYNAMIC has its say.
    """
    compiler = accelerator.state.dynamo_plugin
    if compiler.dynamic is None:
        compiler.dynamic = True


def learn_apart(args: PPOConfig) -> bool:
    """Whether policy and critic go forward and backward one after the other, and each alone keeps activations.

    What exchanges gradients between processes (DDP, FSDP2, DeepSpeed) wants all of them from one backward pass, and a
    compiled model is one program.
    """
    return args.world_size == 1 and args.deepspeed_plugin is None and not args.torch_compile


def make_schedule(args: PPOConfig, prompts: int) -> Schedule:
    """The run's schedule; fills in `max_steps`, `total_episodes` and `num_total_batches`, in whole rollouts."""
    assert args.batch_size is not None
    schedule = Schedule(
        prompts=prompts,
        batch_size=args.batch_size,
        rollouts=1,
        num_ppo_epochs=args.num_ppo_epochs,
        num_mini_batches=args.num_mini_batches,
        seed=args.seed if args.data_seed is None else args.data_seed,
        rank=args.process_index,
        processes=args.world_size,
    )
    if args.max_steps > 0:
        rollouts = math.ceil(args.max_steps / schedule.steps_per_rollout)
    else:
        episodes = args.total_episodes or math.ceil(args.num_train_epochs * prompts)
        rollouts = math.ceil(episodes / args.batch_size)
    schedule = replace(schedule, rollouts=rollouts)
    args.max_steps, args.num_total_batches = schedule.steps, rollouts
    args.total_episodes = rollouts * args.batch_size
    return schedule


def make_sampling(args: PPOConfig, tokenizer: PreTrainedTokenizerBase, policy: PreTrainedModel) -> Sampling:
    """How the policy is sampled.

    Raises:
        UserError: responses are to end at an eos token and there is none, or at a token that is none.
    """
    stop: set[int] = set()
    if args.stop_token_id is not None:
        stop = {args.stop_token_id}
        if not 0 <= args.stop_token_id < vocabulary_of(policy):
            raise UserError(
                f"stop_token_id is {args.stop_token_id}, which is not in the policy's vocabulary of "
                f"{vocabulary_of(policy)}: no response could end."
            )
    elif args.stop_token == "eos":
        named = getattr(policy.generation_config, "eos_token_id", None)
        known = named if isinstance(named, list) else [named]
        stop = {token for token in (tokenizer.eos_token_id, *known) if token is not None}
        if not stop:
            raise UserError(
                "the tokenizer has no eos token, so no response could end: set stop_token_id, or stop_token=None to "
                "sample response_length tokens always."
            )
    return Sampling(args.temperature, args.response_length, frozenset(stop), args.local_rollout_forward_batch_size)


def load_for_training(model: ModelSource, peft_config: PeftConfig | None) -> PreTrainedModel | PeftModel:
    """The policy, which `peft_config` will put a new adapter on where it is given.

    Raises:
        UserError: the policy is a PEFT model already and `peft_config` is given too, or that is none.
    """
    if peft_config is not None and not isinstance(peft_config, PeftConfig):
        raise UserError(f"peft_config is {type(peft_config).__name__}: give a `peft.PeftConfig`, such as LoraConfig.")
    policy = load_policy(model, trainable=True) if isinstance(model, str | Path) else model
    if isinstance(policy, PeftModel) and peft_config is not None:
        raise UserError("the policy is a PEFT model already: leave out peft_config, or merge its adapter first.")
    return policy


def shares_base(args: PPOConfig, policy: PreTrainedModel | PeftModel, peft_config: PeftConfig | None) -> bool:
    """Whether critic and reward are adapters on the policy's own base; the log says why not where they could be."""
    if not args.share_base or not (peft_config is not None or isinstance(policy, PeftModel)):
        return False
    split_by = splits_weights(args)
    reason = f"{split_by} splits the weights of each model by itself" if split_by else obstacle(policy, peft_config)
    if reason:
        log.info("The critic has a base of its own in memory: %s.", reason)
    return reason is None


def make_actor_critic(
    args: PPOConfig,
    policy: PreTrainedModel | PeftModel,
    value_model: ModelSource | None,
    reward: CombinedRewards,
    peft_config: PeftConfig | None,
    *,
    shares_base: bool = False,
) -> ActorCritic:
    """Policy and critic, dropout off, with adapters where `peft_config` asks for them.

    Raises:
        UserError: one of them has nothing to train, or the critic is no classifier or the reward itself.
    """
    if value_model is not None and any(value_model is model_of_reward(one) for one in reward.rewards):
        raise UserError(
            "value_model is the same object as reward_model, so the reward would be trained too: leave it out (None), "
            "the critic is a copy of the reward model then."
        )
    set_seed(args.seed)  # new adapters begin with random numbers
    if isinstance(policy, PeftModel):
        policy.set_adapter(args.model_adapter_name or policy.active_adapter)
    if shares_base:
        config = peft_config or policy.peft_config[policy.active_adapter]
        critic = make_critic_on_base(policy, value_model, reward, config)
    else:
        critic = make_critic(policy, value_model, reward)
    if peft_config is not None:
        policy = with_adapter(policy, peft_config, "CAUSAL_LM")
        critic = critic if isinstance(critic, PeftModel) else with_adapter(critic, peft_config, "SEQ_CLS")
    for name, part in (("policy", policy), ("critic", critic)):
        disable_dropout(part)
        _check_trainable(args, name, part)
    return ActorCritic(TokenLogprobs(policy, args.temperature), TokenValues(critic))


def _check_trainable(args: PPOConfig, name: str, model: PreTrainedModel | PeftModel) -> None:
    """Refuse a model that is frozen as a whole, and warn of weights too coarse for small steps."""
    kinds = {parameter.dtype for parameter in model.parameters() if parameter.requires_grad}
    if not kinds:
        raise UserError(f"all weights of the {name} are frozen, so it would never change: set requires_grad on them.")
    # DeepSpeed trains float32 copies of the weights.
    if kinds & {torch.bfloat16, torch.float16} and args.deepspeed_plugin is None:
        log.warning(
            "The %s's weights are %s: most steps of learning rate %g are smaller than these can hold, and are lost. "
            "Load it with dtype='float32'; with bf16=True it still computes in bfloat16.",
            name,
            " and ".join(sorted(str(kind).removeprefix("torch.") for kind in kinds)),
            args.learning_rate,
        )


def make_critic(
    policy: PreTrainedModel | PeftModel, value_model: ModelSource | None, reward: CombinedRewards
) -> PreTrainedModel | PeftModel:
    """The critic: the given one, else a copy of the first reward model over the policy's tokens, else of the policy."""
    if isinstance(value_model, str | Path):
        from reward import RewardModel

        return critic_from_reward(RewardModel.load(value_model).model)
    if value_model is not None:
        if not hasattr(base_of(value_model), "score"):
            raise UserError(
                f"value_model is {type(value_model).__name__}, which has no head `score`: load it with "
                "AutoModelForSequenceClassification and num_labels=1, or leave it out."
            )
        return value_model
    for candidate in map(model_of_reward, reward.rewards):
        if candidate is not None and _same_vocabulary(policy, candidate):
            return critic_from_reward(candidate)
    log.info("No reward model over the policy's vocabulary: the critic starts from the policy, with a head of zeros.")
    return critic_from_policy(policy)


def make_critic_on_base(
    policy: PreTrainedModel | PeftModel, value_model: ModelSource | None, reward: CombinedRewards, config: PeftConfig
) -> PreTrainedModel | PeftModel:
    """The critic as an adapter and a head on the policy's base: from the first reward that is one, else new.

    A `value_model` that was given is the critic; it stands on the policy's base where it is the folder of an adapter
    over the same weights.
    """
    if isinstance(value_model, str | Path):
        given = classifier_adapter_over(policy, value_model)
        return make_critic(policy, value_model, reward) if given is None else critic_from_adapter(given, policy)
    if value_model is not None:
        return value_model
    for candidate in map(model_of_reward, reward.rewards):
        if isinstance(candidate, PeftModel) and stands_on(candidate, policy):
            log.info(
                "The critic is an adapter on the policy's base. It starts from the reward model's adapter and head."
            )
            return critic_from_adapter(candidate, policy)
    log.info(
        "The critic is a new adapter on the policy's base with a head of zeros, as no reward is an adapter over the "
        "same weights: a head means nothing without the model below it. share_base=False starts the critic from the "
        "whole reward model (where there is one over the policy's tokens), in memory of its own."
    )
    return fresh_critic(policy, config)


def model_of_reward(reward: Reward) -> PreTrainedModel | PeftModel | None:
    """The sequence classifier behind a reward that reads the policy's own tokens, or None."""
    if isinstance(reward, ModelReward):
        return reward.model if reward.tokenizer is None else None
    model = getattr(reward.scorer, "model", None) if isinstance(reward, ScorerReward) else None
    return model if isinstance(model, PreTrainedModel | PeftModel) and hasattr(base_of(model), "score") else None


def vocabulary_of(model: PreTrainedModel | PeftModel) -> int:
    """Tokens that a model can read."""
    return int(base_of(model).get_input_embeddings().weight.shape[0])


def _same_vocabulary(policy: PreTrainedModel | PeftModel, classifier: PreTrainedModel | PeftModel) -> bool:
    return vocabulary_of(policy) == vocabulary_of(classifier)


def make_rewards(
    args: PPOConfig,
    source: Any,
    tokenizers: PreTrainedTokenizerBase | Sequence[PreTrainedTokenizerBase | None] | None,
    shared_by: PreTrainedModel | PeftModel | None = None,
) -> CombinedRewards:
    """One reward or a list of them, as the settings combine them; those that are adapters over the weights of
    `shared_by` on its base.

    Raises:
        UserError: a reward is none, or there are not as many tokenizers or weights as rewards.
    """
    return CombinedRewards(
        list_rewards(args, source, tokenizers, "reward_model", "reward_processing_classes", shared_by),
        args.reward_weights,
        aggregation=args.reward_aggregation,
        std_coef=args.reward_std_coef,
    )


def list_rewards(
    args: PPOConfig,
    source: Any,
    tokenizers: Any,
    argument: str,
    tokenizers_argument: str,
    shared_by: PreTrainedModel | PeftModel | None = None,
) -> list[Reward]:
    """The rewards that an argument of the trainer names: one, or a list of them with a tokenizer each.

    Those that are adapters over the weights of `shared_by` are put on its base in memory.

    Raises:
        UserError: there is no reward, one is none, or there are not as many tokenizers as rewards.
    """
    sources = list(source) if isinstance(source, list | tuple) else [source]
    if not sources:
        raise UserError(f"{argument} is an empty list: give at least one reward.")
    if not isinstance(tokenizers, list | tuple):
        tokenizers = [tokenizers] * len(sources)
    if len(tokenizers) != len(sources):
        raise UserError(
            f"there are {len(tokenizers)} {tokenizers_argument} for {len(sources)} rewards: give one for each."
        )
    at_once: dict[str, Any] = {"rows": args.local_rollout_forward_batch_size, "tokens": args.micro_batch_tokens}
    rewards = [
        make_reward(one, tokenizer, **at_once, shared_by=shared_by, argument=argument)
        for one, tokenizer in zip(sources, tokenizers, strict=True)
    ]
    for model in map(model_of_reward, rewards):
        if shared_by is not None and isinstance(model, PeftModel):
            move_onto_base(model, shared_by)
    return rewards


def make_reference(
    args: PPOConfig,
    actor_critic: ActorCritic,
    ref_model: PreTrainedModel | str | Path | None,
    model: ModelSource,
    *,
    new_adapter: bool,
) -> Reference:
    """The reference policy.

    Raises:
        UserError: it is the very model that is trained.
    """
    if ref_model is not None and ref_model is model and not isinstance(model, str | Path):
        raise UserError(
            "ref_model is the same object as model, so it would be trained too: leave it out (None), a frozen copy is "
            "made then."
        )
    if isinstance(ref_model, str | Path):
        ref_model = load_policy(ref_model)
    return Reference(actor_critic.policy, ref_model, new_adapter=new_adapter, adapter_name=args.ref_adapter_name)


def check_vocabulary(actor_critic: ActorCritic, rewards: Sequence[Reward]) -> None:
    """Refuse a critic or a reward model that cannot read the policy's tokens, or those of its own tokenizer.

    Raises:
        UserError: says which sizes differ and what to do.
    """
    policy = actor_critic.policy.model
    own = vocabulary_of(policy)
    readers = [("value model", actor_critic.critic.model)]
    readers += [
        ("reward model", one.model) for one in rewards if isinstance(one, ModelReward) and one.tokenizer is None
    ]
    for reward in rewards:
        _check_reward_tokenizer(reward)
    for name, reader in readers:
        if not _same_vocabulary(policy, reader):
            raise UserError(
                f"the policy has a vocabulary of {own} and the {name} one of {vocabulary_of(reader)}: give a {name} "
                "over the same tokenizer"
                + ("." if name == "value model" else ", or the reward's own tokenizer as reward_processing_classes.")
            )


def _check_reward_tokenizer(reward: Reward) -> None:
    model, tokenizer = getattr(reward, "model", None), getattr(reward, "tokenizer", None)
    if not isinstance(model, PreTrainedModel | PeftModel) or not isinstance(tokenizer, PreTrainedTokenizerBase):
        return
    # Added tokens (a pad token that no text has) may lie beyond the table; the tokenizer's own may not.
    if tokenizer.vocab_size > vocabulary_of(model):
        raise UserError(
            f"the reward model {reward.name} has a vocabulary of {vocabulary_of(model)} and its tokenizer one of "
            f"{tokenizer.vocab_size}: give the tokenizer that it was trained with."
        )


def window_of(actor_critic: ActorCritic) -> int | None:
    """The longest sequence that both policy and critic read, in tokens."""
    windows = [context_window(base_of(part.model)) for part in (actor_critic.policy, actor_critic.critic)]
    return min((window for window in windows if window is not None), default=None)
