"""Two processes give the losses of one."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from peft import LoraConfig

from rlhf.ppo import PPOTrainer
from tests.rlhf.ppo.helpers import classifier_of, conversations, entries, reward_adapter, trainer_for
from tests.tiny import tiny_model

REPOSITORY = Path(__file__).parents[3]
COMPARED = ("loss", "grad_norm", "objective/scores", "objective/kl", "loss/policy_avg", "loss/value_avg", "val/ratio")
SETTINGS: dict[str, Any] = {
    "total_episodes": 40,
    "normalize_scores": True,
    "whiten_rewards": True,
    "missing_eos_penalty": 0.3,
    "stop_token_id": 20,
    "response_length": 12,
    "micro_batch_tokens": 100,
}

PROGRAM = """
import json, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from tests.rlhf.ppo.test_distributed import COMPARED, run
from tests.rlhf.ppo.helpers import entries
folder, output, lora = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3] == "lora"
trainer = run(folder, output, lora, gradient_accumulation_steps=2)
found = {name: entries(trainer, name) for name in COMPARED} | trainer.evaluate()
trainer.save_model(str(output / "saved"))
if trainer.is_world_process_zero():
    (output / "found.json").write_text(json.dumps(found))
torch.distributed.destroy_process_group()
"""


def run(folder: Path, output: Path, lora: bool, **settings: Any) -> PPOTrainer:
    """Five rollouts of 8 episodes over all processes, of uneven length, with two mini-batches each."""
    trainer = trainer_for(
        folder,
        output,
        settings={**SETTINGS, **settings},
        reward_model=folder.parent / "reward" if lora else classifier_of(folder),
        peft_config=LoraConfig(r=4, target_modules="all-linear") if lora else None,
        eval_dataset=conversations(3),
    )
    trainer.train()
    return trainer


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora on one base"])
def test_two_processes_give_the_same_curve_as_one(tmp_path: Path, lora: bool) -> None:
    folder, output = tiny_model(tmp_path / "model"), tmp_path / "two"
    output.mkdir()
    reward_adapter(folder, tmp_path / "reward")
    shared = {
        **os.environ,
        "PYTHONPATH": str(REPOSITORY),
        "OMP_NUM_THREADS": "1",
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "ACCELERATE_USE_CPU": "true",
    }
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(folder), str(output), "lora" if lora else "full"],
            env={**shared, "RANK": rank, "LOCAL_RANK": rank},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        for rank in ("0", "1")
    ]
    one = run(folder, tmp_path / "one", lora)
    expected = one.evaluate()
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors.decode()[-3000:]
    found = json.loads((output / "found.json").read_text())
    for name in COMPARED:
        assert found[name] == pytest.approx(entries(one, name), abs=1e-4, rel=1e-3), name
    for name in expected:
        assert found[name] == pytest.approx(expected[name], abs=1e-4, rel=1e-3), name
    assert (output / "saved" / f"{'adapter_' * lora}model.safetensors").exists()
