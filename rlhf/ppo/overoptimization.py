"""Has the optimised score gone up while a watched one went down, by more than noise? (arXiv:2210.10760)

The scores of the last `window` rollouts are compared with those of the window, among all that ended before these, in
which the watched score was best. Both differences are measured in their standard errors: with the mean and the sample
variance over the n episodes of each window,

    z = (mean now − mean then) / √(variance now / n now + variance then / n then)

Over-optimisation is seen when z of the optimised score is above the threshold and z of the watched one below minus the
threshold. The earlier window is a maximum over many, and the test is made after every rollout: both call for a
threshold well above the 2 of a single test. Nothing here knows of models.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from functools import reduce
from operator import add
from typing import Any

ROUNDING = 1e-6
"""Relative to the score: a difference below it is rounding in float32, however small the spread of the scores."""


@dataclass(frozen=True)
class ScoreSums:
    """Number, sum and sum of squares of the scores of some episodes."""

    count: float
    total: float
    squares: float

    def __add__(self, other: ScoreSums) -> ScoreSums:
        return ScoreSums(self.count + other.count, self.total + other.total, self.squares + other.squares)

    @property
    def mean(self) -> float:
        """Mean of the scores."""
        return self.total / self.count

    @property
    def variance(self) -> float:
        """Sample variance of the scores; 0 of a single one."""
        return max(0.0, self.squares - self.count * self.mean**2) / max(1.0, self.count - 1)


@dataclass(frozen=True)
class Window:
    """Rollouts `first` to `last`, counted from 1, and both scores of their episodes."""

    first: int
    last: int
    proxy: ScoreSums
    watched: ScoreSums

    def __add__(self, following: Window) -> Window:
        return Window(self.first, following.last, self.proxy + following.proxy, self.watched + following.watched)

    @classmethod
    def of_state(cls, state: dict[str, Any]) -> Window:
        """Back from `dataclasses.asdict`."""
        return cls(state["first"], state["last"], ScoreSums(**state["proxy"]), ScoreSums(**state["watched"]))


@dataclass(frozen=True)
class Comparison:
    """The window with the best watched score, and the last one."""

    best: Window
    now: Window

    @property
    def proxy_z(self) -> float:
        """Standard errors by which the optimised score is higher than in the best window."""
        return _standard_errors(self.best.proxy, self.now.proxy)

    @property
    def watched_z(self) -> float:
        """Standard errors by which the watched score is higher than in the best window; negative where it fell."""
        return _standard_errors(self.best.watched, self.now.watched)

    def beyond(self, threshold: float) -> bool:
        """Whether the optimised score rose and the watched one fell by more than so many standard errors."""
        return self.proxy_z > threshold and self.watched_z < -threshold

    def __str__(self) -> str:
        best, now = self.best, self.now
        return (
            f"from rollouts {best.first} to {best.last} to rollouts {now.first} to {now.last} the optimised score went "
            f"from {best.proxy.mean:.3g} to {now.proxy.mean:.3g} ({self.proxy_z:+.1f} standard errors) and the watched "
            f"one from {best.watched.mean:.3g} to {now.watched.mean:.3g} ({self.watched_z:+.1f})"
        )


def _standard_errors(then: ScoreSums, now: ScoreSums) -> float:
    difference = now.mean - then.mean
    error = math.sqrt(now.variance / now.count + then.variance / then.count)
    error = max(error, ROUNDING * max(abs(now.mean), abs(then.mean)))
    return difference / error if error > 0 else 0.0


class OveroptimizationDetector:
    """Compares the last window of rollouts with the best one before it.

    Args:
        window: rollouts in a window.
        threshold: standard errors that rise and fall must both exceed.
    """

    def __init__(self, window: int, threshold: float) -> None:
        self.window, self.threshold = window, threshold
        self.rollouts = 0
        self.recent: list[Window] = []
        self.best: Window | None = None

    def update(self, proxy: ScoreSums, watched: ScoreSums) -> Comparison | None:
        """Take in the scores of a rollout.

        Returns:
            How the last window compares with the best before it; None before there are two.
        """
        self.rollouts += 1
        self.recent.append(Window(self.rollouts, self.rollouts, proxy, watched))
        if len(self.recent) < 2 * self.window:
            return None
        before, now = (reduce(add, part) for part in (self.recent[: self.window], self.recent[self.window :]))
        del self.recent[0]
        if self.best is None or before.watched.mean > self.best.watched.mean:
            self.best = before
        return Comparison(self.best, now)

    def seen(self, comparison: Comparison | None) -> bool:
        """Whether it shows over-optimisation; the rollouts so far are then forgotten, so that a next one is new."""
        if comparison is None or not comparison.beyond(self.threshold):
            return False
        self.recent, self.best = [], None
        return True

    def state(self) -> dict[str, Any]:
        """All that `load_state` needs, as JSON."""
        best = None if self.best is None else asdict(self.best)
        return {"rollouts": self.rollouts, "recent": [asdict(one) for one in self.recent], "best": best}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        self.rollouts = state["rollouts"]
        self.recent = [Window.of_state(one) for one in state["recent"]][1 - 2 * self.window :]
        self.best = None if state["best"] is None else Window.of_state(state["best"])
