"""What a PPO checkpoint holds besides optimizer, scheduler and random states, which `transformers.Trainer` writes.

The policy lies at the checkpoint's root as `from_pretrained` loads it, the critic below `value_model/`, and the small
state (KL coefficient, running moments of the scores, what is watched, what ended the run, which run it is) in
`ppo_state.json`.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peft import PeftModel, set_peft_model_state_dict
from torch import Tensor
from transformers import PreTrainedModel
from transformers.trainer import TRAINER_STATE_NAME

from plumbline.checkpoints import by_step
from plumbline.errors import UserError
from rlhf.ppo.core import KLController, RunningMoments
from rlhf.ppo.models import REFERENCE
from rlhf.ppo.sharded import split_like
from rlhf.ppo.stops import RunStop
from rlhf.ppo.watch import RewardWatch

log = logging.getLogger(__name__)

CRITIC = "value_model"
STATE_FILE = "ppo_state.json"


def last_checkpoint(output: str | Path) -> Path:
    """The newest checkpoint below a folder that was written to its end; one that a kill cut off is passed over.

    Raises:
        UserError: there is none.
    """
    for folder in reversed(by_step(Path(output))):
        if _is_whole(folder):
            return folder
        log.warning("%s was not written to its end and is passed over.", folder)
    raise UserError(
        f"{output} holds no checkpoint to resume from: train from the start; save_steps (in optimizer steps) says how "
        "often one is written."
    )


def _is_whole(folder: Path) -> bool:
    """Whether the file is there that the trainer writes last."""
    try:
        json.loads((folder / TRAINER_STATE_NAME).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return False
    return True


def save_part(model: PreTrainedModel | PeftModel, folder: str | Path, state_dict: dict[str, Tensor] | None) -> None:
    """Write a model (of a PEFT model: the adapters that are trained) as safetensors that `from_pretrained` loads."""
    options: dict[str, Any] = {} if state_dict is None else {"state_dict": state_dict}
    if isinstance(model, PeftModel):
        options["selected_adapters"] = [name for name in model.peft_config if name != REFERENCE]
    model.save_pretrained(folder, **options)


def load_part(model: PreTrainedModel | PeftModel, folder: Path) -> None:
    """Put the weights that `save_part` wrote back into a model, bit by bit."""
    if isinstance(model, PeftModel):
        from peft.utils import load_peft_weights

        for name in model.peft_config:
            if name != REFERENCE:
                weights = load_peft_weights(str(folder if name == "default" else folder / name), device="cpu")
                set_peft_model_state_dict(model, split_like(model, weights), adapter_name=name)
        return
    saved = type(model).from_pretrained(folder, dtype=model.dtype)
    model.load_state_dict(split_like(model, saved.state_dict()))


def part_of_state(state_dict: dict[str, Tensor] | None, prefix: str) -> dict[str, Tensor] | None:
    """The entries of a gathered state dict below a prefix, with the prefix taken off."""
    if state_dict is None:
        return None
    return {name.removeprefix(prefix): tensor for name, tensor in state_dict.items() if name.startswith(prefix)}


def check_resumable(folder: Path) -> None:
    """Refuse a checkpoint without the optimizer, from which a run would silently go on otherwise than it began.

    Raises:
        UserError: it was written with `save_only_model`.
    """
    # `optimizer.pt`; under FSDP2 and DeepSpeed folders.
    if folder.is_dir() and not any((*folder.glob("optimizer*"), *folder.glob("global_step*"))):
        raise UserError(f"{folder} holds no optimizer (save_only_model), so a run cannot go on from it: start anew.")


@dataclass(frozen=True)
class PPOState:
    """The small state of a run; the parts are the trainer's own.

    Attributes:
        schedule: what must be the same for a resumed run's prompts and random numbers to be the same.
        run: which run it is (`rlhf.ppo.fingerprint`).
        kl, moments, watch, stop: what has a state; `watch` is None where nothing is watched.
    """

    schedule: dict[str, int]
    run: dict[str, Any]
    kl: KLController
    moments: RunningMoments
    watch: RewardWatch | None
    stop: RunStop

    def write(self, folder: Path) -> None:
        """Write it into a checkpoint; floats come back as they were."""
        folder.mkdir(parents=True, exist_ok=True)
        state = {
            "schedule": self.schedule,
            "run": self.run,
            "kl_coef": self.kl.coefficient,
            "score_moments": vars(self.moments),
            "stop": self.stop.state(),
        }
        if self.watch is not None:
            state["watch"] = self.watch.state()
        (folder / STATE_FILE).write_text(json.dumps(state, indent=1), encoding="utf-8")

    def read(self, folder: Path) -> None:
        """Restore it from a checkpoint; a watch that the checkpoint's run did not have begins there.

        Raises:
            UserError: the folder is no PPO checkpoint, is not whole, or is one of another run.
        """
        path = folder / STATE_FILE
        if not path.exists():
            raise UserError(f"{folder} is not a checkpoint of PPOTrainer: it has no {STATE_FILE}.")
        if not _is_whole(folder):
            raise UserError(f"{folder} was not written to its end: resume from an earlier checkpoint.")
        state = json.loads(path.read_text(encoding="utf-8"))
        differing = _differing(state["schedule"], self.schedule)
        differing += _differing(state["run"], self.run) if "run" in state else []
        if differing:
            raise UserError(
                f"{folder} was written with {', '.join(differing)}: resume with the same models, data and settings, or "
                "start anew."
            )
        self.kl.coefficient = state["kl_coef"]
        vars(self.moments).update(state["score_moments"])
        if "stop" in state:
            self.stop.load_state(state["stop"])
        if self.watch is not None and "watch" in state:
            self.watch.load_state(state["watch"])


def _differing(written: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What a checkpoint and this run say differently, in words."""
    names = [*written, *(name for name in now if name not in written)]
    return [f"{name} {written.get(name)} (now {now.get(name)})" for name in names if written.get(name) != now.get(name)]


def step_at_boundary(folder: Path, steps_per_rollout: int) -> int:
    """The optimizer step of a checkpoint, which must be the last one of a rollout.

    Raises:
        UserError: its rollout is gone, so the run could not go on exactly.
    """
    step = int(json.loads((folder / TRAINER_STATE_NAME).read_text(encoding="utf-8"))["global_step"])
    if step % steps_per_rollout:
        raise UserError(
            f"{folder} is from step {step}, inside a rollout of {steps_per_rollout} steps: resume from a checkpoint at "
            "the end of a rollout."
        )
    return step
