"""Aligning a policy with preferences: PPO against a learned reward (`rlhf.ppo`), DPO on pairs (`rlhf.dpo`)."""
