"""What can be known before any work: the model, its template, the data, their lengths, memory and disk."""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from plumbline.conversations import Conversation, split_of
from plumbline.datafiles import Notices, PromptRow, load_conversations, load_corpus, load_prompts
from plumbline.errors import NoStoreError, UserError
from plumbline.recipe import Recipe
from plumbline.stages import Domain

GIB = 2**30
BYTES_FULL = 16  # fp32 weights, gradients and AdamW's two moments, a parameter
BYTES_FROZEN = 4


@dataclass(frozen=True)
class Preflight:
    """What the checks found.

    Attributes:
        parameters: of the base model.
        window: its context window in tokens; None where it has no limit.
        rows: counts of the data by name and split.
        memory: estimated bytes of weights, gradients and optimizer by stage; activations come on top.
        notices: what a user should know, none of it fatal.
    """

    parameters: int
    window: int | None
    rows: dict[str, dict[str, int]]
    memory: dict[str, int]
    notices: list[str] = field(default_factory=list)


def preflight(domain: Domain) -> Preflight:
    """Check model and data of a recipe before any work.

    Raises:
        UserError: something that would fail later: no chat template, prompts longer than the window, too few rows, …
    """
    from plumbline.models import trust_remote_code

    with trust_remote_code(domain.recipe.trust_remote_code):
        return _checked(domain)


def _checked(domain: Domain) -> Preflight:
    from plumbline.base import tokenizer_of_base
    from plumbline.models import check_tokenizer, context_window, identify, resolve_model, training_chat_template

    recipe, notices = domain.recipe, Notices()
    source = resolve_model(recipe.model.name, revision=recipe.model.revision)
    template, pad_token = recipe.model.chat_template, recipe.model.pad_token
    tokenizer = check_tokenizer(tokenizer_of_base(source, chat_template=template, pad_token=pad_token), source)
    training_chat_template(tokenizer)
    window = context_window(source)
    conversations = load_conversations(recipe.data.demonstrations)
    prompts = load_prompts(recipe.data.prompts, notices)
    benchmark = load_prompts(recipe.data.benchmark, notices)
    rows = {"demonstrations": _by_split(conversations, recipe)}
    if recipe.data.corpus:
        rows["corpus"] = {"texts": len(load_corpus(recipe.data.corpus))}
    if recipe.data.prompts:
        rows["prompts"] = _by_split([row.prompt for row in prompts], recipe)
    if benchmark:
        rows["benchmark"] = {"test": len(benchmark)}
    _refuse_too_few(recipe, rows)
    _refuse_long_prompts(recipe, tokenizer, prompts + benchmark, window)
    if recipe.annotate.simulated:
        from plumbline.utility import Utility

        Utility.load(recipe.annotate.simulated.utility)
        for sentence in _refused_names(domain):
            notices.add(f"`plumbline simulate` will stop: {sentence}")
    parameters = identify(source).parameters
    memory = estimated_memory(recipe, parameters)
    _refuse_full_disk(domain.run.root, parameters, len(memory))
    return Preflight(parameters, window, rows, memory, notices.lines)


def _by_split(conversations: list[Conversation], recipe: Recipe) -> dict[str, int]:
    data = recipe.data
    return dict(Counter(split_of(c, validation=data.validation, test=data.test) for c in conversations))


def _refuse_too_few(recipe: Recipe, rows: dict[str, dict[str, int]]) -> None:
    batch = int(recipe.sft.trainer.get("per_device_train_batch_size", 1))
    train = rows["demonstrations"].get("train", 0)
    if train < batch:
        raise UserError(
            f"only {train} demonstrations are left to train on, fewer than one batch of {batch}: add demonstrations, "
            "or lower sft.per_device_train_batch_size, data.validation or data.test."
        )
    if "prompts" in rows and not rows["prompts"].get("train"):
        raise UserError("no prompt is left to sample from: add prompts, or lower data.validation and data.test.")
    if not rows.get("prompts", {}).get("test") and "benchmark" not in rows and recipe.data.prompts:
        raise UserError("no prompt is left for the comparison: add prompts, raise data.test, or name a data.benchmark.")


def _refuse_long_prompts(recipe: Recipe, tokenizer: Any, rows: list[PromptRow], window: int | None) -> None:
    if not rows or window is None:
        return
    longest = max(recipe.sample.max_new_tokens, recipe.compare.max_new_tokens)
    texts = tokenizer.apply_chat_template([row.prompt for row in rows], tokenize=False, add_generation_prompt=True)
    lengths = [len(ids) for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]
    too_long = [(length, row) for length, row in zip(lengths, rows, strict=True) if length + longest > window]
    if too_long:
        length, row = max(too_long, key=lambda pair: pair[0])
        raise UserError(
            f"{len(too_long)} prompts leave no room for a response: the longest has {length} tokens, with "
            f"max_new_tokens {longest} more than the model's window of {window}; it begins "
            f"{row.prompt[-1]['content'][:60]!r}. Shorten or remove them, or lower max_new_tokens."
        )


def _refuse_full_disk(root: Path, parameters: int, stages: int) -> None:
    place = next(path for path in (root, *root.parents) if path.exists())
    free, needed = shutil.disk_usage(place).free, parameters * 4 * (stages + 3)
    if free < needed:
        raise UserError(
            f"{place} has {free / GIB:.1f} GiB free and this run needs about {needed / GIB:.1f} GiB: free some space, "
            "or give another place with --runs."
        )


def _refused_names(domain: Domain) -> list[str]:
    """Names of simulated annotators that others have in the store, where there is a store."""
    from plumbline.preferences.simulated import refused_names

    assert domain.recipe.annotate.simulated is not None
    try:
        with domain.service(create=False) as service:
            return refused_names(service, domain.recipe.annotate.simulated.annotators)
    except NoStoreError:
        return []


def estimated_memory(recipe: Recipe, parameters: int) -> dict[str, int]:
    """Bytes of weights, gradients and optimizer states by training stage; activations come on top."""

    def trained(section: Any) -> int:
        if section.lora is None:
            return parameters * BYTES_FULL
        frozen = 0.55 if section.load_in_4bit else BYTES_FROZEN  # 4-bit weights with their scales
        adapter = 0.01 * section.lora.r / 16  # share of the weights that adapters on all linear layers add
        return int(parameters * (frozen + adapter * BYTES_FULL))

    sections: dict[str, Any] = {"sft": recipe.sft, "reward": recipe.reward}
    if recipe.adapt:
        sections = {"adapt": recipe.adapt, **sections}
    memory = {name: trained(section) for name, section in sections.items()}
    for section in recipe.align:
        memory[section.name] = trained(section)
        if section.method == "ppo":  # the critic is trained too; reference and reward are frozen
            memory[section.name] += parameters * (BYTES_FULL + 2 * BYTES_FROZEN)
    return memory
