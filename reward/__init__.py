"""Stage 2: the reward model, trained on preferences; `RewardModel` is the one way in which any part gets a score."""

from reward.model import RewardModel
from reward.training import train_reward

__all__ = ["RewardModel", "train_reward"]
