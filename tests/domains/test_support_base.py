"""The support domain's base model: small, its tokenizer's pad and end differ, its template marks what is learned."""

import json
from pathlib import Path

import pytest
from safetensors import safe_open
from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerBase

BASE = Path(__file__).parents[2] / "domains" / "support" / "base"
DIALOGUE = [
    {"role": "system", "content": "You help customers."},
    {"role": "user", "content": "Where is my parcel?"},
    {"role": "assistant", "content": "Under Orders."},
    {"role": "user", "content": "Thanks! And my refund?"},
    {"role": "assistant", "content": "Within five working days."},
]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(BASE)


def test_weights_are_at_most_16_megabytes_of_finite_numbers_in_safetensors() -> None:
    assert (BASE / "model.safetensors").stat().st_size <= 16_000_000
    assert not [*BASE.glob("*.bin"), *BASE.glob("*.pt"), *BASE.glob("*.py")]
    with safe_open(BASE / "model.safetensors", framework="pt") as weights:
        for name in weights.keys():  # noqa: SIM118 - not a dict
            assert weights.get_tensor(name).isfinite().all(), name


def test_pad_and_end_are_different_tokens_and_the_configuration_agrees(tokenizer: PreTrainedTokenizerBase) -> None:
    config = AutoConfig.from_pretrained(BASE)
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    assert (config.pad_token_id, config.eos_token_id) == (tokenizer.pad_token_id, tokenizer.eos_token_id)
    assert config.vocab_size == len(tokenizer)
    assert tokenizer.model_max_length == config.max_position_embeddings == 512


def test_text_survives_the_tokenizer(tokenizer: PreTrainedTokenizerBase) -> None:
    text = "Hi,  I paid $4.95 for PW-48213 — “really”?\n\nÅse’s 3rd e-mail: a@b.example 🙂"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_the_template_renders_each_turn_closed_by_the_end_token(tokenizer: PreTrainedTokenizerBase) -> None:
    assert tokenizer.apply_chat_template(DIALOGUE[:3], tokenize=False) == (
        "<|im_start|>system\nYou help customers.<|im_end|>\n"
        "<|im_start|>user\nWhere is my parcel?<|im_end|>\n"
        "<|im_start|>assistant\nUnder Orders.<|im_end|>\n"
    )
    asked = tokenizer.apply_chat_template(DIALOGUE[:2], tokenize=False, add_generation_prompt=True)
    assert asked.endswith("<|im_start|>assistant\n")
    assert tokenizer.apply_chat_template(DIALOGUE, tokenize=False).startswith(asked)


def test_generation_marks_cover_the_replies_and_their_end_and_nothing_else(tokenizer: PreTrainedTokenizerBase) -> None:
    marked = tokenizer.apply_chat_template(DIALOGUE, return_dict=True, return_assistant_tokens_mask=True)
    learned = [token for token, mark in zip(marked["input_ids"], marked["assistant_masks"], strict=True) if mark]
    assert tokenizer.decode(learned) == "Under Orders.<|im_end|>Within five working days.<|im_end|>"


def test_special_tokens_in_a_customers_text_cannot_be_mistaken_for_the_pad(tokenizer: PreTrainedTokenizerBase) -> None:
    plain = tokenizer("Where is my parcel?")["input_ids"]
    assert not {tokenizer.pad_token_id, tokenizer.eos_token_id} & set(plain)


def test_nearly_all_replies_are_short(tokenizer: PreTrainedTokenizerBase) -> None:
    lines = (BASE.parent / "data" / "demonstrations.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line)["messages"] for line in lines]
    replies = sorted(len(tokenizer(messages[-1]["content"])["input_ids"]) for messages in rows)
    whole = max(len(ids) for ids in tokenizer.apply_chat_template(rows)["input_ids"])
    assert replies[len(replies) // 2] <= 60
    assert replies[int(0.9 * len(replies))] <= 130
    assert replies[-1] <= 170
    assert whole <= 512


def test_the_card_and_the_facts_of_training_are_beside_the_weights() -> None:
    facts = json.loads((BASE / "training.json").read_text(encoding="utf-8"))
    assert facts["steps"] == facts["steps_planned"]
    assert facts["held_out_loss"] < 3.0
    card = (BASE / "README.md").read_text(encoding="utf-8")
    for told in ("CDLA-Sharing-1.0", "MIT", "Apache-2.0", "make_base_model.py", str(facts["held_out_loss"])):
        assert told in card
