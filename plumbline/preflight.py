"""What can be known before any work: the model, its template, the data, their lengths, the store, memory and disk."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from math import comb
from pathlib import Path
from typing import Any, NamedTuple, get_args

from plumbline.conversations import Conversation, Part, Split, split_of
from plumbline.datafiles import Notices, PromptRow, load_conversations, load_corpus, load_prompts
from plumbline.domain import Domain
from plumbline.errors import Faults, UserError, counted
from plumbline.preferences.checks_file import read_checks
from plumbline.preferences.formats import IMPORTED, check_format
from plumbline.preferences.quiz_file import read_quiz
from plumbline.preferences.store import check_store
from plumbline.preferences.webhooks import check_url
from plumbline.recipe import Recipe, SimulatedSection
from plumbline.stages import prompts_to_sample
from plumbline.utility import Utility, read_rubric

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


BEFORE_PREFERENCES = frozenset({"base", "adapt", "sft", "sample"})
"""Stages that need no preferences."""


def preflight(domain: Domain, stages: Collection[str] = ()) -> Preflight:
    """Check model, data and store of a recipe before any work.

    Args:
        domain: the recipe in its run.
        stages: those that are to be run, or the last of them; empty means all.

    Raises:
        UserError: all that would fail later, together: no chat template, prompts longer than the window, too few
            rows, … What cannot be checked because of another fault is left out.
    """
    from plumbline.models import trust_remote_code

    with trust_remote_code(domain.recipe.trust_remote_code):
        return _checked(domain, ranked=not stages or not BEFORE_PREFERENCES.issuperset(stages))


def _checked(domain: Domain, *, ranked: bool) -> Preflight:
    recipe, notices, faults = domain.recipe, Notices(), Faults()
    model = faults.attempt(_base_model, recipe)
    conversations = faults.attempt(load_conversations, recipe.data.demonstrations)
    corpus = faults.attempt(load_corpus, recipe.data.corpus)
    prompts = faults.attempt(load_prompts, recipe.data.prompts, notices)
    benchmark = faults.attempt(load_prompts, recipe.data.benchmark, notices)
    for file in recipe.data.preferences:
        if file.format:
            faults.attempt(check_format, file.format, IMPORTED)
    rows: dict[str, dict[str, int]] = {}
    to_rank: list[PromptRow] = []
    if conversations is not None:
        rows["demonstrations"] = _by_split(conversations, recipe)
        faults.attempt(_refuse_few_demonstrations, recipe, rows["demonstrations"].get("train", 0))
    if corpus:
        rows["corpus"] = {"texts": len(corpus)}
    if recipe.data.prompts and prompts is not None:
        rows["prompts"] = _by_split([row.prompt for row in prompts], recipe)
        faults.attempt(_refuse_no_prompts, rows["prompts"])
        to_rank = prompts_to_sample([row for row in prompts if _split(row.prompt, recipe) != "test"], recipe)
        parts = Counter(domain.part_of(row.prompt) for row in to_rank)
        rows["prompts to rank"] = {part: parts[part] for part in get_args(Part) if parts[part]}
        if benchmark == []:
            faults.attempt(_refuse_no_comparison, rows["prompts"])
    if benchmark:
        rows["benchmark"] = {"test": len(benchmark)}
    if model is not None:
        faults.attempt(_refuse_long_prompts, recipe, model, [*(prompts or []), *(benchmark or [])])
        faults.attempt(_refuse_long_responses, recipe, model)
        memory = estimated_memory(recipe, model.parameters)
        faults.attempt(_refuse_full_disk, domain.run.root, model.parameters, len(memory) + recipe.watches)
    checks = recipe.annotate.checks
    if checks and checks.file and (found := faults.attempt(read_checks, checks.file, recipe.name)):
        rows["checks"] = {"items": len(found)}
    if recipe.annotate.quiz and (quiz := faults.attempt(read_quiz, recipe.annotate.quiz)):
        rows["quiz"] = {"questions": len(quiz.questions)}
    faults.attempt(_refuse_unknown_language, recipe.annotate.language)
    for webhook in recipe.annotate.webhooks:
        faults.attempt(check_url, webhook.url)
        if not os.environ.get(webhook.secret_env):
            notices.add(
                f"annotate.webhooks: {webhook.url} needs a secret in the environment variable {webhook.secret_env} "
                "when `plumbline annotate` starts."
            )
    store_exists = faults.attempt(check_store, domain.store)
    others = store_exists is not False or bool(recipe.data.preferences)  # may hold preferences of other prompts
    if ranked and to_rank and not others:
        faults.attempt(_refuse_few_pairs, domain, to_rank)
    if recipe.reward.watch_share > 0 and not recipe.watches:
        notices.add(
            "reward.watch_share keeps preferences for a reward model that PPO watches, but no align entry is ppo: "
            "nothing learns from them."
        )
    simulated = recipe.annotate.simulated
    if simulated and faults.attempt(read_rubric, simulated.utility) and prompts is not None and benchmark is not None:
        faults.attempt(Utility.load, simulated.utility)
    if simulated and store_exists:
        _note_refused_names(domain, simulated, notices)
    faults.raise_together("model, data and store have")
    assert model is not None  # or there was a fault
    return Preflight(model.parameters, model.window, rows, memory, notices.lines)


def _refuse_unknown_language(language: str) -> None:
    if language == "en":
        return
    from annotate_ui.i18n import load_texts  # takes seconds: Gradio is imported with it

    load_texts(language)


class _BaseModel(NamedTuple):
    """What the checks need of the base model: its tokenizer, as the run will use it, its window and its size."""

    tokenizer: Any
    window: int | None
    parameters: int


def _base_model(recipe: Recipe) -> _BaseModel:
    from plumbline.base import tokenizer_of_base
    from plumbline.models import (
        check_can_score,
        check_tokenizer,
        context_window,
        identify,
        resolve_model,
        training_chat_template,
    )

    source = resolve_model(recipe.model.name, revision=recipe.model.revision)
    template, pad_token = recipe.model.chat_template, recipe.model.pad_token
    tokenizer = check_tokenizer(tokenizer_of_base(source, chat_template=template, pad_token=pad_token), source)
    training_chat_template(tokenizer)
    check_can_score(source)
    return _BaseModel(tokenizer, context_window(source), identify(source).parameters)


def _split(conversation: Conversation, recipe: Recipe) -> Split:
    return split_of(conversation, validation=recipe.data.validation, test=recipe.data.test)


def _by_split(conversations: list[Conversation], recipe: Recipe) -> dict[str, int]:
    return dict(Counter(_split(conversation, recipe) for conversation in conversations))


def _refuse_few_demonstrations(recipe: Recipe, train: int) -> None:
    batch = int(recipe.sft.trainer.get("per_device_train_batch_size", 1))
    if train < batch:
        raise UserError(
            f"only {counted(train, 'demonstration')} left to train on, fewer than one batch of {batch}: add "
            "demonstrations, or lower sft.per_device_train_batch_size, data.validation or data.test."
        )


def _refuse_no_prompts(splits: dict[str, int]) -> None:
    if not splits.get("train"):
        raise UserError("no prompt is left to sample from: add prompts, or lower data.validation and data.test.")


def _refuse_few_pairs(domain: Domain, to_rank: list[PromptRow]) -> None:
    """Refuse parts of the preferences from which no batch of pairs could come, however all their prompts are ranked."""
    from reward.training import REWARD_DEFAULTS

    recipe = domain.recipe
    settings = REWARD_DEFAULTS | recipe.reward.trainer
    batch = int(settings["per_device_train_batch_size"]) * int(settings.get("gradient_accumulation_steps", 1))
    responses = recipe.sample.responses_per_prompt * len(recipe.sample.policies)
    pairs = recipe.annotate.judgements_per_prompt * comb(responses, 2)
    shares: dict[Part, str] = {"policy": "what reward.judge_share and reward.watch_share leave"}
    if recipe.reward.judge_share > 0:
        shares["judge"] = f"reward.judge_share {recipe.reward.judge_share:g}"
    if recipe.watches:
        shares["watch"] = f"reward.watch_share {recipe.reward.watch_share:g}"
    prompts = Counter(domain.part_of(row.prompt) for row in to_rank if _split(row.prompt, recipe) == "train")
    few = [
        f"the {part} part has {counted(prompts[part], 'training prompt')} ({share}), which give at most "
        f"{counted(prompts[part] * pairs, 'pair')}"
        for part, share in shares.items()
        if prompts[part] * pairs < batch
    ]
    if few:
        raise UserError(
            f"too few preferences can be ranked for one batch of {batch} pairs: {'; '.join(few)}. Add prompts, change "
            "the shares, or lower reward.per_device_train_batch_size."
        )


def _refuse_no_comparison(splits: dict[str, int]) -> None:
    if not splits.get("test"):
        raise UserError("no prompt is left for the comparison: add prompts, raise data.test, or name a data.benchmark.")


def _refuse_long_prompts(recipe: Recipe, model: _BaseModel, rows: list[PromptRow]) -> None:
    if not rows or model.window is None:
        return
    longest = max(recipe.sample.max_new_tokens, recipe.compare.max_new_tokens)
    prompts = [row.prompt for row in rows]
    texts = model.tokenizer.apply_chat_template(prompts, tokenize=False, add_generation_prompt=True)
    lengths = [len(ids) for ids in model.tokenizer(texts, add_special_tokens=False)["input_ids"]]
    too_long = [(length, row) for length, row in zip(lengths, rows, strict=True) if length + longest > model.window]
    if too_long:
        length, row = max(too_long, key=lambda pair: pair[0])
        raise UserError(
            f"no room for a response after {counted(len(too_long), 'prompt')}: the longest has {length} tokens, with "
            f"max_new_tokens {longest} more than the model's window of {model.window}; it begins "
            f"{row.prompt[-1]['content'][:60]!r}. Shorten or remove such prompts, or lower max_new_tokens."
        )


def _refuse_long_responses(recipe: Recipe, model: _BaseModel) -> None:
    """PPO leaves out prompts without room for a whole response: here that would be all of them."""
    for section in recipe.align:
        length = section.trainer.get("response_length")
        if length is not None and model.window is not None and length >= model.window:
            raise UserError(
                f"{section.name}.response_length {length} leaves no room for a prompt in the model's window of "
                f"{model.window}: lower it."
            )


def _refuse_full_disk(root: Path, parameters: int, stages: int) -> None:
    place = next(path for path in (root, *root.parents) if path.exists())
    free, needed = shutil.disk_usage(place).free, parameters * 4 * (stages + 3)
    if free < needed:
        raise UserError(
            f"{place} has {free / GIB:.1f} GiB free and this run needs about {needed / GIB:.1f} GiB: free some space, "
            "or give another place with --runs."
        )


def _note_refused_names(domain: Domain, simulated: SimulatedSection, notices: Notices) -> None:
    """Note the simulated annotators whose names others have in the store."""
    from plumbline.preferences.simulated import refused_names

    with domain.service(create=False) as service:
        for sentence in refused_names(service, simulated.annotators):
            notices.add(f"`plumbline simulate` will stop: {sentence}")


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
        if section.method == "ppo":  # the critic is trained too; reference, reward and watched reward are frozen
            memory[section.name] += parameters * (BYTES_FULL + (2 + recipe.watches) * BYTES_FROZEN)
    return memory
