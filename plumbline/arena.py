"""The arena of a run: which of its policies answer, which prompts can be drawn, and what the votes say."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from plumbline.domain import Domain
from plumbline.errors import UserError
from plumbline.models import identify
from plumbline.preferences.arena import Arena
from plumbline.preferences.arena_rules import ArenaRules, Contender
from plumbline.preferences.rules import Rules
from plumbline.preferences.source_names import SourceNames

if TYPE_CHECKING:
    from annotate_ui.arena import ArenaSetup
    from plumbline.preferences.store import Store
    from plumbline.recipe_annotate import ArenaSection


def arena_section(domain: Domain) -> ArenaSection:
    """The recipe's section `annotate.arena`.

    Raises:
        UserError: there is none.
    """
    section = domain.recipe.annotate.arena
    if section is None:
        raise UserError("the recipe has no `annotate.arena` section: add one (`arena: {}` takes all defaults).")
    return section


def open_arena(domain: Domain, store: Store) -> ArenaSetup:
    """The arena of a run's finished policies, to be served.

    Raises:
        UserError: the recipe has no arena, names a policy that it does not make, or the run has not made enough yet.
    """
    from annotate_ui.arena import ArenaSetup, Sampling, Speakers

    section = arena_section(domain)
    folders = policy_folders(domain, section)
    contenders = tuple(Contender(name, identify(folder).weights_hash) for name, folder in folders.items())
    prompts = tuple(row.prompt for row in domain.prompts("test"))
    mask = domain.recipe.annotate.mask_names
    names = SourceNames.of_run(domain.recipe, well_known=mask)
    quiz = Rules.of(domain.recipe).quiz
    rules = ArenaRules(contenders, section.baseline, prompts, section.turns, names, mask, quiz)
    return ArenaSetup(
        Arena(store, project=domain.recipe.name, rules=rules),
        Speakers(folders, Sampling(section.temperature, section.max_new_tokens, section.seconds)),
        at_once=section.at_once,
        votes_per_person=section.votes_per_person,
        margin=section.margin,
        compared=len(section.compared(domain.recipe.align_names)),
    )


def policy_folders(domain: Domain, section: ArenaSection) -> dict[str, Path]:
    """The folders of the policies that answer, by name: the baseline and those of the others that are finished.

    Raises:
        UserError: a name is no policy of the recipe, or the baseline or all others are not finished.
    """
    known = ["base", "sft", *domain.recipe.align_names]
    asked = [section.baseline, *section.compared(domain.recipe.align_names)]
    unknown = [name for name in asked if name not in known]
    if unknown:
        raise UserError(f"annotate.arena names the policy {unknown[0]!r}; this recipe makes {', '.join(known)}.")
    ready = [name for name in asked if name == "base" or domain.run.manifest(name) is not None]
    if section.baseline not in ready or len(ready) < 2:
        missing = ", ".join(name for name in asked if name not in ready) or "another policy"
        raise UserError(
            f"the arena opens when the run has the baseline {section.baseline!r} and a policy to compare it with; "
            f"missing: {missing}. Run the chain further first."
        )
    return {name: domain.base_model if name == "base" else domain.model_of(name) for name in ready}


def arena_results(domain: Domain) -> dict[str, Any]:
    """What the votes say so far (`plumbline.preferences.leaderboard`).

    Raises:
        UserError: the recipe has no arena.
        NoStoreError: there is no store yet.
    """
    from plumbline.preferences.leaderboard import leaderboard_of

    section = arena_section(domain)
    with domain.service(create=False) as service:
        return leaderboard_of(service, section, compared=len(section.compared(domain.recipe.align_names)))
