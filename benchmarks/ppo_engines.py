"""PPO's rollout engines beside each other: speed, and how far their log-probabilities are from the trainer's.

    python benchmarks/ppo_engines.py --model domains/support/base

Every engine samples responses to the same prompts of the embedded domain, in turns; each row is one engine in one
precision (float32 weights, with bfloat16 autocast or without). Seconds of the processor count all threads of the
process and depend less on what else the machine does than seconds of the clock. vLLM is not among them: it needs a GPU.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from rlhf.ppo.data import SAMPLING, sampling_noise, split_rows
from rlhf.ppo.engines.choice import PlumblineEngine
from rlhf.ppo.engines.of_transformers import ContinuousBatchingEngine, GenerateEngine
from rlhf.ppo.generation import Response, Sampling
from rlhf.ppo.mismatch import importance_ratios
from rlhf.ppo.models import TokenLogprobs
from rlhf.ppo.rollout import Rollout

PROMPTS = Path(__file__).parents[1] / "domains/support/data/prompts.jsonl"
ENGINES = {
    "plumbline": PlumblineEngine,
    "generate": GenerateEngine,
    "continuous_batching": ContinuousBatchingEngine,
}


def mismatch(model: PreTrainedModel, prompts: list[list[int]], responses: list[Response], temperature: float) -> str:
    """Mean and largest distance of the log-probabilities, and the largest ratio."""
    rollout = Rollout.of_responses(0, prompts, responses, model.device)
    policy = TokenLogprobs(model, temperature)
    for rows in split_rows(rollout.lengths, rows=16):
        batch = rollout.micro_batch(rows)
        rollout.store(rollout.logprobs, batch, policy(batch.input_ids, batch.response_mask)[0])
    log_ratio = importance_ratios(rollout.logprobs, rollout.sampling_logprobs, rollout.mask).log()[rollout.mask].abs()
    return f"{log_ratio.mean():.1e} | {log_ratio.max():.1e}"


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="domains/support/base")
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--length", type=int, default=96)
    parser.add_argument("--temperature", type=float, default=0.7)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(given.model)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = AutoModelForCausalLM.from_pretrained(given.model, dtype="float32").eval().to(device)
    rows = [json.loads(line)["prompt"] for line in PROMPTS.read_text(encoding="utf-8").splitlines()[: given.prompts]]
    prompts = [
        tokenizer.apply_chat_template(row, add_generation_prompt=True, return_dict=True).input_ids for row in rows
    ]
    sampling = Sampling(given.temperature, given.length, frozenset({tokenizer.eos_token_id}))
    noise = sampling_noise(0, range(len(prompts)), given.length, stream=SAMPLING)
    engines = {name: engine(model, sampling) for name, engine in ENGINES.items()}
    clock: dict[tuple[str, str], list[float]] = {}
    processor: dict[tuple[str, str], list[float]] = {}
    found: dict[tuple[str, str], tuple[int, str]] = {}
    for _ in range(given.repeats):
        for precision in ("float32", "bfloat16"):
            for name, engine in engines.items():
                key = (name, precision)
                with torch.no_grad(), torch.autocast(device, torch.bfloat16, enabled=precision == "bfloat16"):
                    started = time.perf_counter(), time.process_time()
                    responses = engine.generate(prompts, noise)
                    clock.setdefault(key, []).append(time.perf_counter() - started[0])
                    processor.setdefault(key, []).append(time.process_time() - started[1])
                    tokens = sum(len(response.tokens) for response in responses)
                    found[key] = tokens, mismatch(model, prompts, responses, given.temperature)
    print("| engine | precision | tokens | seconds, median (spread) | of the processor | distance: mean | largest |")
    print("|---|---|---|---|---|---|---|")
    for key, seconds in clock.items():
        spread = f"{statistics.median(seconds):.1f} ({min(seconds):.1f}–{max(seconds):.1f})"
        tokens, distance = found[key]
        print(f"| {key[0]} | {key[1]} | {tokens} | {spread} | {statistics.median(processor[key]):.1f} | {distance} |")


if __name__ == "__main__":
    main()
