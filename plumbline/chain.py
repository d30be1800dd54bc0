"""The chain: run a recipe's stages in order, skip what is up to date, stop where people are needed.

Nothing here does a stage's work; it decides which stages run, in which order, and with which inputs.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from plumbline.domain import Domain
from plumbline.errors import UserError, WaitingForPeople
from plumbline.inputs import inputs_of
from plumbline.models import trust_remote_code
from plumbline.recipe import Recipe
from plumbline.recipe_check import Trainer, load_recipe
from plumbline.recipe_yaml import Source, nearest
from plumbline.runs import REDO, Manifest, Run, fingerprint_of
from plumbline.stages import Stage, stages_of

log = logging.getLogger(__name__)

State = Literal["up to date", "to run", "to resume"]


@dataclass(frozen=True)
class Planned:
    """A stage and whether it has to run, with the reason."""

    stage: Stage
    state: State
    why: str


def trainers() -> dict[str, Trainer]:
    """The trainers whose fields the recipe's sections take, completed by plumbline's own defaults."""
    from trl import DPOConfig, RewardConfig, SFTConfig

    from plumbline.training import completed
    from rlhf.ppo import PPOConfig
    from rlhf.ppo.train import DEFAULTS as PPO_DEFAULTS

    def trl(config: type) -> Trainer:
        return Trainer(config, lambda named: completed(named, {}))

    return {
        "adapt": trl(SFTConfig),
        "sft": trl(SFTConfig),
        "reward": trl(RewardConfig),
        "dpo": trl(DPOConfig),
        "ppo": Trainer(PPOConfig, lambda named: completed(named, PPO_DEFAULTS)),
    }


def read_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read and check a recipe against the trainers of this installation."""
    Source.read(path)  # a file that cannot be read is told before the trainers' slow imports
    return load_recipe(path, overrides=overrides, trainers=trainers())


class Chain:
    """A recipe's stages in a run folder.

    Args:
        recipe: the checked recipe.
        recipe_path: its file, for messages.
        run: the run folder.
        notify: gets one sentence for each thing a user wants to know.
        arguments: what stands behind a command's name to work on this chain again, for messages.
    """

    def __init__(
        self, recipe: Recipe, recipe_path: Path, run: Run, notify: Callable[[str], None], *, arguments: str = ""
    ) -> None:
        self.recipe, self.recipe_path, self.run, self.notify = recipe, recipe_path, run, notify
        self.arguments = arguments or f"{recipe_path} --run {run.name}"
        self.domain = Domain(recipe, run, notify)
        self.stages = stages_of(self.domain)

    def names(self) -> list[str]:
        """The stages' names in order, each aligned policy under its own."""
        return [stage.name for stage in self.stages]

    def select(self, name: str) -> list[str]:
        """The stages that a name on the command line means: one, or all aligned policies for `align`.

        Raises:
            UserError: there is no such stage in this recipe.
        """
        if name == "align" and self.recipe.align:
            return self.recipe.align_names
        if name == "annotate":
            return ["preferences"]
        if name not in self.names():
            raise UserError(f"there is no stage {name!r} in this recipe{nearest(name, [*self.names(), 'align'])}")
        return [name]

    def plan(self) -> list[Planned]:
        """What would run now and why; nothing is changed."""
        with trust_remote_code(self.recipe.trust_remote_code):
            return self._plan()

    def _plan(self) -> list[Planned]:
        planned: list[Planned] = []
        stale: dict[str, str] = {}
        for stage in self.stages:
            cause = next((name for name in stage.after if name in stale), None)
            why = f"{cause} will change" if cause else self._why_stale(stage)
            if why:
                stale[stage.name] = why
                resumable = not cause and self.run.partial(stage.name).exists()
                planned.append(Planned(stage, "to resume" if resumable else "to run", why))
            else:
                planned.append(Planned(stage, "up to date", "inputs and configuration are unchanged"))
        return planned

    def run_stages(
        self, *, until: str | None = None, only: Collection[str] | None = None, force: Collection[str] = ()
    ) -> list[Manifest]:
        """Run what is not up to date, in order.

        Args:
            until: the last stage to run.
            only: run these stages alone; what they build on must be there.
            force: stages to redo although they are up to date, with all that depends on them. Interrupted and asked
                for again, this goes on: what it has redone stays, and the stage it was in resumes.

        Returns:
            The manifests of the selected stages, run or up to date.

        Raises:
            WaitingForPeople: judgements are missing at the annotation stage.
            UserError: bad input, or another process works on the run folder.
        """
        selected = self._selected(until, only)
        to_redo = self._with_dependents({name for given in force for name in self.select(given)}) & selected
        manifests: list[Manifest] = []
        with self.run.lock(), trust_remote_code(self.recipe.trust_remote_code):
            if only is not None:
                self.tell_stale_inputs(selected)
            left = self._begin_redo(to_redo)
            for stage in self.stages:
                if stage.name in selected:
                    manifests.append(self._run_one(stage, forced=stage.name in left))
            self.run.end_redo()
        return manifests

    def _with_dependents(self, names: set[str]) -> set[str]:
        """Some stages and all that build on them."""
        for stage in self.stages:
            if names.intersection(stage.after):
                names = names | {stage.name}
        return names

    def _begin_redo(self, stages: set[str]) -> set[str]:
        """The stages still to be redone; says which the forced run had redone before it was interrupted."""
        left = self.run.begin_redo(stages)
        done = [name for name in self.names() if name in stages - left]
        if done:
            self.notify(
                f"going on with the forced run that was interrupted; redone already: {', '.join(done)} "
                f"(delete {self.run.root / REDO} to redo them again)"
            )
        return left

    def _selected(self, until: str | None, only: Collection[str] | None) -> set[str]:
        if only is not None:
            return {name for given in only for name in self.select(given)}
        if until is None:
            return set(self.names())
        last = max(self.names().index(name) for name in self.select(until))
        return set(self.names()[: last + 1])

    def tell_stale_inputs(self, selected: Collection[str]) -> None:
        """Say which finished stages, not selected here, would change if they were run: their old output is used."""
        needed = {name for stage in self.stages if stage.name in selected for name in stage.after}
        for planned in self.plan():
            name = planned.stage.name
            if planned.state != "up to date" and name in needed - set(selected) and self.run.manifest(name):
                self.notify(f"note: {name} would change if it were run ({planned.why}); its old output is used.")

    def _run_one(self, stage: Stage, *, forced: bool) -> Manifest:
        from plumbline.annotation import collect_judgements, fill_store
        from plumbline.lineage import describe_model
        from plumbline.modelcard import write_card

        if stage.name == "preferences":
            self._wait_for_people(collect_judgements(self.domain))
        inputs = inputs_of(self.domain, stage)
        current = self.run.manifest(stage.name)
        if current and not forced and current.fingerprint == self._fingerprint(stage, inputs):
            self.notify(f"{stage.name}: up to date")
            return current
        self.notify(f"{stage.name}: {stage.what[0].lower()}{stage.what[1:]}")
        log.info("stage %s: inputs %s", stage.name, {name: ref.hash[:12] for name, ref in inputs.items()})
        place, domain = self.run.folder(stage.name), self.recipe.name
        manifest = self.run.execute(
            stage.name,
            config=stage.config,
            seed=stage.seed,
            inputs=inputs,
            body=stage.body,
            describe=(lambda folder: describe_model(folder, place)) if stage.makes == "model" else _nothing,
            finish=(lambda folder, made: write_card(folder, made, self.run, domain))
            if stage.makes == "model"
            else _nothing,
        )
        if stage.name == "sample":
            fill_store(self.domain)
        log.info("stage %s: done in %.1f s, metrics %s", stage.name, manifest.wall_seconds, manifest.metrics)
        self.notify(f"{stage.name}: done in {manifest.wall_seconds:.0f} s{_shown(manifest.metrics)}")
        return manifest

    def _wait_for_people(self, progress: Any) -> None:
        if not self.recipe.data.prompts:
            return
        required = min(self.recipe.annotate.required or progress.required, progress.required)
        missing = max(required - progress.done, 0)
        if missing:
            raise WaitingForPeople(
                missing, required, self.arguments, skipped=progress.skipped, flagged=progress.flagged
            )

    def _fingerprint(self, stage: Stage, inputs: dict[str, Any]) -> str:
        return fingerprint_of(stage.name, stage.config, stage.seed, inputs)

    def _why_stale(self, stage: Stage) -> str | None:
        manifest = self.run.manifest(stage.name)
        if manifest is None:
            return "not made yet"
        inputs = inputs_of(self.domain, stage)
        if manifest.fingerprint == self._fingerprint(stage, inputs):
            return None
        changed = [
            name
            for name, ref in inputs.items()
            if name not in manifest.inputs or manifest.inputs[name].hash != ref.hash
        ]
        return f"changed: {', '.join(changed)}" if changed else "its configuration changed"


def _nothing(*_: Any) -> None:
    """What stages that make no model do about identity and model card."""


SHOWN_METRICS = {
    "eval_loss": "held-out loss",
    "responses": "responses",
    "judgements": "judgements",
    "accuracy": "held-out accuracy",
    "length_accuracy": "longer-is-better accuracy",
    "eval_rewards/accuracies": "held-out accuracy",
    "reward": "held-out reward",
    "kl": "KL to the SFT model",
    "stopped": "stopped by",
    "overoptimization_seen": "over-optimisations seen",
    "prompts": "prompts",
}
"""Metrics that are said when a stage is done, in these words."""


def _shown(metrics: dict[str, Any]) -> str:
    shown = [
        f"{label} {metrics[name]:.3g}" if isinstance(metrics[name], float) else f"{label} {metrics[name]}"
        for name, label in SHOWN_METRICS.items()
        if name in metrics
    ]
    return f" ({', '.join(shown)})" if shown else ""
