"""Peak memory of PPO with LoRA: one base for policy, reference, critic and reward against a base for each.

    python benchmarks/ppo_memory.py --hidden 512 --layers 12

A random model trains one rollout against a reward model that is a LoRA adapter over the same weights, in a fresh
process for each way. Printed are the peaks of the processes' resident memory and their ratio; with it, the same less
what a process holds that has only imported the libraries, and what `plumbline check --deep` plans for each. Linux
counts memory in KiB, as assumed here.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PreTrainedTokenizerFast,
    Qwen2Config,
)

from rlhf.ppo import PPOConfig, PPOTrainer
from rlhf.ppo.footprint import footprint_of
from rlhf.ppo.memory import plan_memory

WORDS = 8000
TEMPLATE = "{% for message in messages %}{{ message['content'] + ' ' }}{% endfor %}"
LORA = {"r": 16, "target_modules": "all-linear"}


def peak() -> float:
    """The largest resident memory of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def write_models(folder: Path, hidden: int, layers: int) -> int:
    """Write a random policy and a reward adapter over it; return the policy's parameters."""
    torch.manual_seed(0)
    heads = hidden // 64
    config = Qwen2Config(
        vocab_size=WORDS,
        hidden_size=hidden,
        intermediate_size=4 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=512,
        pad_token_id=0,
        eos_token_id=1,
    )
    policy = AutoModelForCausalLM.from_config(config)
    policy.save_pretrained(folder / "policy")
    words = Tokenizer(models.WordLevel({f"w{number}": number for number in range(WORDS)}, unk_token="w2"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="w0", eos_token="w1", unk_token="w2", chat_template=TEMPLATE
    )
    base = AutoModelForSequenceClassification.from_pretrained(folder / "policy", num_labels=1, dtype="float32")
    reward = get_peft_model(base, LoraConfig(task_type="SEQ_CLS", modules_to_save=["score"], **LORA))
    reward.save_pretrained(folder / "reward")
    for name in ("policy", "reward"):
        tokenizer.save_pretrained(folder / name)
    return sum(tensor.numel() for tensor in policy.parameters())


def train(folder: Path, share_base: bool) -> PPOTrainer:
    """One rollout of 16 episodes and its updates."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder / "policy")
    prompts = [" ".join(f"w{3 + (7 * row + word) % 900}" for word in range(16)) for row in range(16)]
    trainer = PPOTrainer(
        args=PPOConfig(
            output_dir=str(folder / "out"),
            per_device_train_batch_size=4,
            gradient_accumulation_steps=4,
            total_episodes=16,
            num_ppo_epochs=1,
            response_length=32,
            stop_token=None,
            share_base=share_base,
            use_cpu=True,
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
            dataloader_pin_memory=False,
        ),
        processing_class=tokenizer,
        model=str(folder / "policy"),
        ref_model=None,
        reward_model=str(folder / "reward"),
        train_dataset=Dataset.from_list([{"prompt": prompt} for prompt in prompts]),
        peft_config=LoraConfig(**LORA),
    )
    trainer.train()
    return trainer


def planned(trainer: PPOTrainer) -> float:
    """What `plumbline check --deep` plans for such a run, in MiB."""
    longest = max(map(len, trainer.prompts.dataset["input_ids"]))
    return plan_memory(footprint_of(trainer), trainer.args, longest).total / 2**20


def measure(folder: Path, way: str) -> tuple[float, float]:
    """Peak in MiB of a fresh process that trains one way, and what was to be expected."""
    command = [sys.executable, __file__, "--folder", str(folder), "--way", way]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    measured, expected = json.loads(said.splitlines()[-1])
    return measured, expected


def main() -> None:
    """Print the peaks, or be one of the processes measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hidden", type=int, default=512, help="a multiple of 64")
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--way", choices=("imports", "shared", "separate"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        trainer = None if options.way == "imports" else train(options.folder, options.way == "shared")
        measured = peak()  # before the plan, which tries the models
        print(json.dumps([measured, planned(trainer) if trainer else 0.0]))
        return
    with tempfile.TemporaryDirectory() as place:
        parameters = write_models(Path(place), options.hidden, options.layers)
        print(f"{parameters / 1e6:.0f} M parameters, {parameters * 4 / 2**20:.0f} MiB in float32")
        for _ in range(options.repeats):
            ways = [measure(Path(place), way) for way in ("imports", "shared", "separate")]
            imports, shared, separate = (peak for peak, _ in ways)
            print(
                f"shared base {shared:.0f} MiB, separate models {separate:.0f} MiB: {shared / separate:.2f}; "
                f"without the {imports:.0f} MiB of imports {(shared - imports) / (separate - imports):.2f}; "
                f"planned {ways[1][1]:.0f} and {ways[2][1]:.0f} MiB"
            )


if __name__ == "__main__":
    main()
