"""A planted case of over-optimisation: PPO against a reward that can be exploited, beside one that cannot.

    python benchmarks/overoptimization.py --output docs/images/overoptimization.svg

The policy is a small random model over words. The optimised reward (the proxy) counts the kind words of a reply, as a
reward model does that never saw too many of them. The watched reward counts each kind word once and takes off half of
what is said again. So at first they rise together, and then only the proxy does. The figure has both against the square
root of the KL to the start, as in arXiv:2210.10760: of a run that only warns, with the place where the watch saw them
part, and of one that raises the KL coefficient there. With `stop` the run ends at that place.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import datasets
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, PrinterCallback

from rlhf.ppo import PPOConfig, PPOTrainer
from rlhf.ppo.watch_report import draw_scores, seen_in

KIND = ["sorry", "thanks", "please", "happy", "glad", "help", "welcome", "kind", "dear", "gladly", "apologise", "enjoy"]
OTHER = [f"word{number}" for number in range(200)]
ACTIONS = ("warn", "raise_kl")
"""What is run."""


def proxy(completions: list[str], **columns: Any) -> list[float]:
    """How many kind words a reply has."""
    return [float(sum(word in KIND for word in text.split())) for text in completions]


def watched(completions: list[str], **columns: Any) -> list[float]:
    """How many different kind words a reply has, less half of what is said again."""
    scores = []
    for text, count in zip(completions, proxy(completions), strict=True):
        different = len(set(text.split()) & set(KIND))
        scores.append(different - 0.5 * (count - different))
    return scores


def make_tokenizer() -> PreTrainedTokenizerFast:
    """A token for each word."""
    words = ["<eos>", "<unk>", *KIND, *OTHER]
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", unk_token="<unk>", pad_token="<eos>")


def train(episodes: int, seed: int, action: str) -> list[dict[str, float]]:
    """Run PPO and return the log entries of its rollouts."""
    tokenizer = make_tokenizer()
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    torch.manual_seed(seed)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=64, **shape))
    with tempfile.TemporaryDirectory() as output:
        trainer = PPOTrainer(
            args=PPOConfig(
                output_dir=output,
                per_device_train_batch_size=64,
                total_episodes=episodes,
                num_ppo_epochs=2,
                num_mini_batches=2,
                response_length=24,
                stop_token=None,
                temperature=1.0,
                learning_rate=1.5e-3,
                lr_scheduler_type="constant",
                kl_coef=0.02,
                on_overoptimization=action,
                overoptimization_kl_factor=8.0,
                seed=seed,
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
                bf16=False,
                use_cpu=True,
            ),
            processing_class=tokenizer,
            model=model,
            ref_model=None,
            reward_model=proxy,
            watch_reward_model=watched,
            train_dataset=datasets.Dataset.from_list([{"prompt": word} for word in OTHER]),
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return [entry for entry in trainer.state.log_history if "objective/kl" in entry]


def main() -> None:
    """Run, print where it was seen, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("overoptimization.svg"))
    parser.add_argument("--episodes", type=int, default=64 * 60)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    runs = {action: train(arguments.episodes, arguments.seed, action) for action in ACTIONS}
    print("| run | seen after episodes | optimised then | watched: highest | then | at the end | KL at the end |")
    print("|---|---|---|---|---|---|---|")
    for action, entries in runs.items():
        scores = [entry["objective/watched_scores"] for entry in entries]
        first = next(iter(seen_in(entries)), None)
        when = "never | –" if first is None else f"{first['episode']:.0f} | {first['objective/scores']:.1f}"
        then = "–" if first is None else f"{first['objective/watched_scores']:.1f}"
        last = f"{scores[-1]:.1f} | {entries[-1]['objective/kl']:.0f}"
        print(f"| `{action}` | {when} | {max(scores):.1f} | {then} | {last} |")
    draw_scores(runs, arguments.output)


if __name__ == "__main__":
    main()
