"""Proximal Policy Optimization with a learned reward and a critic.

`PPOTrainer` takes what TRL's former trainer of this name took, and runs on the loop of `transformers.Trainer`.
"""

from rlhf.ppo.config import PPOConfig
from rlhf.ppo.findings import Finding
from rlhf.ppo.preflight import deep_check
from rlhf.ppo.train import train_ppo
from rlhf.ppo.trainer import PPOTrainer

__all__ = ["Finding", "PPOConfig", "PPOTrainer", "deep_check", "train_ppo"]
