"""One run of TRL 1.12's PPOTrainer, in the environment that has it.

python -m benchmarks.ppo.trl_side '{"workload": …}' RECORD

TRL times no phases, so the functions of its module that make them up are timed from outside; what remains of a rollout
is its update, with the estimate of the advantages and the garbage collection.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from trl.experimental.ppo import PPOConfig, PPOTrainer, ppo_trainer

from benchmarks.ppo.workload import PLANTED, Clock, Record, Task


class TRLClock(Clock):
    """Times the phases of a rollout and counts its response tokens."""

    def __init__(self, record: Record) -> None:
        super().__init__(record, steps_per_rollout=1)  # TRL calls on_step_end once a rollout
        self.phases: dict[str, float] = defaultdict(float)
        self.tokens = 0

    def watch(self, reward: nn.Module) -> None:
        """Time the functions of TRL's module; `reward` is the model whose calls tell the responses' lengths."""
        for name in ("batch_generation", "forward", "get_reward", "selective_log_softmax"):
            setattr(ppo_trainer, name, self._timed(getattr(ppo_trainer, name)))
        get_reward = ppo_trainer.get_reward

        def counted(model: nn.Module, ids: Tensor, pad_token_id: int, context_length: int) -> Any:
            result = get_reward(model, ids, pad_token_id, context_length)
            if model is reward:
                self.tokens += int((result[2] - context_length + 1).sum())
            return result

        ppo_trainer.get_reward = counted

    def _timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        phase = "generation" if function.__name__ == "batch_generation" else "scoring"

        def timed(*arguments: Any) -> Any:
            started = time.perf_counter()
            result = function(*arguments)
            if not torch.is_grad_enabled():  # with gradients it is part of the update
                self.phases[phase] += time.perf_counter() - started
            return result

        return timed

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        """A rollout ends."""
        assert logs is not None
        self.record.generation.append(self.phases.pop("generation"))
        self.record.scoring.append(self.phases.pop("scoring"))
        self.record.tokens.append(self.tokens)
        self.record.scores.append(logs["objective/scores"])
        self.record.kl.append(logs["objective/kl"])
        self.tokens = 0


class PlantedReward(nn.Module):
    """The planted reward in the form that TRL asks for: a backbone whose last hidden state a head makes scores of.

    At every position the score is the share of `PLANTED` in the response so far. A response begins where the prompts,
    all of one length, end.
    """

    base_model_prefix = "backbone"

    def __init__(self, prompt_length: int) -> None:
        super().__init__()
        self.prompt_length = prompt_length
        self.backbone, self.score = self.share, nn.Identity()

    def share(self, input_ids: Tensor, attention_mask: Tensor, **options: Any) -> SimpleNamespace:
        """Shares `(batch, seq, 1)` as the last hidden state."""
        response = attention_mask.bool()
        response[:, : self.prompt_length] = False
        planted = response & (input_ids >= PLANTED.start) & (input_ids < PLANTED.stop)
        share = planted.cumsum(dim=1) / response.cumsum(dim=1).clamp(min=1)
        return SimpleNamespace(hidden_states=[share.unsqueeze(-1)])


def main(task: Task, out: str) -> None:
    """Train, and write the record."""
    record = Record()
    clock = TRLClock(record)
    arguments = task.arguments()
    learn = task.workload == "learn"
    reward = PlantedReward(len(arguments["train_dataset"][0]["input_ids"])) if learn else task.classifier("reward")
    clock.watch(reward)
    trainer = PPOTrainer(
        args=PPOConfig(
            **task.settings(tempfile.mkdtemp(prefix="ppo_benchmark_")), bf16=False, gradient_checkpointing=False
        ),
        reward_model=reward,
        value_model=task.classifier("value"),
        callbacks=[clock],
        **arguments,
    )
    record.run(trainer, task, out)


if __name__ == "__main__":
    main(Task(**json.loads(sys.argv[1])), sys.argv[2])
