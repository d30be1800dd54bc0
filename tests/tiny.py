"""Tiny random language models with tokenizer and chat template, for tests: made in milliseconds, the same each time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast, Qwen2Config

PAD, EOS, START = "<|pad|>", "<|im_end|>", "<|im_start|>"

SENTENCES = [
    "Hello, my order has not arrived yet. Can you tell me where it is?",
    "I am sorry to hear that. Please send me the order number and I will look it up for you.",
    "How do I reset my password? I forgot it and the email never came.",
    "You can reset the password in the settings. Check the spam folder for our email first.",
    "Thank you for your help! That worked. Yes. No. What a red green blue day, one two three four.",
    "I want a refund for the broken lamp, the invoice was wrong and the delivery was late.",
]

TEMPLATE = (
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message['role'] + '\n' }}"
    "{%- if message['role'] == 'assistant' %}"
    "{% generation %}{{- message['content'] + '<|im_end|>' }}{% endgeneration %}"
    "{%- else %}{{- message['content'] + '<|im_end|>' }}{%- endif %}"
    "{{- '\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"
)
"""ChatML with generation marks around the assistant's content and its eos."""

TEMPLATE_WITHOUT_MARKS = TEMPLATE.replace("{% generation %}", "").replace("{% endgeneration %}", "")


def tiny_tokenizer(
    *, vocab_size: int = 400, pad_is_eos: bool = False, chat_template: str | None = TEMPLATE
) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer over a few sentences: any text can be encoded and decoded without loss."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    specials = [START, EOS] if pad_is_eos else [PAD, START, EOS]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=specials, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=EOS,
        pad_token=EOS if pad_is_eos else PAD,
        chat_template=chat_template,
        padding_side="left",
    )


def tiny_model(
    folder: Path,
    *,
    family: str = "llama",
    hidden: int = 32,
    layers: int = 2,
    max_positions: int = 256,
    pad_is_eos: bool = False,
    chat_template: str | None = TEMPLATE,
    seed: int = 0,
    **config: Any,
) -> Path:
    """Write a random `llama` or `qwen2` model with its tokenizer to `folder`, as `from_pretrained` loads it.

    Args:
        folder: where to; made when missing.
        family: `llama` or `qwen2`.
        hidden, layers, max_positions: the shape; two attention heads.
        pad_is_eos: let one token be both, as in many released models.
        chat_template: the Jinja text; None leaves it out.
        seed: decides the random weights.
        config: further fields of the model's configuration.
    """
    tokenizer = tiny_tokenizer(pad_is_eos=pad_is_eos, chat_template=chat_template)
    shape = {
        "vocab_size": len(tokenizer),
        "hidden_size": hidden,
        "intermediate_size": 2 * hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "max_position_embeddings": max_positions,
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "bos_token_id": None,
        "tie_word_embeddings": True,
    }
    family_config = {"llama": LlamaConfig, "qwen2": Qwen2Config}[family](**{**shape, **config})
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(family_config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return Path(folder)


def user(text: str) -> list[dict[str, str]]:
    """A prompt of one user's message."""
    return [{"role": "user", "content": text}]


def assistant(text: str) -> list[dict[str, str]]:
    """A response as a list of one message."""
    return [{"role": "assistant", "content": text}]
