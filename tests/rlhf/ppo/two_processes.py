"""What tests/rlhf/ppo/test_distributed.py lets `accelerate launch` run: `-m … MODEL_FOLDER OUTPUT_FOLDER`.

The first process writes what it found to `found.json`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from torch import Tensor, nn
from torch.distributed.fsdp._fully_shard import _fsdp_param_group as fsdp

from rlhf.ppo import PPOTrainer, sharded
from tests.rlhf.ppo import test_resume as resuming
from tests.rlhf.ppo import test_watch as watching
from tests.rlhf.ppo.helpers import classifier_of, conversations, entries, trainer_for

KINDS = ("full", "lora")
COMPARED = ("loss", "grad_norm", "objective/scores", "objective/kl", "loss/policy_avg", "loss/value_avg", "val/ratio")
ROLLOUTS = 4
SETTINGS: dict[str, Any] = {
    "total_episodes": 8 * ROLLOUTS,
    "normalize_scores": True,
    "whiten_rewards": True,
    "missing_eos_penalty": 0.3,
    "stop_token_id": 20,
    "response_length": 12,
    "micro_batch_tokens": 100,
    "value_learning_rate": 2e-3,
    "per_device_eval_batch_size": 1,
}
RESUMED: dict[str, Any] = {
    **resuming.SETTINGS,
    "total_episodes": 24,
    "eval_strategy": "steps",
    "eval_steps": 4,
    "load_best_model_at_end": True,
    "metric_for_best_model": "eval_objective/scores",
    "greater_is_better": True,
}
EVALUATED = ("eval_objective/scores", "eval_objective/kl", "eval_response/length")
LOGGED = (*resuming.LOGGED, *EVALUATED)
WATCHED = ("objective/scores", "objective/watched_scores", "watch/proxy_z", "watch/watched_z", "watch/overoptimization")
WATCHED_SETTINGS: dict[str, Any] = {
    "on_overoptimization": "stop",
    "overoptimization_window": 2,
    "save_strategy": "steps",
    "save_steps": 4,
}


def arguments_of(kind: str, folder: Path) -> dict[str, Any]:
    lora = kind == "lora"
    return {
        "reward_model": folder.parent / "reward" if lora else classifier_of(folder),
        "peft_config": LoraConfig(r=4, target_modules="all-linear") if lora else None,
        "eval_dataset": conversations(3),
    }


def run(kind: str, folder: Path, output: Path, **settings: Any) -> PPOTrainer:
    """Rollouts of 8 episodes over all processes, of uneven length, with two mini-batches each."""
    trainer = trainer_for(folder, output, settings={**SETTINGS, **settings}, **arguments_of(kind, folder))
    trainer.train()
    return trainer


def evaluated(trainer: PPOTrainer) -> dict[str, float]:
    """Metrics on three prompts (with two processes: two passes of one, one of the other) and on one."""
    few = trainer.evaluate(conversations(1), metric_key_prefix="few")
    return trainer.evaluate() | few


def run_resumed(
    kind: str, folder: Path, output: Path, *, stop: int | None = None, resume: bool = False, **settings: Any
) -> PPOTrainer:
    callbacks = [resuming.StopAt(stop)] if stop else None
    given = arguments_of(kind, folder)
    trainer = trainer_for(folder, output, settings={**RESUMED, **settings}, callbacks=callbacks, **given)
    trainer.train(resume_from_checkpoint=resume or None)
    return trainer


def local_weights(model: nn.Module) -> dict[str, Tensor]:
    """This process's part of all weights."""
    sharded.split_again(model)
    return {
        name: (parameter.to_local() if isinstance(parameter, sharded.DTensor) else parameter).detach().clone()
        for name, parameter in model.named_parameters()
    }


@contextmanager
def counted_gathers() -> Iterator[list[tuple[int, int]]]:
    """For each time that the policy was made whole: FSDP2's gathers to make it so, and those while it was."""
    made, found = [0], []
    gather, whole = fsdp.foreach_all_gather, sharded.whole_policy

    def counting(*arguments: Any, **options: Any) -> Any:
        made[0] += 1
        return gather(*arguments, **options)

    @contextmanager
    def watched(*arguments: Any) -> Iterator[None]:
        before = made[0]
        with whole(*arguments):
            entered = made[0]
            yield
            found.append((entered - before, made[0] - entered))

    fsdp.foreach_all_gather, sharded.whole_policy = counting, watched
    try:
        yield found
    finally:
        fsdp.foreach_all_gather, sharded.whole_policy = gather, whole


def main(folder: Path, output: Path) -> None:
    two: dict[str, Any] = {"gradient_accumulation_steps": 2}
    found: dict[str, Any] = {}
    for kind in KINDS:
        with counted_gathers() as gathers:
            trainer = run(kind, folder, output / kind, **two)
        found[kind] = {name: entries(trainer, name) for name in COMPARED} | evaluated(trainer)
        found[kind]["gathers"], found[kind]["wrapper"] = gathers, type(trainer.model_wrapped).__name__
        if trainer.reference.separate is not None:
            parameters = trainer.reference.separate.parameters()
            found[kind]["reference_is_split"] = all(isinstance(one, sharded.DTensor) for one in parameters)
        trainer.save_model(str(output / kind / "saved"))

        whole = run_resumed(kind, folder, output / kind / "whole", **two)
        # Step 6 lies inside the second rollout: what was learned since the checkpoint at step 4 is made again.
        run_resumed(kind, folder, output / kind / "killed", stop=6, **two)
        again = run_resumed(kind, folder, output / kind / "killed", resume=True, **two)
        expected, weights = local_weights(whole.model), local_weights(again.model)
        found[kind]["same_weights"] = all(torch.equal(weights[name], expected[name]) for name in expected)
        found[kind]["same_log"] = {name: entries(again, name) == entries(whole, name) for name in LOGGED}
        found[kind]["best"] = str(whole.state.best_model_checkpoint)
        found[kind]["best_evaluated"] = whole.evaluate()

    stopped = watching.run(folder, output / "watch", per_device_train_batch_size=16, **WATCHED_SETTINGS)
    found["watch"] = {name: entries(stopped, name) for name in WATCHED} | {"step": stopped.state.global_step}
    again = watching.run(folder, output / "watch", resume=True, per_device_train_batch_size=16, **WATCHED_SETTINGS)
    found["watch"]["resumed_step"] = again.state.global_step
    if trainer.is_world_process_zero():
        (output / "found.json").write_text(json.dumps(found))
    torch.distributed.barrier()  # whoever leaves first would pull the other down
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
