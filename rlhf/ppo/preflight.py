"""The check before training: the usual causes of failed PPO, measured on the trainer that is about to train.

    findings = deep_check(trainer, pairs=held_out_pairs)

A few responses are sampled and scored, and asked of policy and reference as the first rollout and its first update
would; nothing is trained. What is measured here is judged in `rlhf.ppo.findings`.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor

from plumbline.conversations import Conversation
from plumbline.errors import UserError
from rlhf.ppo import findings
from rlhf.ppo.data import split_rows
from rlhf.ppo.findings import Finding
from rlhf.ppo.footprint import footprint_of
from rlhf.ppo.generation import PADDING
from rlhf.ppo.memory import machine_memory, plan_memory
from rlhf.ppo.models import base_of
from rlhf.ppo.rewards import CombinedRewards, Episodes, FunctionReward, ModelReward, no_reward
from rlhf.ppo.rollout import Rollout
from rlhf.ppo.trainer import PPOTrainer

if TYPE_CHECKING:
    from reward.accuracy import HeldOut

SAMPLES = 32
RESPONSES = 4
"""Responses to each prompt, where there are prompts enough: what the reward tells apart is seen between them."""

SCORED_AGAIN = 8
READ_AS_THE_SAMPLER = 4


def deep_check(
    trainer: PPOTrainer,
    *,
    samples: int = SAMPLES,
    pairs: Dataset | None = None,
    demonstrations: Sequence[Conversation] = (),
    with_reward: bool = True,
    available: int | None = None,
) -> list[Finding]:
    """Find the usual causes of failed PPO before `trainer.train()`; the trainer is left as it was.

    Args:
        trainer: ready to train, on one process.
        samples: responses to sample, to a quarter as many of the training prompts; at least 2.
        pairs: held-out preferences (`prompt`, `chosen`, `rejected` as messages), for the reward's accuracy. A reward
            function gets no other columns with them.
        demonstrations: conversations that the policy was fine-tuned on, which the reward should like.
        with_reward: leave out what concerns the reward, where there is only a stand-in for it.
        available: bytes of memory in all; default: those of the trainer's device.

    Returns:
        The findings, each with a verdict. A reward that is NaN or infinite is one of them.
    """
    own, where = machine_memory(trainer.args.device)
    longest = max(map(len, trainer.prompts.dataset["input_ids"]))
    plan = plan_memory(footprint_of(trainer), trainer.args, longest)
    memory = findings.memory(plan, available or own, where)
    try:
        sample, fault = _sample(trainer, samples)
        found = _policy(trainer, sample)
        if with_reward:
            found += [findings.reward_not_finite(fault)] if fault else _reward(trainer, sample, pairs, demonstrations)
        return [*found, *_step_zero(trainer, sample.rollout), memory]
    except torch.OutOfMemoryError:
        return [findings.out_of_memory(where), memory]


class Sample(NamedTuple):
    """Responses that were sampled: `prompts` × `responses` of them, those to one prompt together.

    Attributes:
        rollout: their tokens.
        scores: `(prompts, responses)`.
        episodes: as text.
    """

    rollout: Rollout
    scores: np.ndarray
    episodes: Episodes


def _sample(trainer: PPOTrainer, samples: int) -> tuple[Sample, str | None]:
    """Responses to the first training prompts, and what is wrong with the reward where its score is no number."""
    prompts = min(max(1, samples // RESPONSES), len(trainer.prompts))
    responses = max(2, samples // prompts)
    rows = [index for index in trainer.schedule.prompt_of(range(prompts)) for _ in range(responses)]
    chosen = trainer.prompt_set(trainer.prompts.dataset.select(rows), "train_dataset")
    fault = None
    try:
        made = trainer.experience.sample_held_out(chosen, range(len(rows)))
    except UserError as error:
        fault, stand_in = str(error), CombinedRewards([FunctionReward(no_reward)])
        made = trainer.experience.sample_held_out(chosen, range(len(rows)), stand_in)
    assert made.rollout is not None and made.episodes is not None, "there are prompts"
    scores = made.scores.double().cpu().numpy().reshape(prompts, responses)
    return Sample(made.rollout, scores, made.episodes), fault


def _policy(trainer: PPOTrainer, sample: Sample) -> list[Finding]:
    tokenizer, stops = trainer.processing_class, sorted(trainer.sampling.stop_tokens)
    end = findings.end_token(
        sample.rollout.ended.tolist(),
        sample.rollout.response_lengths.tolist(),
        trainer.args.response_length,
        can_end=bool(stops),
    )
    embedding = base_of(trainer.model.policy.model).get_input_embeddings().weight
    return [
        end,
        findings.end_of_turn(_ends_turns(trainer, sample.episodes.prompts[0])),
        findings.pad_token(tokenizer.pad_token_id, stops, end.figures["ended"]),
        findings.vocabulary(len(tokenizer), embedding.shape[0], same_as_reward=_reads_the_same_tokens(trainer)),
    ]


def _ends_turns(trainer: PPOTrainer, prompt: str | Conversation) -> bool | None:
    tokenizer, stops, word = trainer.processing_class, trainer.sampling.stop_tokens, "plumbline"
    if isinstance(prompt, str) or not tokenizer.chat_template or not stops:
        return None
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": word}], tokenize=False
    )
    _, written, behind = text.rpartition(word)
    ids = tokenizer(behind, add_special_tokens=False)["input_ids"]
    return any(token in stops for token in ids) if written else None


def _reads_the_same_tokens(trainer: PPOTrainer) -> bool | None:
    own = trainer.processing_class.get_vocab()
    # A classifier without a tokenizer reads the policy's tokens; of other rewards without one nothing is known.
    readers = [reward for reward in trainer.reward.rewards if not isinstance(reward, FunctionReward)]
    same = [
        reward.tokenizer is None or reward.tokenizer.get_vocab() == own
        for reward in readers
        if isinstance(reward, ModelReward) or reward.tokenizer is not None
    ]
    return all(same) if same else None


def _reward(
    trainer: PPOTrainer, sample: Sample, pairs: Dataset | None, demonstrations: Sequence[Conversation]
) -> list[Finding]:
    from reward.accuracy import held_out_accuracy

    scores, episodes = sample.scores, sample.episodes
    scorer = _AsScorer(trainer)
    try:
        agreement: HeldOut | None = held_out_accuracy(scorer, pairs) if pairs is not None and len(pairs) else None
        liked = scorer.score(demonstrations).double().numpy() if len(demonstrations) else None
    except UserError as error:
        return [findings.reward_not_finite(str(error))]
    some = np.linspace(0, scores.size - 1, min(SCORED_AGAIN, scores.size)).astype(int).tolist()
    again = np.array([trainer.reward(_one(episodes, index)).item() for index in some])
    noise = float(np.sqrt(np.mean((again - scores.ravel()[some]) ** 2)))
    groups = np.array_split(np.arange(scores.size), len(scores))
    distinct = sum(len({tuple(episodes.response_ids[index]) for index in group}) for group in groups)
    lengths = sample.rollout.response_lengths.cpu().numpy().reshape(scores.shape)
    found = [findings.reward_accuracy(agreement)] if agreement else []
    found.append(findings.reward_spread(scores, noise, distinct, agreement.reward_std if agreement else None))
    found.append(findings.reward_and_length(scores, lengths))
    return [*found, findings.reward_of_demonstrations(liked, scores)] if liked is not None else found


def _one(episodes: Episodes, index: int) -> Episodes:
    """One of the episodes alone."""
    part = slice(index, index + 1)
    lists = (episodes.prompts, episodes.prompt_ids, episodes.response_ids, episodes.responses)
    prompts, prompt_ids, response_ids, responses = (values[part] for values in lists)
    columns = {name: values[part] for name, values in episodes.columns.items()}
    return Episodes(prompts, prompt_ids, response_ids, responses, columns)  # type: ignore[arg-type]


class _AsScorer:
    """The trainer's reward, as PPO reads it, asked about whole conversations."""

    def __init__(self, trainer: PPOTrainer) -> None:
        self.reward, self.tokenizer = trainer.reward, trainer.processing_class
        self.end = sorted(trainer.sampling.stop_tokens)[:1]

    def score(self, conversations: Sequence[Conversation]) -> Tensor:
        """Scores `(conversations,)` float32 on the CPU; each ends with the assistant's message."""
        prompts = [conversation[:-1] for conversation in conversations]
        responses = [conversation[-1]["content"] for conversation in conversations]
        begun: Any = self.tokenizer.apply_chat_template(prompts, add_generation_prompt=True, return_dict=True)
        said = self.tokenizer(responses, add_special_tokens=False)["input_ids"]
        episodes = Episodes(list(prompts), begun["input_ids"], [ids + self.end for ids in said], responses)
        return self.reward(episodes).cpu()


def _step_zero(trainer: PPOTrainer, rollout: Rollout) -> list[Finding]:
    """The first rollout's log-probabilities against the first update's, the reference's and the sampler's."""
    args, policy = trainer.args, base_of(trainer.model.policy.model)
    # A GPU's kernels may add up in another order from one pass to the next.
    exact = not (args.bf16 or args.fp16) and policy.dtype == torch.float32 and args.device.type == "cpu"
    groups = split_rows(rollout.lengths, rows=args.per_device_train_batch_size, tokens=args.micro_batch_tokens)
    batches = [rollout.micro_batch(group) for group in groups]
    trainer.experience.ask(rollout, batches)
    trainer.model.train()
    ratios = []
    for batch in batches:
        with trainer.accelerator.autocast():
            new = trainer.model(batch.input_ids, batch.response_mask).logprobs.detach()
        ratios.append((new - rollout.packed(rollout.logprobs, batch)).exp().double().cpu().numpy())
    trainer.model.eval()
    some = list(range(min(READ_AS_THE_SAMPLER, len(rollout.sequences))))
    read = _as_the_sampler_reads(trainer, rollout, some)
    trained = rollout.logprobs[some][rollout.mask[some]]
    separate = trainer.reference.separate
    given = args.ref_adapter_name is not None
    given |= separate is not None and not _same_weights(separate.causal_lm, policy)
    kl = rollout.kl("k1").sum(dim=1).double().cpu().numpy()
    return [
        findings.ratio_at_start(np.concatenate(ratios), exact=exact),
        findings.kl_at_start(kl, exact=exact, own_reference=given),
        findings.sampler((read - trained).double().cpu().numpy(), exact=exact),
    ]


def _same_weights(first: torch.nn.Module, second: torch.nn.Module) -> bool:
    own = dict(second.named_parameters())
    return all(name in own and torch.equal(weights, own[name]) for name, weights in first.named_parameters())


@torch.no_grad()
def _as_the_sampler_reads(trainer: PPOTrainer, rollout: Rollout, rows: Sequence[int]) -> Tensor:
    """Log-probability `(tokens,)` of some rows' response tokens, padded on the left, by the model's own forward."""
    model = base_of(trainer.model.policy.model)
    lengths = rollout.lengths
    longest = max(lengths[row] for row in rows)
    ids = torch.full((len(rows), longest), PADDING, device=rollout.sequences.device)
    mask = torch.zeros_like(ids)
    for position, row in enumerate(rows):
        ids[position, longest - lengths[row] :] = rollout.sequences[row, : lengths[row]]
        mask[position, longest - lengths[row] :] = 1
    options: dict[str, Tensor] = {}
    if "position_ids" in inspect.signature(model.forward).parameters:
        options["position_ids"] = (mask.cumsum(dim=1) - 1).clamp(min=0)
    with trainer.accelerator.autocast():
        logits = model(input_ids=ids, attention_mask=mask, use_cache=False, **options).logits
    logprobs = torch.log_softmax(logits[:, :-1].float() / trainer.args.temperature, dim=-1)
    of_tokens = logprobs.gather(2, ids[:, 1:].unsqueeze(2)).squeeze(2)  # (rows, longest - 1)
    return torch.cat([of_tokens[position, -int(rollout.response_lengths[row]) :] for position, row in enumerate(rows)])
