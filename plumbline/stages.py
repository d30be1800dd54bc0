"""The stages of the chain: what each reads, what of the recipe decides it, and which function does its work.

A stage is data (`Stage`) plus a body; the bodies here only fetch a stage's inputs from the run folder and the recipe
and call the package that does the work. `chain.py` decides which of them run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plumbline.conversations import Part, Split, prompt_key, split_of
from plumbline.datafiles import CorpusText, PromptRow, load_conversations, load_corpus
from plumbline.domain import Domain
from plumbline.errors import UserError
from plumbline.models import check_fits, identify
from plumbline.recipe import AlignSection, Recipe
from plumbline.runs import StageContext

if TYPE_CHECKING:
    pass

Metrics = dict[str, Any]


@dataclass(frozen=True)
class Stage:
    """One step of the chain.

    Attributes:
        name: its folder in the run.
        what: what it does, for progress bars and the plan.
        makes: `model`, `responses`, `preferences` or `comparison`.
        config: what of the recipe decides its result.
        files: data files it reads, by input name.
        after: stages whose output it reads.
        body: does the work.
        seed: of everything random in it.
    """

    name: str
    what: str
    makes: str
    config: dict[str, Any]
    files: dict[str, list[Path]]
    after: tuple[str, ...]
    body: Callable[[StageContext], Metrics]
    seed: int


def stages_of(domain: Domain) -> list[Stage]:
    """Every stage of a recipe, in the order in which they run."""
    recipe = domain.recipe
    stages = [_base(domain)] if recipe.model.chat_template or recipe.model.pad_token else []
    if recipe.adapt is not None:
        stages.append(_adapt(domain))
    stages.append(_sft(domain))
    if recipe.data.prompts:
        stages.append(_sample(domain))
    stages += [_preferences(domain), _reward(domain)]
    if recipe.reward.judge_share > 0:
        stages.append(_judge(domain))
    if recipe.watches:
        stages.append(_watch(domain))
    stages += [_align(domain, section) for section in recipe.align]
    stages.append(_compare(domain))
    return stages


def _files(paths: list[str]) -> list[Path]:
    return [Path(path) for path in paths]


def _splits(recipe: Recipe) -> dict[str, Any]:
    return {"validation": recipe.data.validation, "test": recipe.data.test}


def _base(domain: Domain) -> Stage:
    section = domain.recipe.model

    def body(context: StageContext) -> Metrics:
        from plumbline.base import prepare_base

        prepare_base(
            domain.given_model, context.folder, chat_template=section.chat_template, pad_token=section.pad_token
        )
        return {}

    template = [section.chat_template] if section.chat_template else []
    config, files = {"pad_token": section.pad_token}, {"chat_template": template}
    after = ("base model",)
    return Stage("base", "Preparing the base model", "model", config, files, after, body, domain.recipe.seed)


def _adapt(domain: Domain) -> Stage:
    recipe, section = domain.recipe, domain.recipe.adapt
    assert section is not None

    def body(context: StageContext) -> Metrics:
        from datasets import Dataset

        from sft import adapt

        parts: dict[str, list[dict[str, str]]] = {"train": [], "validation": [], "test": []}
        for entry in load_corpus(recipe.data.corpus):
            parts[_corpus_split(entry, recipe)].append({"text": entry.text})
        evaluation = Dataset.from_list(parts["validation"]) if parts["validation"] else None
        train = Dataset.from_list(parts["train"])
        return adapt(domain.base_model, train, evaluation, section, context.folder, context.scratch, seed=recipe.seed)

    config = {**section.model_dump(mode="json"), **_splits(recipe)}
    files = {"corpus": _files(recipe.data.corpus)}
    return Stage("adapt", "Adapting to the domain", "model", config, files, _base_stage(domain), body, recipe.seed)


def _corpus_split(entry: CorpusText, recipe: Recipe) -> Split:
    """A conversation's split is that of its prompt, so that adaptation sees no test prompt; a text has its own."""
    if entry.messages is not None:
        return split_of(entry.messages, **_splits(recipe))
    return split_of([{"role": "user", "content": entry.text}], validation=recipe.data.validation, test=0.0)


def _base_stage(domain: Domain) -> tuple[str, ...]:
    model = domain.recipe.model
    return ("base",) if model.chat_template or model.pad_token else ("base model",)


def _sft(domain: Domain) -> Stage:
    recipe = domain.recipe

    def body(context: StageContext) -> Metrics:
        from datasets import Dataset

        from sft import train_sft

        rows: dict[str, list[dict[str, Any]]] = {"train": [], "validation": [], "test": []}
        for messages in load_conversations(recipe.data.demonstrations):
            rows[split_of(messages, **_splits(recipe))].append({"messages": messages})
        if not rows["train"]:
            raise UserError("no demonstration is left to train on: add rows, or lower data.validation and data.test.")
        evaluation = Dataset.from_list(rows["validation"]) if rows["validation"] else None
        train = Dataset.from_list(rows["train"])
        return train_sft(
            domain.start_of_sft, train, evaluation, recipe.sft, context.folder, context.scratch, seed=recipe.seed
        )

    config = {**recipe.sft.model_dump(mode="json"), **_splits(recipe)}
    files = {"demonstrations": _files(recipe.data.demonstrations)}
    after = ("adapt",) if recipe.adapt else _base_stage(domain)
    return Stage("sft", "Supervised fine-tuning", "model", config, files, after, body, recipe.seed)


def _sample(domain: Domain) -> Stage:
    recipe = domain.recipe

    def body(context: StageContext) -> Metrics:
        from plumbline.sampling import sample_to_folder

        rows = prompts_to_sample(domain.prompts("train", "validation"), recipe)
        policies = {name: _sampled_policy(domain, name) for name in recipe.sample.policies}
        return sample_to_folder(policies, rows, recipe.sample, context.folder, context.scratch, seed=recipe.seed)

    config = {**recipe.sample.model_dump(mode="json"), **_splits(recipe)}
    files = {"prompts": _files(recipe.data.prompts)}
    for name in recipe.sample.policies:
        if name not in ("sft", "base"):
            files[name] = sorted(path for path in Path(name).iterdir() if path.suffix in (".safetensors", ".json"))
    return Stage("sample", "Sampling responses", "responses", config, files, ("sft",), body, recipe.seed)


def prompts_to_sample(rows: list[PromptRow], recipe: Recipe) -> list[PromptRow]:
    """Those of the training and validation prompts that are sampled: in the order of their keys, up to the limit."""
    return sorted(rows, key=lambda row: prompt_key(row.prompt))[: recipe.sample.prompts]


def _sampled_policy(domain: Domain, name: str) -> Path:
    """The folder of a policy to sample from; its tokenizer and chat template must be those of the SFT model."""
    sft = domain.model_of("sft")
    if name == "sft":
        return sft
    folder = domain.base_model if name == "base" else Path(name)
    check_fits(identify(sft), identify(folder), expected_name="the SFT model", found_name=f"the policy {name}")
    return folder


def _preferences(domain: Domain) -> Stage:
    recipe = domain.recipe

    def body(context: StageContext) -> Metrics:
        from plumbline.preferences.snapshot import write_snapshot

        with domain.service() as service:
            snapshot = write_snapshot(service, context.folder)
        return {
            "judgements": snapshot.judgements,
            "people_judgements": snapshot.people,
            "simulated_judgements": snapshot.simulated_judgements,
            "annotators": len(snapshot.annotators),
            "snapshot": snapshot.hash,
        }

    files = {"imported": [file.path for file in recipe.data.preferences]}
    after = ("sample", "judgements") if recipe.data.prompts else ("judgements",)
    config = {"judgements_per_prompt": recipe.annotate.judgements_per_prompt}
    return Stage(
        "preferences", "Taking a snapshot of the preferences", "preferences", config, files, after, body, recipe.seed
    )


def _reward(domain: Domain) -> Stage:
    return _reward_model(domain, "reward", "Training the reward model", part="policy", seed=domain.recipe.seed)


def _judge(domain: Domain) -> Stage:
    return _reward_model(domain, "judge", "Training the judge", part="judge", seed=domain.recipe.seed + 1)


def _watch(domain: Domain) -> Stage:
    return _reward_model(
        domain, "watch", "Training the watched reward model", part="watch", seed=domain.recipe.seed + 2
    )


def _reward_model(domain: Domain, name: str, what: str, *, part: Part, seed: int) -> Stage:
    recipe = domain.recipe

    def body(context: StageContext) -> Metrics:
        from reward import train_reward

        train, evaluation = domain.pairs(part, "train"), domain.held_out_pairs(part)
        sft = domain.model_of("sft")
        return train_reward(sft, train, evaluation, recipe.reward, context.folder, context.scratch, seed=seed)

    settings = recipe.reward.model_dump(mode="json", exclude={"judge_share", "watch_share"})
    # The name of the last key is that of the first manifests, with which finished stages must stay up to date.
    config = {**settings, **_shares(recipe, part), **_splits(recipe), "half": part}
    return Stage(name, what, "model", config, {}, ("sft", "preferences"), body, seed)


def _shares(recipe: Recipe, part: Part) -> dict[str, Any]:
    """The shares that decide which preferences are in a part; without watching, what older manifests have."""
    reward = recipe.reward
    shares = {} if part == "watch" else {"judge_share": reward.judge_share}
    if part != "judge" and reward.watch_share > 0:
        shares["watch_share"] = reward.watch_share
    return shares


def _align(domain: Domain, section: AlignSection) -> Stage:
    recipe = domain.recipe

    def dpo(context: StageContext) -> Metrics:
        from rlhf.dpo import train_dpo

        train, evaluation = domain.pairs("policy", "train"), domain.held_out_pairs("policy")
        sft = domain.model_of("sft")
        return train_dpo(sft, train, evaluation, section, context.folder, context.scratch, seed=recipe.seed)

    def ppo(context: StageContext) -> Metrics:
        from datasets import Dataset

        from rlhf.ppo import train_ppo

        sft, reward = domain.model_of("sft"), domain.model_of("reward")
        check_fits(identify(sft), identify(reward), expected_name="the SFT model", found_name="the reward model")
        train = Dataset.from_list([{"prompt": row.prompt} for row in domain.prompts("train")])
        held_out = domain.prompts("validation")
        evaluation = Dataset.from_list([{"prompt": row.prompt} for row in held_out]) if held_out else None
        return train_ppo(
            sft,
            reward,
            train,
            evaluation,
            section,
            context.folder,
            context.scratch,
            seed=recipe.seed,
            watch=domain.model_of("watch") if recipe.watches else None,
        )

    config = {**section.model_dump(mode="json"), **_splits(recipe)}
    if section.method == "dpo":
        config |= _shares(recipe, "policy")
        return Stage(section.name, "Aligning by DPO", "model", config, {}, ("sft", "preferences"), dpo, recipe.seed)
    files = {"prompts": _files(recipe.data.prompts)}
    watch = ("watch",) if recipe.watches else ()
    preferences = () if recipe.data.prompts else ("preferences",)
    after = ("sft", "reward", *watch, *preferences)
    return Stage(section.name, "Aligning by PPO", "model", config, files, after, ppo, recipe.seed)


def _votes_of_arena(domain: Domain) -> dict[str, Any]:
    """The arena's leaderboard for the report, where there are votes."""
    from plumbline.preferences.leaderboard import leaderboard_of

    section = domain.recipe.annotate.arena
    if section is None:
        return {}
    with domain.service() as service:
        board = leaderboard_of(service, section, compared=len(section.compared(domain.recipe.align_names)))
    return {"arena": board} if board["votes"]["counted"] else {}


def _compare(domain: Domain) -> Stage:
    recipe = domain.recipe
    simulated = recipe.annotate.simulated

    def body(context: StageContext) -> Metrics:
        from plumbline.compare import compare
        from plumbline.lineage import facts_for_report

        prompts = domain.prompts("test") + domain.unseen_benchmark()
        if not prompts:
            raise UserError("no prompt is left for the comparison: raise data.test, or name a data.benchmark.")
        policies = {"base": domain.base_model, "sft": domain.model_of("sft")}
        policies |= {name: domain.model_of(name) for name in recipe.align_names}
        return compare(
            policies,
            baselines=["sft", "base"],
            judge=domain.model_of("judge") if recipe.reward.judge_share > 0 else None,
            utility=simulated.utility if simulated else None,
            prompts=prompts,
            section=recipe.compare,
            folder=context.folder,
            scratch=context.scratch,
            seed=recipe.seed,
            facts=facts_for_report(domain.run, recipe) | _votes_of_arena(domain),
        )

    config = {**recipe.compare.model_dump(mode="json"), **_splits(recipe), "policies": recipe.align_names}
    files = {"prompts": _files(recipe.data.prompts), "benchmark": _files(recipe.data.benchmark)}
    if simulated:
        files["utility"] = [simulated.utility]
    judge = ("judge",) if recipe.reward.judge_share > 0 else ()
    prompts = () if recipe.data.prompts else ("preferences",)
    after = ("sft", *prompts, *judge, *recipe.align_names)
    return Stage("compare", "Comparing aligned with baseline", "comparison", config, files, after, body, recipe.seed)
