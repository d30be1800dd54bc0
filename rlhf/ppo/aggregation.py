"""One score from those of several rewards."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from plumbline.errors import UserError

AGGREGATIONS = ("sum", "mean", "min", "mean_minus_std")


def check_weights(aggregation: str, weights: Sequence[float] | None, rewards: int) -> None:
    """Refuse weights that the aggregation cannot use.

    Raises:
        UserError: not as many weights as rewards, weights for a minimum, or weights that give no mean.
    """
    if weights is None:
        return
    if len(weights) != rewards:
        raise UserError(f"reward_weights has {len(weights)} entries for {rewards} rewards: give one for each.")
    if aggregation == "min":
        raise UserError(
            "reward_weights has no meaning for the smallest of several rewards: leave it out, or set "
            "reward_aggregation to sum, mean or mean_minus_std."
        )
    if aggregation != "sum" and (min(weights) < 0 or sum(weights) <= 0):
        raise UserError(
            f"reward_weights is {list(weights)}: for reward_aggregation {aggregation} no weight may be below 0, and "
            "one must be above 0."
        )


def aggregate(scores: Tensor, weights: Tensor, aggregation: str, std_coef: float) -> Tensor:
    """Scores `(episodes,)` from those of each reward `(rewards, episodes)`.

    `mean`, `min` and `mean_minus_std` are for an ensemble, rewards on one scale (arXiv:2310.02743: mean optimisation,
    worst-case optimisation, and uncertainty-weighted optimisation, there with the variance for the deviation).

    Args:
        scores: `(rewards, episodes)`, float32.
        weights: `(rewards,)`; `sum` multiplies by them, the means divide by their sum, `min` takes no notice.
        aggregation: one of `AGGREGATIONS`.
        std_coef: how many standard deviations `mean_minus_std` takes off; the deviation is that of these rewards
            themselves (divided by their number, not by one less).
    """
    if aggregation == "min":
        return scores.amin(dim=0)
    column = weights.to(scores).unsqueeze(1)
    if aggregation == "sum":
        return (column * scores).sum(dim=0)
    shares = column / column.sum()
    mean = (shares * scores).sum(dim=0)
    if aggregation == "mean":
        return mean
    return mean - std_coef * (shares * (scores - mean).square()).sum(dim=0).sqrt()
