"""Supervised fine-tuning: what is in the loss, stopping, packing, adapters, resuming, refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM

import sft.training
from plumbline.errors import UserError
from plumbline.identity import identify
from plumbline.models import load_policy, load_tokenizer
from plumbline.recipe import AdaptSection, LoRA, SFTSection
from plumbline.sampling import sample_responses
from sft import adapt, train_sft
from tests.tiny import EOS, START, TEMPLATE, TEMPLATE_WITHOUT_MARKS, assistant, tiny_model, tiny_tokenizer, user
from tests.training_helpers import Killed, folders, kill_at, same_files

ANSWERS = {"What red?": "Yes.", "How one?": "No, three.", "Can you help?": "I am sorry."}
ROWS = Dataset.from_list([{"messages": user(q) + assistant(a)} for q, a in ANSWERS.items()] * 4)
HELD_OUT = ROWS.select(range(3))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("base"))


def prepared(monkeypatch: pytest.MonkeyPatch, model: Path, root: Path, rows: Dataset, **fields: Any) -> Any:
    """The trainer as `train_sft` built it, without training."""
    built: list[Any] = []
    monkeypatch.setattr(sft.training, "train_and_save", lambda trainer, **_: built.append(trainer) or {})
    train_sft(model, rows, None, SFTSection(**fields), *folders(root), seed=1)
    return built[0]


@pytest.mark.parametrize("pad_is_eos", [False, True])
def test_loss_is_on_assistant_turns_and_their_eos_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pad_is_eos: bool
) -> None:
    model = tiny_model(tmp_path / "model", pad_is_eos=pad_is_eos)
    dialogue = user("What red?") + assistant("Yes.") + user("How one?") + assistant("No, three.")
    trainer = prepared(monkeypatch, model, tmp_path, Dataset.from_list([{"messages": dialogue}, ROWS[0]]))
    tokenizer = load_tokenizer(model)
    batch = trainer.data_collator([trainer.train_dataset[0], trainer.train_dataset[1]])
    learned = [tokenizer.decode(row[row != -100]) for row in batch["labels"]]
    assert sorted(learned) == sorted([f"Yes.{EOS}No, three.{EOS}", f"Yes.{EOS}"])


@pytest.mark.parametrize("pad_is_eos", [False, True])
def test_fine_tuned_model_answers_and_stops_by_itself(tmp_path: Path, pad_is_eos: bool) -> None:
    model = tiny_model(tmp_path / "model", pad_is_eos=pad_is_eos)
    folder, scratch = folders(tmp_path)
    section = SFTSection(learning_rate=1e-2, num_train_epochs=40, per_device_train_batch_size=6)
    metrics = train_sft(model, ROWS, HELD_OUT, section, folder, scratch, seed=1)
    sampled = sample_responses(
        load_policy(folder),
        load_tokenizer(folder),
        [user(question) for question in ANSWERS],
        n=1,
        temperature=0,
        max_new_tokens=30,
        batch_tokens=1000,
        seed=1,
    )
    assert [one.text for one in sampled] == list(ANSWERS.values())
    assert all(one.finished for one in sampled)
    assert metrics["eval_loss"] < 0.1 and metrics["train_rows"] == 12


def test_end_of_turn_becomes_the_eos_where_it_was_another_token(tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "model")
    tokenizer = tiny_tokenizer()
    tokenizer.eos_token = START  # like base models whose eos ends documents, not turns
    tokenizer.save_pretrained(model)
    folder, scratch = folders(tmp_path)
    train_sft(model, ROWS, None, SFTSection(max_steps=1), folder, scratch, seed=1)
    tuned = load_tokenizer(folder)
    assert tuned.eos_token == EOS
    generation = json.loads((folder / "generation_config.json").read_text())
    assert tuned.eos_token_id in torch.tensor(generation["eos_token_id"]).flatten().tolist()


def test_packed_rows_do_not_see_each_other(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mean loss over all trained tokens is the same packed and not packed."""
    losses = []
    for packing in (True, False):
        trainer = prepared(
            monkeypatch, base, tmp_path / str(packing), ROWS, packing=packing, max_length=128, bf16=False
        )
        batch = trainer.data_collator(list(trainer.train_dataset))
        with torch.no_grad():
            losses.append(trainer.model(**batch, fused_lm_head=True).loss.item())
        assert packing == (batch["input_ids"].shape[0] == 1)
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


@pytest.mark.parametrize(("step", "marked"), [(8, True), (8, False), (10, True)])  # 10 is the last one
def test_killed_and_resumed_equals_uninterrupted(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int, marked: bool
) -> None:
    section = SFTSection(learning_rate=1e-2, max_steps=10, per_device_train_batch_size=2, logging_steps=3, save_steps=4)
    whole, _ = folders(tmp_path / "whole")
    expected = train_sft(base, ROWS, HELD_OUT, section, *folders(tmp_path / "whole"), seed=3)
    folder, scratch = folders(tmp_path / "killed")
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_at(patch, step, marked=marked)
        train_sft(base, ROWS, HELD_OUT, section, folder, scratch, seed=3)
    assert train_sft(base, ROWS, HELD_OUT, section, folder, scratch, seed=3) == expected
    assert same_files(folder, whole)


def test_best_checkpoint_is_kept(base: Path, tmp_path: Path) -> None:
    """The held-out answers contradict the training: their loss falls and rises; the weights at the lowest are saved."""
    folder, scratch = folders(tmp_path)
    held_out = Dataset.from_list([{"messages": user(question) + assistant("What a lamp")} for question in ANSWERS])
    section = SFTSection(learning_rate=1e-2, max_steps=40, save_steps=4, per_device_train_batch_size=4)
    metrics = train_sft(base, ROWS, held_out, section, folder, scratch, seed=1)
    log = [json.loads(line) for line in (folder / "training_log.jsonl").read_text().splitlines()]
    losses = {entry["step"]: entry["eval_loss"] for entry in log if "eval_loss" in entry}
    assert metrics["eval_loss"] == min(losses.values()) < losses[40]
    model, tokenizer = load_policy(folder), load_tokenizer(folder)
    rendered = tokenizer.apply_chat_template(
        list(held_out["messages"]), return_dict=True, return_assistant_tokens_mask=True, padding=True
    )
    ids, mask = torch.tensor(rendered["input_ids"]), torch.tensor(rendered["assistant_masks"])
    with torch.no_grad():
        logits = model(ids, attention_mask=torch.tensor(rendered["attention_mask"])).logits[:, :-1]
    nll = -logits.log_softmax(-1).gather(-1, ids[:, 1:, None]).squeeze(-1)
    recomputed = (nll * mask[:, 1:]).sum() / mask[:, 1:].sum()
    assert recomputed.item() == pytest.approx(metrics["eval_loss"], abs=1e-4)


def test_adapter_stands_over_its_base_and_a_second_one_joins_it(base: Path, tmp_path: Path) -> None:
    first, scratch = folders(tmp_path / "first")
    section = SFTSection(learning_rate=1e-2, max_steps=4, lora=LoRA(r=4, lora_alpha=8))
    train_sft(base, ROWS, None, section, first, scratch, seed=1)
    found = identify(first)
    assert found.adapter is not None and found.adapter.mode == "new"
    assert found.base_hash == identify(base).weights_hash

    second, scratch = folders(tmp_path / "second")
    lora = LoRA(r=2, lora_alpha=2, target_modules=["q_proj", "v_proj"])
    train_sft(first, ROWS, None, SFTSection(learning_rate=1e-2, max_steps=4, lora=lora), second, scratch, seed=2)
    joined = identify(second)
    assert joined.adapter is not None
    assert (joined.adapter.mode, joined.adapter.parent) == ("joined", str(first))
    assert joined.base_hash == found.base_hash
    assert not (second / "training_args.bin").exists()

    merged = load_policy(scratch / "merged")
    tuned, plain = load_policy(second), AutoModelForCausalLM.from_pretrained(second)
    ids = torch.arange(20)[None]
    with torch.no_grad():
        logits, expected = tuned(ids).logits, plain(ids).logits
        assert (logits - merged(ids).logits).abs().max() > 1e-3  # the second training did something
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=0)


def test_adapter_loads_after_its_run_was_renamed(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "before"
    model = tiny_model(run / "base")
    folder, scratch = folders(run / ".partial-sft")
    train_sft(model, ROWS, None, SFTSection(max_steps=2, lora=LoRA(r=2)), folder, scratch, seed=1)
    folder.rename(run / "sft")
    ids = torch.arange(20)[None]
    with torch.no_grad():
        expected = load_policy(run / "sft")(ids).logits
        renamed = run.rename(tmp_path / "runs" / "after") / "sft"
        assert torch.equal(load_policy(renamed)(ids).logits, expected)
    assert load_tokenizer(renamed).chat_template


def test_joined_adapter_is_what_was_trained(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, scratch = folders(tmp_path / "first")
    train_sft(base, ROWS, None, SFTSection(learning_rate=1e-2, max_steps=3, lora=LoRA(r=2)), first, scratch, seed=1)
    trained: list[Any] = []
    train = sft.training.train_and_save

    def keep(trainer: Any, **given: Any) -> dict[str, Any]:
        trained.append(trainer.model)
        return train(trainer, **given)

    monkeypatch.setattr(sft.training, "train_and_save", keep)
    second, scratch = folders(tmp_path / "second")
    train_sft(first, ROWS, None, SFTSection(learning_rate=1e-2, max_steps=3, lora=LoRA(r=3)), second, scratch, seed=2)
    ids = torch.arange(30)[None]
    with torch.no_grad():
        torch.testing.assert_close(
            load_policy(second)(ids).logits, trained[0].eval()(input_ids=ids).logits, atol=1e-4, rtol=0
        )


def test_adapter_input_and_full_training_gives_full_weights(base: Path, tmp_path: Path) -> None:
    first, scratch = folders(tmp_path / "first")
    train_sft(base, ROWS, None, SFTSection(max_steps=1, lora=LoRA(r=2)), first, scratch, seed=1)
    second, scratch = folders(tmp_path / "second")
    train_sft(first, ROWS, None, SFTSection(max_steps=1), second, scratch, seed=1)
    assert identify(second).adapter is None


def test_adaptation_lowers_the_loss_of_domain_text(base: Path, tmp_path: Path) -> None:
    corpus = Dataset.from_list([{"text": "the order has not arrived yet and the lamp was broken"}] * 16)
    folder, scratch = folders(tmp_path)
    section = AdaptSection(learning_rate=1e-2, num_train_epochs=5, max_length=64, per_device_train_batch_size=1)
    metrics = adapt(base, corpus, corpus.select(range(2)), section, folder, scratch, seed=1)
    log = [json.loads(line) for line in (folder / "training_log.jsonl").read_text().splitlines()]
    first = next(entry["eval_loss"] for entry in log if "eval_loss" in entry)
    assert metrics["eval_loss"] < first / 2


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        (None, "has no chat template"),
        (TEMPLATE_WITHOUT_MARKS, "does not mark what the assistant says"),
        (
            TEMPLATE.replace("+ '<|im_end|>' }}{% endgeneration %}", "}}{% endgeneration %}{{- '<|im_end|>' }}"),
            "to stop",
        ),
    ],
)
def test_templates_that_cannot_train_are_refused(tmp_path: Path, template: str | None, reason: str) -> None:
    model = tiny_model(tmp_path / "model", chat_template=template)
    with pytest.raises(UserError, match=reason):
        train_sft(model, ROWS, None, SFTSection(max_steps=1), *folders(tmp_path), seed=1)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"max_length": 1000}, "more than the window"),
        ({"max_length": 4}, "before the assistant says anything"),
        ({"learning_rate": 1e39, "warmup_steps": 0, "max_steps": 3, "logging_steps": 1}, "lower sft.learning_rate"),
        ({"lr_scheduler_type": "no such thing"}, "sft: "),
    ],
)
def test_settings_that_cannot_train_are_refused(
    base: Path, tmp_path: Path, fields: dict[str, Any], reason: str
) -> None:
    with pytest.raises(UserError, match=reason):
        train_sft(base, ROWS, None, SFTSection(**fields), *folders(tmp_path), seed=1)


@pytest.mark.parametrize("fields", [{"eval_strategy": "no"}, {"save_strategy": "no"}, {"eval_strategy": "epoch"}])
def test_evaluation_and_checkpoints_can_be_set_alone(base: Path, tmp_path: Path, fields: dict[str, Any]) -> None:
    folder, scratch = folders(tmp_path)
    metrics = train_sft(base, ROWS, HELD_OUT, SFTSection(max_steps=2, **fields), folder, scratch, seed=1)
    assert ("eval_loss" in metrics) == (fields != {"eval_strategy": "no"})
    assert bool(list(scratch.glob("checkpoint-*"))) == (fields != {"save_strategy": "no"})


@pytest.mark.parametrize(
    "evaluation",
    [
        None,
        Dataset.from_list([]),
        HELD_OUT.select([]),
        Dataset.from_list([{"messages": user("What red? " * 60) + assistant("Yes.")}]),
    ],
    ids=["None", "[]", "no row", "long"],
)
def test_without_held_out_rows_the_last_weights_are_the_result(
    base: Path, tmp_path: Path, evaluation: Dataset | None
) -> None:
    folder, scratch = folders(tmp_path)
    fields = {"eval_strategy": "steps", "eval_steps": 1, "load_best_model_at_end": True, "max_length": 48}
    metrics = train_sft(base, ROWS, evaluation, SFTSection(max_steps=2, **fields), folder, scratch, seed=1)
    assert metrics["steps"] == 2 and not [name for name in metrics if name.startswith("eval_")]
    assert not torch.equal(load_policy(folder).model.norm.weight, load_policy(base).model.norm.weight)


@pytest.mark.parametrize("evaluation", [None, Dataset.from_list([]), Dataset.from_list([{"text": "a"}]).select([])])
def test_adaptation_without_held_out_text(base: Path, tmp_path: Path, evaluation: Dataset | None) -> None:
    corpus = Dataset.from_list([{"text": "the order has not arrived yet"}] * 8)
    section = AdaptSection(max_steps=1, max_length=64)
    metrics = adapt(base, corpus, evaluation, section, *folders(tmp_path), seed=1)
    assert metrics["steps"] == 1 and "eval_loss" not in metrics


def test_cut_rows_are_counted(base: Path, tmp_path: Path) -> None:
    long = [{"messages": user("What red?") + assistant("Yes. " * 60)}]
    rows = Dataset.from_list(long + [ROWS[0]] * 7)
    metrics = train_sft(base, rows, None, SFTSection(max_steps=1, max_length=64), *folders(tmp_path), seed=1)
    assert metrics["truncated_rows"] == 1
