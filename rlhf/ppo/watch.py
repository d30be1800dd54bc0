"""A reward that is watched beside the optimised one, and what happens when the two part."""

from __future__ import annotations

import logging
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel

from plumbline.errors import UserError
from rlhf.ppo.config import PPOConfig
from rlhf.ppo.core import KLController, Reduce
from rlhf.ppo.overoptimization import Comparison, OveroptimizationDetector, ScoreSums
from rlhf.ppo.rewards import CombinedRewards, Episodes
from rlhf.ppo.setup import list_rewards
from rlhf.ppo.stops import RunStop

log = logging.getLogger(__name__)


class RewardWatch:
    """Scores the responses of every rollout by a reward that is never optimised, and acts on over-optimisation.

    Args:
        reward: what is watched.
        args: `on_overoptimization` and its companions.
    """

    def __init__(self, reward: CombinedRewards, args: PPOConfig) -> None:
        self.reward, self.args = reward, args
        self.detector = OveroptimizationDetector(args.overoptimization_window, args.overoptimization_z)

    def score(self, episodes: Episodes | None, device: torch.device) -> Tensor:
        """Watched scores `(episodes,)`; none for a process without episodes."""
        return torch.zeros(0, device=device) if episodes is None else self.reward(episodes).to(device)

    def take(
        self, scores: Tensor, watched: Tensor, kl: KLController, stop: RunStop, reduce: Reduce
    ) -> dict[str, float]:
        """Take in a rollout's scores `(batch,)`, as the rewards gave them, and act on what they show.

        Args:
            scores: of the optimised reward.
            watched: of the watched reward, for the same responses.
            kl: its coefficient is raised where the settings say so.
            stop: is asked to end the run where they say that.
            reduce: sums over all processes, so that all of them act alike.

        Returns:
            What is logged of the rollout.
        """
        sums = sums_of(watched, reduce)
        comparison = self.detector.update(sums_of(scores, reduce), sums)
        metrics = {"objective/watched_scores": sums.mean, "objective/watched_scores_std": sums.variance**0.5}
        if comparison is not None:
            seen = self.detector.seen(comparison)
            if seen:
                self._act(comparison, kl, stop)
            metrics |= {
                "watch/proxy_z": comparison.proxy_z,
                "watch/watched_z": comparison.watched_z,
                "watch/overoptimization": float(seen),
            }
        return metrics

    def _act(self, comparison: Comparison, kl: KLController, stop: RunStop) -> None:
        action = self.args.on_overoptimization
        if action == "stop":
            stop.ask("over-optimisation")
            consequence = "The run stops at the end of this rollout."
        elif action == "raise_kl":
            kl.coefficient *= self.args.overoptimization_kl_factor
            consequence = f"kl_coef is now {kl.coefficient:.3g}."
        else:
            consequence = "Raise kl_coef or train for fewer episodes; on_overoptimization can do it: stop, raise_kl."
        if self.args.should_log:
            log.warning("The reward is over-optimised: %s. %s", comparison, consequence)

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds of it, as JSON."""
        return {"detector": self.detector.state()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        self.detector.load_state(state["detector"])


def make_watch(
    args: PPOConfig,
    source: Any,
    tokenizers: Any,
    optimised: Any,
    shared_by: PreTrainedModel | PeftModel | None = None,
) -> RewardWatch | None:
    """The watch over a reward, or several by their mean; None without one.

    Args:
        args: the settings.
        source: anything that the trainer's `reward_model` may be, or None.
        tokenizers: as `reward_processing_classes`.
        optimised: the trainer's `reward_model`.
        shared_by: the policy on whose base in memory it stands, where it is an adapter over the same weights.

    Raises:
        UserError: a reward is none, is optimised too, or the settings want a watch and there is nothing to watch.
    """
    if source is None:
        if args.on_overoptimization != "warn":
            raise UserError(
                f"on_overoptimization is {args.on_overoptimization!r}, but nothing is watched: give PPOTrainer a "
                "watch_reward_model, or leave it out."
            )
        return None
    both = [one for one in _listed(source) if any(one is other or one == other for other in _listed(optimised))]
    if both:
        raise UserError(
            f"watch_reward_model {both[0]!r} is optimised too, as reward_model: watch a reward that is not, such as a "
            "reward model trained on other preferences."
        )
    rewards = list_rewards(args, source, tokenizers, "watch_reward_model", "watch_processing_classes", shared_by)
    return RewardWatch(CombinedRewards(rewards, aggregation="mean", what="watched reward"), args)


def _listed(source: Any) -> list[Any]:
    return list(source) if isinstance(source, list | tuple) else [source]


def sums_of(scores: Tensor, reduce: Reduce) -> ScoreSums:
    """Number, sum and sum of squares of scores `(episodes,)`, over all processes."""
    scores = scores.double()
    parts = torch.stack([scores.new_tensor(len(scores)), scores.sum(), scores.square().sum()])
    return ScoreSums(*reduce(parts).tolist())
