"""A script that was written for TRL 1.12 runs with its import changed, and its settings are taken."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from peft import PeftModel
from transformers import AutoModelForCausalLM, HfArgumentParser

from rlhf.ppo import PPOConfig
from tests.rlhf.ppo.helpers import classifier_of, entries
from tests.tiny import tiny_model, tiny_tokenizer

SCRIPT = """
from datasets import Dataset
from peft import LoraConfig
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    HfArgumentParser,
    TrainerCallback,
)
from trl.experimental.ppo import PPOConfig, PPOTrainer

(training_args,) = HfArgumentParser(PPOConfig).parse_args_into_dataclasses(ARGUMENTS)
tokenizer = AutoTokenizer.from_pretrained(training_args.sft_model_path, padding_side="left")
tokenizer.add_special_tokens({"pad_token": "[PAD]"})
value_model = AutoModelForSequenceClassification.from_pretrained(training_args.reward_model_path, num_labels=1)
reward_model = AutoModelForSequenceClassification.from_pretrained(training_args.reward_model_path, num_labels=1)
policy = AutoModelForCausalLM.from_pretrained(training_args.sft_model_path)
peft_config = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM") if USE_PEFT else None
ref_policy = None if USE_PEFT else AutoModelForCausalLM.from_pretrained(training_args.sft_model_path)

dataset = Dataset.from_list([{"text": text} for text in ("Where is it?", "Hello", "I want a refund.", "Thanks!")])


def prepare_dataset(dataset, tokenizer):
    def tokenize(element):
        outputs = tokenizer(element["text"], padding=False)
        return {"input_ids": outputs["input_ids"]}

    return dataset.map(tokenize, batched=True, remove_columns=dataset.column_names, num_proc=None)


class Losses(TrainerCallback):
    seen = []

    def on_log(self, args, state, control, logs=None, **kwargs):
        self.seen += [logs["loss/policy_avg"]] if "loss/policy_avg" in logs else []


trainer = PPOTrainer(
    training_args,
    tokenizer,
    policy,
    ref_policy,
    reward_model,
    prepare_dataset(dataset.select(range(3)), tokenizer),
    value_model,
    DataCollatorWithPadding(tokenizer),
    prepare_dataset(dataset.select([3]), tokenizer),
    (None, None),
    [Losses()],
    peft_config,
)
trainer.train()
trainer.save_model(training_args.output_dir)
trainer.create_model_card(model_name="aligned", dataset_name="my/data", tags=["mine"])  # as push_to_hub calls it
trainer.generate_completions(sampling=True)
samples = trainer.generate_completions()
"""
"""As the example of TRL's documentation, with all arguments by position."""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("models")
    policy = tiny_model(root / "policy")
    classifier_of(policy).save_pretrained(root / "reward")
    tiny_tokenizer().save_pretrained(root / "reward")
    return policy, root / "reward"


@pytest.mark.parametrize("peft", [False, True], ids=["full", "peft"])
def test_a_script_for_trl_runs_with_its_import_changed(
    models: tuple[Path, Path], tmp_path: Path, peft: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = (
        f"--sft_model_path {models[0]} --reward_model_path {models[1]} --output_dir {tmp_path / 'out'} "
        "--learning_rate 1e-3 --per_device_train_batch_size 2 --gradient_accumulation_steps 2 --total_episodes 12 "
        "--num_ppo_epochs 2 --num_mini_batches 2 --response_length 6 --stop_token eos --missing_eos_penalty 1.0 "
        "--local_rollout_forward_batch_size 2 --kl_estimator k3 --whiten_rewards True --save_strategy no "
        "--report_to none --use_cpu True --disable_tqdm True"
    )
    script = re.sub(r"from trl\.experimental\.ppo import", "from rlhf.ppo import", SCRIPT)
    names: dict[str, Any] = {"ARGUMENTS": arguments.split(), "USE_PEFT": peft, "__name__": "script"}
    exec(compile(script, "script.py", "exec"), names)
    trainer = names["trainer"]
    assert entries(trainer, "episode") == [4, 8, 12]
    assert names["Losses"].seen == entries(trainer, "loss/policy_avg")
    assert len(names["samples"]) == 1
    assert names["samples"][0]["prompt"] == "Thanks!"
    assert "Thanks!" in capsys.readouterr().out
    assert trainer.model.critic.model.get_base_model() if peft else trainer.model.critic.model is names["value_model"]
    card = ModelCard.load(tmp_path / "out" / "README.md")
    assert (card.data.tags, card.data.datasets) == (["plumbline", "ppo", "mine"], "my/data")
    assert card.data.library_name == ("peft" if peft else "transformers") and card.data.base_model is None
    assert "# aligned" in card.text and "`objective/scores`" in card.text and str(tmp_path) not in card.content
    policy = AutoModelForCausalLM.from_pretrained(models[0])
    saved = PeftModel.from_pretrained(policy, tmp_path / "out") if peft else policy.from_pretrained(tmp_path / "out")
    assert saved is not None


TRL = {
    "dataset_num_proc": None,
    "num_mini_batches": 1,
    "total_episodes": None,
    "local_rollout_forward_batch_size": 64,
    "num_sample_generations": 10,
    "response_length": 53,
    "stop_token": None,
    "stop_token_id": None,
    "temperature": 0.7,
    "missing_eos_penalty": None,
    "sft_model_path": "EleutherAI/pythia-160m",
    "num_total_batches": None,
    "micro_batch_size": None,
    "local_batch_size": None,
    "batch_size": None,
    "local_mini_batch_size": None,
    "mini_batch_size": None,
    "push_to_hub": False,
    "reward_model_path": "EleutherAI/pythia-160m",
    "model_adapter_name": None,
    "ref_adapter_name": None,
    "num_ppo_epochs": 4,
    "whiten_rewards": False,
    "kl_coef": 0.05,
    "kl_estimator": "k1",
    "cliprange": 0.2,
    "vf_coef": 0.1,
    "cliprange_value": 0.2,
    "gamma": 1.0,
    "lam": 0.95,
    "ds3_gather_for_generation": True,
    "learning_rate": 3e-6,
    "logging_steps": 10,
    "gradient_checkpointing": True,
    "bf16": None,
}
"""The fields that TRL 1.12's PPOConfig added or gave another default, with their defaults."""

OTHER_DEFAULTS = {"num_sample_generations", "stop_token", "logging_steps", "gradient_checkpointing"}
"""Defaults that differ on purpose; docs/ppo-from-trl.md says so."""


def test_every_setting_of_trl_is_taken_and_defaults_to_the_same(tmp_path: Path) -> None:
    PPOConfig(output_dir=str(tmp_path), use_cpu=True, **TRL)
    own = {field.name: field.default for field in fields(PPOConfig) if field.name in TRL}
    assert {name for name, default in own.items() if default != TRL[name]} == OTHER_DEFAULTS
    guide = (Path(__file__).parents[3] / "docs" / "ppo-from-trl.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in guide for name in OTHER_DEFAULTS)


def test_every_setting_can_be_given_on_a_command_line() -> None:
    parser = HfArgumentParser(PPOConfig)
    given = "--output_dir x --use_cpu True --kl_budget 8 --early_stopping_patience 2 --eval_strategy steps"
    (settings,) = parser.parse_args_into_dataclasses(f"{given} --reward_weights 1 0.5 --reuse_memory False".split())
    assert (settings.kl_budget, settings.early_stopping_patience, settings.reuse_memory) == (8.0, 2, False)
    assert settings.reward_weights == [1.0, 0.5]
