"""What is logged, by TRL's names; every figure is a mean over real tokens or episodes of all processes."""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import Tensor

from rlhf.ppo.core import ClippedLoss, Reduce, masked_mean
from rlhf.ppo.rollout import Rollout

UPDATE_SUMS = ("policy", "value", "clipped", "value_clipped", "approx_kl", "ratio", "squared_ratio", "tokens")

EVALUATED = ("objective/scores", "objective/kl", "objective/rlhf_reward", "response/length", "response/ended")
"""What `evaluation_metrics` gives."""

WATCHED = "objective/watched_scores"


class UpdateSums:
    """Sums over the tokens of all updates from one rollout."""

    def __init__(self, device: torch.device) -> None:
        self.sums = torch.zeros(len(UPDATE_SUMS), dtype=torch.float64, device=device)

    @torch.no_grad()
    def add(self, policy: ClippedLoss, value: ClippedLoss, log_ratio: Tensor) -> None:
        """Take in a micro-batch; all tensors are `(tokens,)`."""
        ratio = log_ratio.exp()
        columns = (
            policy.loss,
            value.loss,
            policy.clipped,
            value.clipped,
            0.5 * log_ratio.square(),
            ratio,
            ratio.square(),
            torch.ones_like(ratio),
        )
        self.sums += torch.stack([column.detach().sum(dtype=torch.float64) for column in columns])

    def metrics(self, reduce: Reduce) -> dict[str, float]:
        """Means over the tokens of all processes."""
        sums = dict(zip(UPDATE_SUMS, reduce(self.sums).tolist(), strict=True))
        mean = {name: total / max(sums["tokens"], 1) for name, total in sums.items()}
        return {
            "policy/approxkl_avg": mean["approx_kl"],
            "policy/clipfrac_avg": mean["clipped"],
            "loss/policy_avg": mean["policy"],
            "loss/value_avg": mean["value"],
            "val/clipfrac_avg": mean["value_clipped"],
            "val/ratio": mean["ratio"],
            "val/ratio_var": max(0.0, mean["squared_ratio"] - mean["ratio"] ** 2),
        }


def rollout_metrics(
    rollout: Rollout, raw_scores: Tensor, scores: Tensor, *, kl_coef: float, kl_estimator: str, reduce: Reduce
) -> dict[str, float]:
    """What a rollout shows.

    Args:
        rollout: complete, advantages included.
        raw_scores: `(batch,)`, as the reward gave them.
        scores: `(batch,)`, normalised and after the end-token rule, as they are learned from.
        kl_coef: of the rollout.
        kl_estimator: as in `PPOConfig`.
        reduce: sums over all processes.
    """
    kl = rollout.kl(kl_estimator).sum(dim=1)
    lengths = rollout.response_lengths.to(kl.dtype)
    ended = rollout.ended.to(kl.dtype)
    raw_scores = raw_scores.to(kl)
    columns = {
        "objective/kl": kl,
        "objective/entropy": -(rollout.logprobs * rollout.mask).sum(dim=1),
        "objective/non_score_reward": -kl_coef * kl,
        "objective/rlhf_reward": scores - kl_coef * kl,
        "objective/scores": raw_scores,
        "response/length": lengths,
        "response/ended": ended,
    }
    table = torch.stack([*columns.values(), raw_scores.square()]).double()
    sums = reduce(torch.cat([table.sum(dim=1), table.new_tensor([len(kl)])]))
    *means, mean_square = (sums[:-1] / sums[-1]).tolist()
    metrics = dict(zip(columns, means, strict=True))
    metrics["objective/scores_std"] = max(0.0, mean_square - metrics["objective/scores"] ** 2) ** 0.5
    metrics["objective/kl_coef"] = kl_coef
    metrics["policy/entropy_avg"] = masked_mean(rollout.entropy, rollout.mask, reduce).item()
    metrics["val/num_eos_tokens"] = metrics["response/ended"] * sums[-1].item()
    metrics["val/explained_variance"] = _explained_variance(rollout, reduce)
    return metrics


def means_of_each(each: Tensor, reduce: Reduce) -> dict[str, float]:
    """Mean of each of several rewards `(rewards, batch)` as it gave it, by its place in the list; of one nothing."""
    if len(each) == 1:
        return {}
    each = each.double()
    *sums, count = reduce(torch.cat([each.sum(dim=1), each.new_tensor([each.shape[1]])])).tolist()
    return {f"objective/scores_{number}": total / count for number, total in enumerate(sums, 1)}


def _explained_variance(rollout: Rollout, reduce: Reduce) -> float:
    """1 − Var(returns − values) / Var(returns): 1 is a perfect critic, 0 one that knows no more than the mean."""
    variances = []
    for values in (rollout.returns - rollout.values, rollout.returns):
        mean = masked_mean(values, rollout.mask, reduce)
        variances.append(masked_mean((values - mean).square(), rollout.mask, reduce).item())
    return 1 - variances[0] / variances[1] if variances[1] > 0 else 0.0


def evaluation_metrics(rollout: Rollout | None, scores: Tensor, *, kl_coef: float, reduce: Reduce) -> dict[str, float]:
    """What responses to held-out prompts show; a process without prompts passes None and joins in the sums."""
    sums = torch.zeros(5, dtype=torch.float64, device=scores.device)
    if rollout is not None:
        columns = (scores, rollout.kl("k1").sum(dim=1), rollout.response_lengths, rollout.ended)
        sums = torch.stack([column.sum(dtype=torch.float64) for column in (*columns, torch.ones_like(scores))])
    *totals, count = reduce(sums).tolist()
    score, kl, length, ended = (total / count for total in totals)
    return dict(zip(EVALUATED, (score, kl, score - kl_coef * kl, length, ended), strict=True))


class MetricMeans:
    """Means of metrics over the rollouts since the last log entry."""

    def __init__(self) -> None:
        self._values: dict[str, list[float]] = defaultdict(list)

    def add(self, metrics: dict[str, float]) -> None:
        """Take in the metrics of one rollout."""
        for name, value in metrics.items():
            self._values[name].append(value)

    def take(self) -> dict[str, float]:
        """The means; forgets what it took in."""
        means = {name: sum(values) / len(values) for name, values in self._values.items()}
        self._values.clear()
        return means
