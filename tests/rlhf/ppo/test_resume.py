"""A run that was killed and resumed ends with the same weights, bit by bit, as one that was not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from transformers import TrainerCallback

from plumbline.checkpoints import CompleteCheckpoints, last_complete_checkpoint
from plumbline.errors import UserError
from rlhf.ppo import PPOTrainer
from rlhf.ppo.fingerprint import digest_of_weights
from tests.rlhf.ppo.helpers import classifier_of, entries, good_share, policy_of, reward_adapter, trainer_for
from tests.tiny import tiny_model

REPOSITORY = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("model"))


class StopAt(TrainerCallback):
    """Ends the training after some optimizer step, as a killed process would."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        control.should_training_stop = control.should_training_stop or state.global_step == self.step


SETTINGS: dict[str, Any] = {
    "total_episodes": 32,
    "save_strategy": "steps",
    "save_steps": 4,
    "normalize_scores": True,
    "kl_target": 0.5,
    "kl_horizon": 50,
    "value_learning_rate": 2e-3,
    "learning_rate": 5e-3,
}
"""Everything that has a state: moments of the scores, KL controller, scheduler, two parameter groups."""


def run(folder: Path, output: Path, *, stop: int | None = None, resume: Any = None, **arguments: Any) -> PPOTrainer:
    given = {"reward_model": classifier_of(folder), "callbacks": [StopAt(stop)] if stop else None, **arguments}
    trainer = trainer_for(folder, output, settings=SETTINGS, **given)
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def same_weights(one: PPOTrainer, other: PPOTrainer) -> bool:
    expected = other.model.state_dict()
    return all(torch.equal(tensor, expected[name]) for name, tensor in one.model.state_dict().items())


LOGGED = ("loss", "grad_norm", "objective/scores", "objective/kl", "objective/kl_coef", "learning_rate", "episode")


@pytest.mark.parametrize("kind", ["full", "lora", "lora with a reward on the same base"])
def test_resumed_weights_and_log_are_bitwise_those_of_an_uninterrupted_run(
    folder: Path, tmp_path: Path, kind: str
) -> None:
    arguments: dict[str, Any] = {}
    if kind != "full":
        arguments["peft_config"] = LoraConfig(r=4, target_modules="all-linear")
    if kind == "lora with a reward on the same base":
        arguments["reward_model"] = reward_adapter(folder, tmp_path / "reward")
    whole = run(folder, tmp_path / "whole", **arguments)
    # Step 10 lies inside the third rollout: what was learned since the checkpoint at step 8 is lost, and made again.
    run(folder, tmp_path / "killed", stop=10, **arguments)
    resumed = run(folder, tmp_path / "killed", resume=True, **arguments)
    assert resumed.state.global_step == whole.state.global_step == 16
    assert same_weights(resumed, whole)
    for name in LOGGED:
        assert entries(resumed, name) == entries(whole, name)
    assert len(set(entries(whole, "objective/kl_coef"))) > 1, "the KL controller must have moved"


def test_a_checkpoint_holds_policy_critic_and_tokenizer(folder: Path, tmp_path: Path) -> None:
    run(folder, tmp_path)
    checkpoint = tmp_path / "checkpoint-16"
    assert load_file(checkpoint / "model.safetensors").keys() >= {"model.norm.weight"}
    assert "score.weight" in load_file(checkpoint / "value_model" / "model.safetensors")
    assert (checkpoint / "tokenizer_config.json").exists()
    assert json.loads((checkpoint / "ppo_state.json").read_text())["schedule"]["batch_size"] == 8


def test_a_checkpoint_of_another_run_is_refused(folder: Path, tmp_path: Path) -> None:
    run(folder, tmp_path)
    other = trainer_for(folder, tmp_path, settings={**SETTINGS, "seed": 6, "num_ppo_epochs": 3})
    with pytest.raises(UserError, match=r"num_ppo_epochs 2 \(now 3\), seed 5 \(now 6\)"):
        other.train(resume_from_checkpoint=True)
    with pytest.raises(UserError, match="is not a checkpoint of PPOTrainer"):
        other.train(resume_from_checkpoint=str(folder))
    state = tmp_path / "checkpoint-16" / "trainer_state.json"
    state.write_text(json.dumps({**json.loads(state.read_text()), "global_step": 15}))
    with pytest.raises(UserError, match="inside a rollout"):
        run(folder, tmp_path, resume=state.parent)


@pytest.mark.parametrize(
    ("what", "arguments"),
    [
        ("training prompts", {"train_dataset": Dataset.from_list([{"prompt": f"Hello {i}"} for i in range(5)])}),
        ("reward 1", {"reward_model": good_share}),
        ("reference", {"model": "another"}),
        ("temperature", {"settings": {"temperature": 0.9}}),
    ],
)
def test_a_checkpoint_of_other_models_or_data_is_refused(
    folder: Path, tmp_path: Path, what: str, arguments: dict[str, Any]
) -> None:
    """With as many prompts, and the same batch and seed."""
    settings = {**SETTINGS, "total_episodes": 8}
    trainer_for(folder, tmp_path, settings=settings, reward_model=classifier_of(folder)).train()
    given = {"reward_model": classifier_of(folder), **arguments}
    given["settings"] = {**settings, **arguments.get("settings", {})}
    if "model" in given:
        given["model"] = policy_of(tiny_model(tmp_path / "other", seed=1))
    message = rf"checkpoint-4 was written with {what} [^,]* \(now [^,]*\): resume with the same"
    with pytest.raises(UserError, match=message):
        trainer_for(folder, tmp_path, **given).train(resume_from_checkpoint=True)


def test_models_are_told_apart_by_weights_and_adapters(folder: Path, tmp_path: Path) -> None:
    model = get_peft_model(policy_of(folder), LoraConfig(r=2, target_modules=["q_proj"]))
    whole, base = digest_of_weights(model), digest_of_weights(model, adapters=False)
    assert whole != base
    with torch.no_grad():
        next(tensor for name, tensor in model.named_parameters() if "lora_B" in name).add_(1)
    assert digest_of_weights(model) != whole and digest_of_weights(model, adapters=False) == base
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(1.01)
    assert digest_of_weights(model, adapters=False) != base


def test_settings_that_may_change_and_states_of_before_are_taken(folder: Path, tmp_path: Path) -> None:
    trainer_for(folder, tmp_path, settings={**SETTINGS, "total_episodes": 8}).train()
    path = tmp_path / "checkpoint-4" / "ppo_state.json"
    state = json.loads(path.read_text())
    del state["run"]
    path.write_text(json.dumps(state))
    later = trainer_for(folder, tmp_path, settings={**SETTINGS, "learning_rate": 1e-4, "total_episodes": 16})
    later.train(resume_from_checkpoint=True)
    assert later.state.global_step == 8


def test_a_checkpoint_that_a_kill_cut_off_is_passed_over(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = run(folder, tmp_path / "whole")
    killed = tmp_path / "killed"
    run(folder, killed, stop=12)
    (killed / "checkpoint-12" / "trainer_state.json").unlink()  # what is written last
    with pytest.raises(UserError, match="checkpoint-12 was not written to its end"):
        run(folder, killed, resume=killed / "checkpoint-12")
    assert same_weights(run(folder, killed, resume=True), whole)
    assert "checkpoint-12 was not written to its end and is passed over" in caplog.text


def test_a_checkpoint_without_the_optimizer_is_refused(folder: Path, tmp_path: Path) -> None:
    settings = {**SETTINGS, "save_only_model": True}
    trainer_for(folder, tmp_path, settings=settings).train()
    with pytest.raises(UserError, match=r"checkpoint-16 holds no optimizer \(save_only_model\)"):
        trainer_for(folder, tmp_path, settings=settings).train(resume_from_checkpoint=True)


def test_resuming_where_there_is_no_checkpoint_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no checkpoint to resume from: train from the start"):
        run(folder, tmp_path, resume=True)


PROGRAM = """
import sys
from pathlib import Path
from tests.rlhf.ppo.test_resume import marked_run
marked_run(Path(sys.argv[1]), Path(sys.argv[2]))
"""


def marked_run(folder: Path, output: Path) -> PPOTrainer:
    """Train six rollouts on one thread with a marked checkpoint after each, or go on from the last marked one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    settings = {**SETTINGS, "total_episodes": 48}
    trainer = trainer_for(folder, output, settings=settings, reward_model=classifier_of(folder))
    trainer.add_callback(CompleteCheckpoints())
    checkpoint = last_complete_checkpoint(output)
    trainer.train(resume_from_checkpoint=checkpoint)
    torch.set_num_threads(threads)
    return trainer


def test_a_run_killed_with_sigkill_ends_with_the_same_weights(folder: Path, tmp_path: Path) -> None:
    killed = tmp_path / "killed"
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    whole = marked_run(folder, tmp_path / "whole")
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, str(folder), str(killed)], env=environment)
    while process.poll() is None and not (killed / "checkpoint-8" / "complete").exists():
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it must not have ended by itself"
    assert not (killed / "checkpoint-24" / "complete").exists()
    assert same_weights(marked_run(folder, killed), whole)
