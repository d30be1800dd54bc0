"""Aligning a policy with preferences: PPO against a learned reward (`rlhf.ppo`), DPO on pairs (`rlhf.dpo`)."""

import plumbline  # noqa: F401  # switches telemetry off before the libraries are imported
