r"""Make the small base model of the support domain: tokenizer, chat template and weights, from nothing.

    cd domains/support/build
    texts="--bitext bitext.jsonl.gz --gsm8k gsm8k.jsonl.gz --oasst oasst.jsonl.gz"
    python make_base_model.py $texts --stop-after 1600 --out first
    python make_base_model.py $texts --start first --steps 1400 --learning-rate 1.2e-3 --out second
    python make_base_model.py $texts --start second --seed 11 --exchanges 1000 --article-copies 4 --steps 3000 \
        --learning-rate 1e-3

It is a base model: it knows the shop's language but has never seen the chat template, so it does not reply as an
assistant before SFT. Sources, licences, time and loss of the model in ../base are in ../base/README.md.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import corpus
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from plumbline.allocator import reuse_freed_memory

SEED = 7
WINDOW = 512  # tokens: the context window
IGNORED = -100  # label of padding
PAD, END_OF_TEXT, TURN, END_OF_TURN = "<|pad|>", "<|endoftext|>", "<|im_start|>", "<|im_end|>"
CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{- '<|im_start|>' + message['role'] + '\\n' -}}"
    "{%- if message['role'] == 'assistant' -%}"
    "{% generation %}{{- message['content'] + '<|im_end|>' -}}{% endgeneration %}"
    "{%- else -%}{{- message['content'] + '<|im_end|>' -}}{%- endif -%}"
    "{{- '\\n' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
)
_WORDS = Regex(r"'(?:s|t|re|ve|m|ll|d)| ?\p{L}+| ?\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")


def make_tokenizer(texts: list[str], size: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer; each digit is a token of its own; pad and end of turn are different tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(_WORDS, "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[PAD, END_OF_TEXT, TURN, END_OF_TURN],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END_OF_TURN,
        extra_special_tokens=[END_OF_TEXT, TURN],
        model_max_length=WINDOW,
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def make_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """A Llama of about five million parameters with tied embeddings."""
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=256,
            intermediate_size=704,
            num_hidden_layers=5,
            num_attention_heads=4,
            max_position_embeddings=WINDOW,
            tie_word_embeddings=True,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
        )
    )


def read_texts(arguments: argparse.Namespace) -> tuple[list[str], list[str]]:
    """The training texts, and held-out ones: exchanges made with another seed that are not among the former."""
    rng, rare = random.Random(arguments.seed), arguments.start is not None
    writer = corpus.base_writer(rng, rare)
    texts = list(corpus.exchanges(writer, arguments.exchanges))
    texts += corpus.logs(texts, rng, len(texts) // 50)
    texts += corpus.same_question(writer, arguments.exchanges // 10)
    texts += [text for _ in range(arguments.article_copies) for text in corpus.articles(rng)]
    texts += corpus.bitext(arguments.bitext)
    texts += corpus.word_problems(arguments.gsm8k)
    texts += corpus.open_assistant(arguments.oasst)
    known = set(texts)
    other = corpus.base_writer(random.Random(arguments.seed + 1), rare)
    return texts, [text for text in corpus.exchanges(other, 8) if text not in known]


def encode(texts: list[str], tokenizer: PreTrainedTokenizerFast) -> list[list[int]]:
    """Token ids of each text, cut to the window and closed by the end-of-text token, shortest first."""
    end = tokenizer.convert_tokens_to_ids(END_OF_TEXT)
    encoded = tokenizer(texts, truncation=True, max_length=WINDOW - 1)["input_ids"]
    return sorted(([*ids, end] for ids in encoded), key=len)


def batches_of(rows: list[list[int]], batch_tokens: int) -> list[torch.Tensor]:
    """Rows of like length side by side, padded with IGNORED: each (texts, tokens) of at most `batch_tokens`."""
    found, batch = [], rows[:1]
    for row in rows[1:]:
        if (len(batch) + 1) * len(row) > batch_tokens:
            found.append(batch)
            batch = []
        batch.append(row)
    return [torch.tensor([[*row, *[IGNORED] * (len(part[-1]) - len(row))] for row in part]) for part in [*found, batch]]


def endless(batches: list[torch.Tensor], steps: int) -> Iterator[torch.Tensor]:
    """`steps` batches, each epoch in a new order."""
    order: list[int] = []
    for _ in range(steps):
        order = order or torch.randperm(len(batches)).tolist()
        yield batches[order.pop()]


def loss_of(model: LlamaForCausalLM, batch: torch.Tensor) -> torch.Tensor:
    """Mean loss over the tokens of a batch. Padding is on the right, so a causal model needs no mask."""
    with torch.autocast("cpu", torch.bfloat16):
        loss: torch.Tensor = model(input_ids=batch.clamp(min=0), labels=batch).loss
    return loss


@torch.no_grad()
def held_out_loss(model: LlamaForCausalLM, batches: list[torch.Tensor]) -> float:
    """Mean loss (nats a token) on texts that were not trained on."""
    counts = [int((batch[:, 1:] != IGNORED).sum()) for batch in batches]
    losses = [loss_of(model, batch).item() * count for batch, count in zip(batches, counts, strict=True)]
    return sum(losses) / sum(counts)


def train(
    model: LlamaForCausalLM,
    batches: list[torch.Tensor],
    arguments: argparse.Namespace,
    report: Callable[[int, float], None],
) -> None:
    """AdamW with warm-up and cosine decay; forward and backward in bfloat16."""
    decayed = [p for p in model.parameters() if p.dim() > 1]
    plain = [p for p in model.parameters() if p.dim() <= 1]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=arguments.learning_rate, betas=(0.9, 0.95), fused=True)

    def rate(step: int) -> float:
        warm = min(1.0, (step + 1) / 100)
        return warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / arguments.steps)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    for step, batch in enumerate(endless(batches, arguments.stop_after or arguments.steps), 1):
        loss = loss_of(model, batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        report(step, loss.item())


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, facts: dict[str, object], out: Path) -> None:
    """Write the model in bfloat16 beside its place and move each file in, so that no file is ever half written."""
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as folder:
        copy.deepcopy(model).to(torch.bfloat16).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        Path(folder, "training.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
        for path in sorted(Path(folder).iterdir()):
            path.chmod(0o644)
            os.replace(path, out / path.name)


def main() -> None:
    """Read the texts, train, and write the model with the facts of its training."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--bitext", type=Path, required=True, help="Bitext customer support, gzipped JSON lines")
    parser.add_argument("--gsm8k", type=Path, required=True, help="GSM8K, gzipped JSON lines")
    parser.add_argument("--oasst", type=Path, required=True, help="OpenAssistant trees, gzipped JSON lines")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "base")
    parser.add_argument("--start", type=Path, help="go on from this model, on text that has the rarer phrasings too")
    parser.add_argument("--steps", type=int, default=3200)
    parser.add_argument("--stop-after", type=int, help="end after this step of the schedule")
    parser.add_argument("--batch-tokens", type=int, default=2048)
    parser.add_argument("--learning-rate", type=float, default=1.5e-3)
    parser.add_argument("--vocabulary", type=int, default=4096)
    parser.add_argument("--exchanges", type=int, default=400, help="exchanges for each topic")
    parser.add_argument("--save-every", type=int, default=400, help="steps after which the model so far is written")
    parser.add_argument("--article-copies", type=int, default=8)
    parser.add_argument("--seed", type=int, default=SEED)
    arguments = parser.parse_args()
    reuse_freed_memory()
    torch.manual_seed(arguments.seed)
    started = time.monotonic()
    texts, unseen = read_texts(arguments)
    if arguments.start:
        tokenizer = AutoTokenizer.from_pretrained(arguments.start)
    else:
        tokenizer = make_tokenizer(texts, arguments.vocabulary)
    rows = encode(texts, tokenizer)
    batches = batches_of(rows, arguments.batch_tokens)
    unseen_batches = batches_of(encode(unseen, tokenizer), arguments.batch_tokens)
    tokens = sum(map(len, rows))
    if arguments.start:
        model = LlamaForCausalLM.from_pretrained(arguments.start, dtype=torch.float32)
    else:
        model = make_model(tokenizer)
    print(f"{len(texts)} texts, {tokens:,} tokens, {model.num_parameters():,} parameters", flush=True)
    recent: list[float] = []
    last = arguments.stop_after or arguments.steps

    def facts(step: int) -> dict[str, object]:
        return {
            "texts": len(texts),
            "tokens_an_epoch": tokens,
            "epochs": round(step / len(batches), 2),
            "parameters": model.num_parameters(),
            "steps": step,
            "steps_planned": arguments.steps,
            "batch_tokens": arguments.batch_tokens,
            "learning_rate": arguments.learning_rate,
            "train_loss": round(sum(recent[-100:]) / len(recent[-100:]), 4),
            "held_out_loss": round(held_out_loss(model, unseen_batches), 4),
            "seconds": round(time.monotonic() - started),
            "threads": torch.get_num_threads(),
            "seed": arguments.seed,
            "start": json.loads((arguments.start / "training.json").read_text()) if arguments.start else None,
        }

    def report(step: int, loss: float) -> None:
        recent.append(loss)
        if step % 50 == 0:
            print(f"step {step}: loss {sum(recent[-50:]) / 50:.3f}, {time.monotonic() - started:.0f} s", flush=True)
        if step % arguments.save_every == 0 or step == last:
            save(model, tokenizer, facts(step), arguments.out)

    train(model, batches, arguments, report)
    print(json.dumps(facts(last)))


if __name__ == "__main__":
    main()
