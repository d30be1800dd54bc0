"""Stage 2: the reward model, trained on preferences; `RewardModel` is the one way in which any part gets a score."""

import plumbline  # noqa: F401  # switches telemetry off before the libraries are imported
from reward.model import RewardModel
from reward.training import train_reward

__all__ = ["RewardModel", "train_reward"]
