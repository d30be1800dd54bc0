"""The difference between the log-probabilities of the engine that sampled and those of the trainer.

An engine rounds otherwise, has other kernels or a lower precision, so that it samples from a policy that is not quite
the one that is trained: the update would be off-policy without knowing (Yao et al. 2025, "Your Efficient RL Framework
Secretly Brings You Off-Policy RL Training"). Truncated importance sampling weighs the policy loss of each token by
min(p_trainer / p_engine, C). Modes, names and default of C are those of TRL's GRPOTrainer.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rlhf.ppo.config import PPOConfig
from rlhf.ppo.core import Reduce
from rlhf.ppo.rollout import Rollout


def importance_ratios(logprobs: Tensor, sampling_logprobs: Tensor, mask: Tensor, level: str = "token") -> Tensor:
    """Ratio p_trainer / p_engine of each token `(batch, response)`, or of its response; 1 where it is not known.

    Args:
        logprobs: `(batch, response)`, of the trainer, before any update from this rollout.
        sampling_logprobs: `(batch, response)`, of the engine; NaN where it is not known.
        mask: `(batch, response)`, which tokens are real.
        level: `token`, or `sequence`: the product over a response, at each of its tokens.
    """
    log_ratio = torch.where(mask, logprobs - sampling_logprobs, 0.0).nan_to_num(nan=0.0)
    if level == "sequence":
        log_ratio = log_ratio.sum(dim=1, keepdim=True).expand_as(log_ratio)
    return log_ratio.exp()


def importance_weights(ratios: Tensor, limit: str, clip_max: float | None) -> Tensor:
    """Weights of the policy loss from ratios: with `truncate` at most `clip_max`, with `mask` 0 above it."""
    if clip_max is None:
        return ratios
    return ratios.clamp(max=clip_max) if limit == "truncate" else ratios.masked_fill(ratios > clip_max, 0.0)


def measure_and_correct(rollout: Rollout, args: PPOConfig, reduce: Reduce) -> dict[str, float]:
    """Log the mismatch of a rollout, and set its `importance_weights` where the settings ask for them.

    Args:
        rollout: with the log-probabilities of the trainer.
        args: `importance_sampling_correction` and its companions.
        reduce: sums over all processes.

    Returns:
        Figures over the real tokens of all processes; none where the engine told no log-probabilities.
    """
    given = (rollout.logprobs, rollout.sampling_logprobs, rollout.mask)
    known = rollout.mask & ~rollout.sampling_logprobs.isnan()
    ratio = importance_ratios(*given)
    difference = torch.where(known, rollout.logprobs - rollout.sampling_logprobs, 0.0).abs()
    columns = {"count": known, "difference": difference, "ratio": ratio * known}
    if args.corrects_sampling:
        level, limit = args.importance_sampling_mode.split("_")
        ratios = importance_ratios(*given, level)
        rollout.importance_weights = importance_weights(ratios, limit, args.importance_sampling_clip_max)
        columns["clipped"] = (rollout.importance_weights != ratios) & known
    totals = reduce(torch.stack([column.sum(dtype=torch.float64) for column in columns.values()])).tolist()
    count, *sums = totals
    if not count:
        return {}
    mean = {name: total / count for name, total in zip(list(columns)[1:], sums, strict=True)}
    extremes = torch.stack(
        [difference.max(), ratio.masked_fill(~known, 0.0).max(), -ratio.masked_fill(~known, torch.inf).min()]
    )
    largest, highest, lowest = _largest(extremes)
    metrics = {
        "sampling/sampling_logp_difference/mean": mean["difference"],
        "sampling/sampling_logp_difference/max": largest,
        "sampling/importance_sampling_ratio/mean": mean["ratio"],
        "sampling/importance_sampling_ratio/min": -lowest,
        "sampling/importance_sampling_ratio/max": highest,
    }
    if "clipped" in mean:
        metrics["sampling/importance_sampling_ratio/clipped"] = mean["clipped"]
    return metrics


def _largest(values: Tensor) -> list[float]:
    """The largest of each value over all processes."""
    if torch.distributed.is_initialized():
        torch.distributed.all_reduce(values, torch.distributed.ReduceOp.MAX)
    return values.tolist()
