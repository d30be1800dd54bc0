"""The model card that `PPOTrainer` writes beside a policy; the chain's stages have `plumbline.modelcard`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import ModelCard, ModelCardData
from peft import PeftModel

from rlhf.ppo.metrics import EVALUATED
from rlhf.ppo.models import base_of

if TYPE_CHECKING:
    from rlhf.ppo.trainer import PPOTrainer

TAGS = ["plumbline", "ppo"]
SETTINGS = (
    "learning_rate",
    "total_episodes",
    "batch_size",
    "num_ppo_epochs",
    "num_mini_batches",
    "response_length",
    "temperature",
    "kl_coef",
    "seed",
)


def write_card(
    trainer: PPOTrainer,
    name: str,
    dataset: str | list[str] | None,
    tags: str | list[str] | None,
    metadata: dict[str, Any],
) -> None:
    """Write `README.md` into the trainer's `output_dir`.

    Args:
        trainer: its settings and its last log entries are told.
        name: of the model.
        dataset: hub names of the data.
        tags: beside those of plumbline.
        metadata: further fields of the Hub's model card metadata.
    """
    policy = trainer.model.policy.model
    base = base_of(policy).config.name_or_path
    own = {
        "base_model": None if not base or Path(base).exists() else base,  # the Hub takes hub names alone
        "library_name": "peft" if isinstance(policy, PeftModel) else "transformers",
        "pipeline_tag": "text-generation",
        "datasets": dataset,
        "tags": [*TAGS, *([tags] if isinstance(tags, str) else tags or [])],
    }
    data = ModelCardData(**own | metadata)
    settings = {setting: getattr(trainer.args, setting) for setting in SETTINGS}
    text = (
        f"---\n{data.to_yaml()}\n---\n\n# {name}\n\n"
        "A language model aligned by PPO ([arXiv:1707.06347](https://arxiv.org/abs/1707.06347)) with plumbline's "
        f"`PPOTrainer`.\n\n{_table('setting', settings)}"
    )
    if measured := _measured(trainer.state.log_history):
        text += f"\n{_table('measured last', measured)}"
    ModelCard(text).save(Path(trainer.args.output_dir) / "README.md")


def _measured(history: list[dict[str, Any]]) -> dict[str, Any]:
    """The last value of each figure, of the training prompts and of held-out ones."""
    last: dict[str, Any] = {}
    for entry in history:
        last |= {name: value for name, value in entry.items() if name.removeprefix("eval_") in EVALUATED}
    return {name: f"{value:.4g}" for name, value in last.items()}


def _table(heading: str, rows: dict[str, Any]) -> str:
    lines = [f"| {heading} | |", "|---|---|", *(f"| `{name}` | {value} |" for name, value in rows.items())]
    return "\n".join(lines) + "\n"
