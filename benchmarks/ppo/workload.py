"""What both sides share: the models and prompts, the settings of a run, and the form in which it is recorded.

    python -m benchmarks.ppo.workload '{"workload": …}'     # writes models and prompts; `run.py` does this

Runs in plumbline's environment and in TRL's, so it imports nothing of plumbline but the tokenizer's files.
"""

from __future__ import annotations

import json
import math
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset, load_dataset
from torch.optim.optimizer import register_optimizer_step_post_hook
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    PreTrainedTokenizerBase,
    TrainerCallback,
)

from benchmarks.ppo.flops import rollout_flops

ROOT = Path(__file__).parents[2]
DOMAIN = ROOT / "domains/support"
REAL_PROMPTS = ("hh_harmless", "oasst_en100", "pandalm_testset", "tulu_human_eval")
LONGEST_REAL_PROMPT = 256

SIZES = {  # hidden, layers, heads, key-value heads, intermediate, vocabulary
    "1M": (128, 2, 4, 4, 352, 4096),
    "5M": (256, 4, 4, 4, 704, 4096),
    "25M": (512, 8, 8, 8, 1408, 4096),
    "100M": (768, 14, 12, 12, 2048, 4096),
    "0.5B": (896, 24, 14, 2, 4864, 151936),
    "1.5B": (1536, 28, 12, 2, 8960, 151936),
}
MEAN_RESPONSE = 48
"""Mean length at which responses of the workload `real` end by themselves, if nothing cut them."""

FIRST_WORD = 16
"""Token ids below are kept out of the random prompts: the special ones are among them."""

ADAPTER: dict[str, Any] = {
    "r": 16,
    "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
}
"""Settings of the adapters that `--lora` trains."""

PLANTED = range(1024, 2048)
"""The planted quarter of the vocabulary of 4096."""


@dataclass(frozen=True)
class Task:
    """One run of one side.

    Attributes:
        workload: "fixed" (random prompts of 16 to 32 tokens, responses of `response_length`), "real" (prompts of real
            lengths, responses that end by themselves) or "learn" (random prompts of 16 tokens, the planted reward).
        folder: where models and prompts lie.
        data: folder with the shared data, for the workload "real"; where it is absent the embedded domain's prompts
            are taken.
        size: key of `SIZES`.
        batch_size, rollouts, epochs: episodes of a rollout, rollouts, optimizer steps on each rollout.
        response_length: longest response, in tokens.
        learning_rate, kl_coef, seed: as in `PPOConfig`.
        lora: train adapters of rank 16 on all linear layers; the reward is such an adapter over the policy, too.
        bf16: bfloat16 autocast on plumbline's side (TRL 1.12's setting of this name has no effect).
        micro_batch_tokens: plumbline's setting.
        reuse_memory: plumbline's setting of this name.
        ours: further settings of plumbline's `PPOConfig`.
    """

    workload: str
    folder: str
    data: str
    size: str = "5M"
    batch_size: int = 32
    rollouts: int = 4
    epochs: int = 4
    response_length: int = 48
    learning_rate: float = 1e-5
    kl_coef: float = 0.05
    seed: int = 1
    lora: bool = False
    bf16: bool = False
    micro_batch_tokens: int | None = None
    reuse_memory: bool = True
    ours: dict[str, Any] = field(default_factory=dict)

    @property
    def body_parameters(self) -> int:
        """Weights of the policy's layers: attention and the three matrices of the gated MLP."""
        hidden, layers, heads, kv_heads, intermediate, _ = SIZES[self.size]
        return layers * (2 * hidden * hidden + 2 * hidden * hidden * kv_heads // heads + 3 * hidden * intermediate)

    @property
    def head_parameters(self) -> int:
        """Weights from the last hidden state to the vocabulary."""
        return SIZES[self.size][0] * SIZES[self.size][-1]

    @property
    def episodes(self) -> int:
        """Episodes in all; there are as many prompts."""
        return self.batch_size * self.rollouts

    @property
    def stops(self) -> bool:
        """Whether responses end by themselves."""
        return self.workload == "real"

    def settings(self, output: str) -> dict[str, Any]:
        """What the `PPOConfig` of both sides takes.

        One mini-batch a PPO epoch and no gradient accumulation: the one case in which TRL 1.12 makes the optimizer
        steps that it is asked for, on every rollout.
        """
        return {
            "output_dir": output,
            "per_device_train_batch_size": self.batch_size,
            "gradient_accumulation_steps": 1,
            "num_mini_batches": 1,
            "num_ppo_epochs": self.epochs,
            "total_episodes": self.episodes,
            "local_rollout_forward_batch_size": self.batch_size,
            "response_length": self.response_length,
            "stop_token": "eos" if self.stops else None,
            "temperature": 1.0,
            "learning_rate": self.learning_rate,
            "lr_scheduler_type": "constant",
            "kl_coef": self.kl_coef,
            "seed": self.seed,
            "logging_steps": 1,
            "num_sample_generations": 0,
            "save_strategy": "no",
            "report_to": "none",
            "disable_tqdm": True,
            "use_cpu": not torch.cuda.is_available(),
        }

    def arguments(self) -> dict[str, Any]:
        """What the `PPOTrainer` of both sides takes, the reward excepted; models in float32."""
        folder = Path(self.folder)
        prompts = json.loads((folder / "prompts.json").read_text())
        arguments = {
            "processing_class": AutoTokenizer.from_pretrained(folder / "policy", padding_side="left"),
            "model": AutoModelForCausalLM.from_pretrained(folder / "policy", dtype="float32"),
            "ref_model": None,
            "train_dataset": Dataset.from_list([{"input_ids": ids} for ids in prompts]),
        }
        if self.lora:
            from peft import LoraConfig

            arguments["peft_config"] = LoraConfig(task_type="CAUSAL_LM", **ADAPTER)
        return arguments

    def classifier(self, name: str) -> Any:
        """The model that `value` and `reward` start from, in float32; with LoRA both are the merged reward."""
        source = "policy" if self.lora else name
        model = AutoModelForSequenceClassification.from_pretrained(
            Path(self.folder) / source, num_labels=1, dtype="float32"
        )
        if self.lora:
            from peft import PeftModel

            model = PeftModel.from_pretrained(model, Path(self.folder) / "reward_adapter").merge_and_unload()
        return model


def planted_share(completion_ids: Sequence[list[int]], **columns: Any) -> list[float]:
    """The planted reward: share of a response's tokens in `PLANTED`; a random policy gets 0.25."""
    return [sum(token in PLANTED for token in ids) / len(ids) for ids in completion_ids]


# The record of a run


def memory_mib() -> tuple[float, float]:
    """Memory of this process now, and at its peak, in MiB: of the GPU where there is one, else resident memory."""
    if torch.cuda.is_available():
        return torch.cuda.memory_allocated() / 2**20, torch.cuda.max_memory_allocated() / 2**20
    lines = Path("/proc/self/status").read_text().splitlines()
    kib = {line.split(":")[0]: int(line.split()[1]) for line in lines if line.startswith(("VmRSS", "VmHWM"))}
    return kib["VmRSS"] / 1024, kib["VmHWM"] / 1024


@dataclass
class Record:
    """What a run showed; a rollout is one entry of each list. Seconds; response tokens; MiB; operations an episode."""

    base_memory: float = field(default_factory=lambda: memory_mib()[0])
    peak_memory: float = 0.0
    optimizer_steps: int = 0
    device: str = ""
    flops: dict[str, float] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    generation: list[float] = field(default_factory=list)
    scoring: list[float] = field(default_factory=list)
    tokens: list[float] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    kl: list[float] = field(default_factory=list)

    def run(self, trainer: Any, task: Task, out: str) -> None:
        """Train, check that both sides do the same work, and write the record.

        Raises:
            RuntimeError: not as many rollouts or optimizer steps as the task asks for.
        """
        hook = register_optimizer_step_post_hook(self._count_step)
        trainer.train()
        hook.remove()
        self.peak_memory = memory_mib()[1]
        self.device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
        self.flops = rollout_flops(
            body=task.body_parameters,
            head=task.head_parameters,
            prompt_tokens=statistics.mean(map(len, json.loads((Path(task.folder) / "prompts.json").read_text()))),
            response_tokens=statistics.mean(self.tokens) / task.batch_size,
            epochs=task.epochs,
            lora=task.lora,
        )
        done, asked = (len(self.seconds), self.optimizer_steps), (task.rollouts, task.rollouts * task.epochs)
        if done != asked:
            raise RuntimeError(f"rollouts and optimizer steps were {done}, asked for were {asked}")
        Path(out).write_text(json.dumps(asdict(self)))

    def _count_step(self, *arguments: Any) -> None:
        self.optimizer_steps += 1


class Clock(TrainerCallback):
    """Records the seconds of each rollout with its updates."""

    def __init__(self, record: Record, steps_per_rollout: int) -> None:
        self.record, self.steps_per_rollout, self.started = record, steps_per_rollout, 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The first rollout begins."""
        self.started = _now()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """A rollout ends and the next one begins."""
        if state.global_step % self.steps_per_rollout == 0:
            ended = _now()
            self.record.seconds.append(ended - self.started)
            self.started = ended


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


# Models and prompts


def prepare(task: Task) -> None:
    """Write `policy`, `value`, `reward` (random weights, the same for every run) and `prompts.json` into the folder."""
    folder = Path(task.folder)
    tokenizer = AutoTokenizer.from_pretrained(DOMAIN / "base")
    prompts = make_prompts(task, tokenizer)
    torch.manual_seed(0)
    window = max(map(len, prompts)) + task.response_length
    policy = LlamaForCausalLM(model_config(task.size, tokenizer, window))
    if task.stops:
        plant_stop(policy, tokenizer.eos_token_id, 1 / MEAN_RESPONSE)
    models = {
        "policy": policy,
        "value": LlamaForSequenceClassification(model_config(task.size, tokenizer, window, num_labels=1)),
        "reward": LlamaForSequenceClassification(model_config(task.size, tokenizer, window, num_labels=1)),
    }
    for name, model in models.items():
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    if task.lora:
        write_reward_adapter(folder)
    (folder / "prompts.json").write_text(json.dumps(prompts))


def write_reward_adapter(folder: Path) -> None:
    """Write `reward_adapter`: a reward model as an adapter with random weights and a head over the policy's weights."""
    from peft import LoraConfig, get_peft_model

    base = AutoModelForSequenceClassification.from_pretrained(folder / "policy", num_labels=1, dtype="float32")
    config = LoraConfig(task_type="SEQ_CLS", init_lora_weights=False, modules_to_save=["score"], **ADAPTER)
    get_peft_model(base, config).save_pretrained(folder / "reward_adapter")


def model_config(size: str, tokenizer: PreTrainedTokenizerBase, window: int, **options: Any) -> LlamaConfig:
    """The shape of a model."""
    hidden, layers, heads, kv_heads, intermediate, vocabulary = SIZES[size]
    return LlamaConfig(
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        intermediate_size=intermediate,
        vocab_size=vocabulary,
        max_position_embeddings=max(512, window),
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
        **options,
    )


@torch.no_grad()
def plant_stop(model: LlamaForCausalLM, token: int, probability: float) -> None:
    """Give a token about this probability everywhere, so that random weights end their responses.

    A constant added to all embeddings reaches the last layer; the token's row of the head points along it.
    """
    model.get_input_embeddings().weight += model.config.initializer_range
    ids = torch.randint(FIRST_WORD, 4096, (8, 64))
    hidden = model.model(input_ids=ids).last_hidden_state.flatten(0, 1)
    head = model.get_output_embeddings().weight
    head[token] = 0
    others = (hidden @ head.T).logsumexp(dim=1).mean().item()
    direction = hidden.mean(dim=0)
    wanted = math.log(probability / (1 - probability)) + others
    head[token] = direction * wanted / (hidden @ direction).mean()


def make_prompts(task: Task, tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """As many prompts as episodes, as token ids."""
    random = np.random.default_rng(0)
    if task.workload == "real":
        texts = real_prompts(Path(task.data))
        encoded = tokenizer.apply_chat_template(texts, add_generation_prompt=True, tokenize=True, return_dict=True)
        found = [ids for ids in encoded["input_ids"] if len(ids) <= LONGEST_REAL_PROMPT]
        return [found[index] for index in random.permutation(len(found))[np.arange(task.episodes) % len(found)]]
    shortest, longest = (16, 16) if task.workload == "learn" else (16, 32)
    lengths = random.integers(shortest, longest + 1, task.episodes)
    return [random.integers(FIRST_WORD, 4096, length).tolist() for length in lengths]


def real_prompts(data: Path) -> list[list[dict[str, str]]]:
    """Conversations from the shared preference data, or, where these are absent, from the embedded domain."""
    files = [str(data / name / "trl_pref.parquet") for name in REAL_PROMPTS if (data / name).is_dir()]
    if files:
        return load_dataset("parquet", data_files=files, split="train")["prompt"][:]
    return load_dataset("json", data_files=str(DOMAIN / "data/prompts.jsonl"), split="train")["prompt"][:]


if __name__ == "__main__":
    prepare(Task(**json.loads(sys.argv[1])))
