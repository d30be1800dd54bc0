"""Rollout engines: what samples the responses of a rollout, chosen by `PPOConfig.rollout_engine`.

All of them sample from softmax(logits / temperature), the law that the update differentiates, and say with which
log-probability they drew each token. The trainer computes the log-probabilities anew with its own forward pass;
`rlhf.ppo.mismatch` measures and corrects the difference.
"""

from rlhf.ppo.engines.choice import make_engine
from rlhf.ppo.engines.interface import Engine

__all__ = ["Engine", "make_engine"]
