"""What each policy answered to the prompts of the comparison, with everything that is measured on it.

One model is in memory at a time. Sampling goes on from `scratch` when the process was killed; the rest is quick.
Shapes: `(prompts, responses)`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from plumbline.compare.metrics import (
    TokenRow,
    count_words,
    empty_as_worst,
    response_log_probs,
    reward_scores,
    utility_scores,
)
from plumbline.compare.statistics import Floats
from plumbline.console import track
from plumbline.conversations import Conversation
from plumbline.models import identify, load_policy, load_tokenizer
from plumbline.sampling import encode_prompts, sample_responses

if TYPE_CHECKING:
    from plumbline.datafiles import PromptRow
    from plumbline.recipe import CompareSection


@dataclass
class Replies:
    """The responses of one policy.

    Attributes:
        policy: its name.
        weights_hash: of its weights.
        texts: `[prompt][response]`.
        tokens, words: lengths, `(prompts, responses)`; the end-of-turn token is not counted.
        finished: whether the response ended by itself.
        rows: token ids as sampled, in the order of `texts`; the end-of-turn token is in them.
        log_probs: of the responses under the policy itself, `(prompts, responses)`.
        kl: k1 estimate of the KL to the reference, summed over each response; None where the two read other tokens.
        scores: by judge (`reward`, `utility`), `(prompts, responses)`.
    """

    policy: str
    weights_hash: str
    texts: list[list[str]]
    tokens: Floats
    words: Floats
    finished: NDArray[np.bool_]
    rows: list[TokenRow]
    log_probs: Floats
    kl: Floats | None = None
    scores: dict[str, Floats] = field(default_factory=dict)

    @property
    def kl_tokens(self) -> Floats:
        """Tokens over which the KL is summed, `(prompts, responses)`."""
        return np.array([float(len(row.response)) for row in self.rows]).reshape(self.tokens.shape)

    @property
    def empty(self) -> int:
        """How many responses are empty."""
        return sum(not text.strip() for line in self.texts for text in line)


def gather_replies(
    policies: dict[str, Path], prompts: Sequence[PromptRow], section: CompareSection, scratch: Path, *, seed: int
) -> dict[str, Replies]:
    """Sample from every policy with the same settings and the same seed; a model gives the same twice.

    Raises:
        UserError: a policy without chat template or pad token, or prompts that leave no room in its window.
    """
    conversations = [row.prompt for row in prompts]
    return {name: _replies_of(name, path, conversations, section, scratch, seed) for name, path in policies.items()}


def _replies_of(
    name: str, path: Path, prompts: list[Conversation], section: CompareSection, scratch: Path, seed: int
) -> Replies:
    model, tokenizer = load_policy(path), load_tokenizer(path)
    n = section.responses_per_prompt
    sampled = sample_responses(
        model,
        tokenizer,
        prompts,
        n=n,
        temperature=section.temperature,
        max_new_tokens=section.max_new_tokens,
        batch_tokens=section.batch_tokens,
        seed=seed,
        scratch=scratch,
        progress=track,
        what=f"Sampling from {name}",
    )
    encoded = encode_prompts(tokenizer, prompts)
    rows = [TokenRow(encoded[one.prompt_index], one.token_ids) for one in sampled]
    log_probs = response_log_probs(model, rows, temperature=section.temperature, batch_tokens=section.batch_tokens)
    shape = (len(prompts), n)
    texts = [one.text for one in sampled]
    return Replies(
        policy=name,
        weights_hash=identify(path).weights_hash,
        texts=[texts[start : start + n] for start in range(0, len(texts), n)],
        tokens=np.array([float(one.token_count) for one in sampled]).reshape(shape),
        words=np.array([float(count_words(text)) for text in texts]).reshape(shape),
        finished=np.array([one.finished for one in sampled]).reshape(shape),
        rows=rows,
        log_probs=log_probs.reshape(shape),
    )


def measure_kl(replies: dict[str, Replies], policies: dict[str, Path], reference: str, section: CompareSection) -> None:
    """Set `kl` of every policy whose tokenizer and chat template are the reference's.

    It is the log-probability under the policy less that under the reference, summed over the response (k1); the mean
    over sampled responses estimates KL(policy || reference).
    """
    like = identify(policies[reference])
    model = load_policy(policies[reference])
    for name, own in track(list(replies.items()), f"KL to {reference}"):
        found = identify(policies[name])
        if (found.tokenizer_hash, found.chat_template_hash) != (like.tokenizer_hash, like.chat_template_hash):
            continue
        under_reference = (
            own.log_probs
            if name == reference
            else response_log_probs(
                model, own.rows, temperature=section.temperature, batch_tokens=section.batch_tokens
            ).reshape(own.log_probs.shape)
        )
        own.kl = own.log_probs - under_reference


def judge_replies(
    replies: dict[str, Replies],
    prompts: Sequence[PromptRow],
    judge: Path | None,
    utility: Path | None,
    batch_tokens: int,
) -> None:
    """Set `scores` of every policy: `reward` by the judge, `utility` where it is known.

    Raises:
        UserError: the judge is no reward model, or its window is too short for a conversation.
    """
    conversations = [row.prompt for row in prompts]
    if judge is not None:
        from reward import RewardModel

        model = RewardModel.load(judge)
        found = {
            name: reward_scores(model, conversations, own.texts, batch_tokens=batch_tokens)
            for name, own in track(list(replies.items()), "Scoring by the judge")
        }
        for name, scores in empty_as_worst(found).items():
            replies[name].scores["reward"] = scores
    if utility is not None:
        from plumbline.utility import Utility

        known = Utility.load(utility)
        for own in replies.values():
            own.scores["utility"] = utility_scores(known, conversations, own.texts)
