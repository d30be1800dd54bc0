"""How often the over-optimisation detector fires on noise, and after how many rollouts on a slow fall.

    python benchmarks/overoptimization_noise.py

The watched scores of an episode are normal with deviation 1 around a mean that stays, or falls a little each rollout;
the optimised ones rise by 0.05 each rollout, so that they never hold the detector back.
"""

from __future__ import annotations

import argparse
import statistics

import numpy as np

from rlhf.ppo import PPOConfig
from rlhf.ppo.overoptimization import OveroptimizationDetector, ScoreSums

WINDOW, Z = PPOConfig.overoptimization_window, PPOConfig.overoptimization_z


def first_seen(rng: np.random.Generator, rollouts: int, episodes: int, fall: float) -> int | None:
    """The rollout at which it fires in one simulated run, or None."""
    detector = OveroptimizationDetector(WINDOW, Z)
    for number in range(1, rollouts + 1):
        scores = rng.normal(0.05 * number, 1, episodes), rng.normal(-fall * number, 1, episodes)
        sums = [ScoreSums(float(episodes), float(one.sum()), float(np.square(one).sum())) for one in scores]
        if detector.seen(detector.update(*sums)):
            return number
    return None


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--episodes", type=int, default=64, help="of a rollout")
    episodes = parser.parse_args().episodes
    for rollouts, runs in ((100, 1000), (500, 300)):
        rng = np.random.default_rng(0)
        fired = sum(first_seen(rng, rollouts, episodes, 0.0) is not None for _ in range(runs))
        print(f"noise alone: fired in {fired} of {runs} runs of {rollouts} rollouts")
    for fall in (0.005, 0.01, 0.02, 0.05):
        rng = np.random.default_rng(0)
        seen = [number for _ in range(20) if (number := first_seen(rng, 500, episodes, fall)) is not None]
        when = f"{len(seen)} of 20, median rollout {statistics.median(seen)}"
        print(f"a fall of {fall} deviations a rollout: seen in {when}")


if __name__ == "__main__":
    main()
