"""One run of plumbline's PPOTrainer.

python -m benchmarks.ppo.plumbline_side '{"workload": …}' RECORD
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from benchmarks.ppo.workload import Clock, Record, Task, planted_share
from rlhf.ppo import PPOConfig, PPOTrainer
from rlhf.ppo.shared_base import classifier_adapter_over


class PlumblineClock(Clock):
    """Takes phases, tokens and scores from the trainer's log, which has an entry for each rollout."""

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        """A rollout was logged."""
        assert logs is not None
        if "generation_runtime" in logs:
            self.record.generation.append(logs["generation_runtime"])
            self.record.scoring.append(logs["reward_runtime"] + logs["forward_runtime"])
            self.record.tokens.append(logs["response/length"] * args.batch_size)
            self.record.scores.append(logs["objective/scores"])
            self.record.kl.append(logs["objective/kl"])


def main(task: Task, out: str) -> None:
    """Train, and write the record."""
    record = Record()
    arguments = task.arguments()
    trainer = PPOTrainer(
        args=PPOConfig(
            **task.settings(tempfile.mkdtemp(prefix="ppo_benchmark_")),
            bf16=task.bf16,
            reuse_memory=task.reuse_memory,
            micro_batch_tokens=task.micro_batch_tokens,
            dataloader_pin_memory=False,
            **task.ours,
        ),
        **reward_and_critic(task, arguments["model"]),
        callbacks=[PlumblineClock(record, steps_per_rollout=task.epochs)],
        **arguments,
    )
    record.run(trainer, task, out)


def reward_and_critic(task: Task, policy: PreTrainedModel) -> dict[str, Any]:
    """What scores, and what the critic starts from; with LoRA both are adapters on the policy's own base."""
    if task.workload == "learn":
        return {"reward_model": planted_share, "value_model": task.classifier("value")}
    if task.lora:
        return {"reward_model": classifier_adapter_over(policy, Path(task.folder) / "reward_adapter")}
    return {"reward_model": task.classifier("reward"), "value_model": task.classifier("value")}


if __name__ == "__main__":
    main(Task(**json.loads(sys.argv[1])), sys.argv[2])
