"""The recipe: one YAML file that says everything about a domain's run.

A stage's section takes the fields of the trainer that it drives by their own names (`learning_rate`,
`num_train_epochs`, `beta`, …), beside the few fields of plumbline that are declared here. The whole recipe is checked
before any work (`plumbline.recipe_check.load_recipe`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from plumbline.recipe_annotate import AnnotateSection, SimulatedAnnotatorSettings, SimulatedSection
from plumbline.recipe_section import Fraction, Section, Share

__all__ = ["AnnotateSection", "Section", "SimulatedAnnotatorSettings", "SimulatedSection"]

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"
"""Of recipes and runs, which are names of folders."""
POLICY_PATTERN = r"^[a-z0-9][a-z0-9_-]*$|^$"
"""Of aligned policies; empty means the method's name."""


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str | dict) else value


class ModelSection(Section):
    """The base model: `model: NAME` is short for `model: {name: NAME}`."""

    name: str = Field(description="A model folder (relative to the recipe) or a Hugging Face hub name.")
    revision: str | None = Field(None, description="Branch, tag or commit on the hub.")
    chat_template: Path | None = Field(
        None,
        description="A Jinja file to use as the chat template, where the model has none or it lacks generation marks.",
    )
    pad_token: str | None = Field(
        None,
        description="A token of the vocabulary to pad with; needed where the tokenizer has none. Not the eos token.",
    )

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value


class PreferenceFile(Section):
    """A file of preferences to import: `- FILE` is short for `- {path: FILE}`."""

    path: Path = Field(description="The file, relative to the recipe.")
    format: str | None = Field(None, description="Its format; detected when not given.")

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return {"path": value} if isinstance(value, str) else value


class DataSection(Section):
    """What the domain brings. Files are `.jsonl`, `.json`, `.parquet`, optionally `.gz`, in TRL's own formats."""

    demonstrations: Annotated[list[str], BeforeValidator(_as_list)] = Field(
        default_factory=list,
        description="Conversations to fine-tune on: rows with `messages`, or `prompt` and `completion`.",
    )
    prompts: Annotated[list[str], BeforeValidator(_as_list)] = Field(
        default_factory=list,
        description="Prompts to sample from: rows with `prompt` (text or messages), or `messages` less the last reply.",
    )
    benchmark: Annotated[list[str], BeforeValidator(_as_list)] = Field(
        default_factory=list, description="Held-out prompts for the comparison alone; no stage trains on them."
    )
    corpus: Annotated[list[str], BeforeValidator(_as_list)] = Field(
        default_factory=list, description="Raw domain text (rows with `text`) for the adaptation stage."
    )
    preferences: Annotated[list[PreferenceFile], BeforeValidator(_as_list)] = Field(
        default_factory=list, description="Preferences that people gave elsewhere, imported into the store."
    )
    validation: Fraction = Field(0.1, description="Share of prompts kept for held-out losses and accuracies.")
    test: Fraction = Field(0.1, description="Share of prompts kept for the comparison.")

    @model_validator(mode="after")
    def _some_train_data(self) -> DataSection:
        if self.validation + self.test >= 1:
            raise ValueError(f"validation {self.validation} + test {self.test} leave nothing to train on; lower one")
        return self


class LoRA(Section):
    """A low-rank adapter, by the names of `peft.LoraConfig`."""

    r: int = Field(16, ge=1, description="Rank of the update matrices.")
    lora_alpha: int = Field(32, ge=1, description="Scale of the update: `lora_alpha / r`.")
    lora_dropout: Share = Field(0.0, description="Dropout on the adapter's input.")
    target_modules: str | list[str] = Field("all-linear", description="Layers to adapt.")

    def to_peft(self, task_type: str) -> Any:
        """The `peft.LoraConfig` for a task (`CAUSAL_LM` or `SEQ_CLS`); a classifier's head is saved too."""
        from peft import LoraConfig

        head = ["score"] if task_type == "SEQ_CLS" else None
        return LoraConfig(task_type=task_type, modules_to_save=head, **self.model_dump())


class TrainerSection(Section):
    """A section whose other keys are fields of the trainer's own configuration class."""

    model_config = ConfigDict(extra="allow", frozen=True)

    @property
    def trainer(self) -> dict[str, Any]:
        """The fields for the trainer's configuration class, by its own names."""
        return dict(self.model_extra or {})


class AdaptSection(TrainerSection):
    """Continued pretraining on `data.corpus` before SFT (TRL's SFTTrainer on raw text; fields of `trl.SFTConfig`)."""

    lora: LoRA | None = Field(None, description="Train a LoRA adapter instead of all weights.")
    load_in_4bit: bool = Field(False, description="QLoRA: load the base in 4 bits (needs bitsandbytes and a GPU).")


class SFTSection(AdaptSection):
    """Supervised fine-tuning on `data.demonstrations` (fields of `trl.SFTConfig`)."""


class SampleSection(Section):
    """Sampling the responses that annotators will rank."""

    responses_per_prompt: int = Field(4, ge=2, le=9, description="Responses to each prompt, from each policy.")
    temperature: float = Field(1.0, gt=0, description="Sampling temperature.")
    top_p: float = Field(
        1.0, gt=0, le=1, description="Nucleus sampling: keep the most probable tokens up to this mass."
    )
    max_new_tokens: int = Field(256, ge=1, description="Longest response, in tokens.")
    batch_tokens: int = Field(16384, ge=64, description="Most tokens (prompts and responses) in one batch.")
    prompts: int | None = Field(None, ge=1, description="Sample for this many prompts only.")
    policies: list[str] = Field(
        default_factory=lambda: ["sft"], description="Who responds: `sft`, `base`, or folders of other policies."
    )

    @model_validator(mode="after")
    def _few_enough_to_rank(self) -> SampleSection:
        responses = self.responses_per_prompt * len(self.policies)
        if responses > 9:
            raise ValueError(
                f"{self.responses_per_prompt} responses from each of {len(self.policies)} policies are {responses}; at "
                "most 9 can be ranked at once: lower responses_per_prompt"
            )
        return self


class RewardSection(TrainerSection):
    """The reward model (fields of `trl.RewardConfig`); also trains the judge and a watched reward model."""

    lora: LoRA | None = Field(None, description="Train a LoRA adapter (its head is saved with it).")
    load_in_4bit: bool = Field(False, description="QLoRA: load the base in 4 bits (needs bitsandbytes and a GPU).")
    use_margin: bool = Field(False, description="Subtract the pair's margin (the rank gap) in the loss.")
    judge_share: Fraction = Field(
        0.5, description="Share of prompts whose preferences train only the judge; the rest train reward and policies."
    )
    watch_share: Fraction = Field(
        0.0,
        description="Share of prompts whose preferences train only a reward model that PPO watches and never optimises "
        "(`on_overoptimization` acts on it); 0: nothing is watched.",
    )

    @model_validator(mode="after")
    def _some_for_the_policies(self) -> RewardSection:
        if self.judge_share + self.watch_share >= 1:
            raise ValueError(
                f"judge_share {self.judge_share} + watch_share {self.watch_share} leave no preferences for the reward "
                "model and the policies; lower one"
            )
        return self


class AlignSection(TrainerSection):
    """One aligned policy (fields of `trl.DPOConfig` or `rlhf.ppo.PPOConfig`)."""

    method: Literal["dpo", "ppo"] = Field(description="How to align.")
    name: str = Field("", pattern=POLICY_PATTERN, description="Its folder; default: the method's name.")
    lora: LoRA | None = Field(None, description="Train a LoRA adapter instead of all weights.")
    load_in_4bit: bool = Field(False, description="QLoRA: load the base in 4 bits (needs bitsandbytes and a GPU).")

    @model_validator(mode="before")
    @classmethod
    def _name_by_method(cls, value: Any) -> Any:
        if isinstance(value, dict) and not value.get("name") and isinstance(value.get("method"), str):
            return {**value, "name": value["method"]}
        return value


class CompareSection(Section):
    """Aligned against baseline on prompts that no stage saw."""

    prompts: int | None = Field(None, ge=1, description="Compare on this many prompts only.")
    responses_per_prompt: int = Field(1, ge=1, description="Responses that each policy gives to each prompt.")
    temperature: float = Field(1.0, gt=0, description="Sampling temperature, the same for every policy.")
    max_new_tokens: int = Field(256, ge=1, description="Longest response, in tokens.")
    batch_tokens: int = Field(16384, ge=64, description="Most tokens in one batch.")
    bootstrap: int = Field(10000, ge=100, description="Resamples of the paired bootstrap over prompts.")
    samples_shown: int = Field(20, ge=0, description="Prompts shown side by side in the report.")


class Recipe(Section):
    """A whole recipe. Build it with `recipe_check.load_recipe`, which checks everything and resolves paths."""

    name: str = Field(pattern=NAME_PATTERN, description="The domain's name; also the default run name.")
    seed: int = Field(17, description="Seed of everything random.")
    trust_remote_code: bool = Field(
        False,
        description="Run Python code that comes with the base model (`auto_map` in its configuration), and with the "
        "models made from it. Such code can do all that you can do on this machine: read it first.",
    )
    model: ModelSection
    data: DataSection
    adapt: AdaptSection | None = None
    sft: SFTSection = Field(default_factory=SFTSection)
    sample: SampleSection = Field(default_factory=SampleSection)
    annotate: AnnotateSection = Field(default_factory=AnnotateSection)
    reward: RewardSection = Field(default_factory=RewardSection)
    align: list[AlignSection] = Field(default_factory=list)
    compare: CompareSection = Field(default_factory=CompareSection)

    @property
    def align_names(self) -> list[str]:
        """The folder names of the aligned policies, in order."""
        return [section.name for section in self.align]

    @property
    def watches(self) -> bool:
        """Whether PPO watches a second reward model, which a stage of its own then trains."""
        return self.reward.watch_share > 0 and any(section.method == "ppo" for section in self.align)
