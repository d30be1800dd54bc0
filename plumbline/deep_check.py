"""`plumbline check --deep`: the usual causes of failed PPO, measured on a run's own models before any training."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from rich.console import Console
from rich.table import Table

from plumbline.chain import Chain
from plumbline.conversations import Conversation, Split, split_of
from plumbline.datafiles import load_conversations
from plumbline.errors import UserError
from plumbline.models import check_fits, fastest_device, identify, trust_remote_code
from plumbline.recipe import AlignSection
from rlhf.ppo import Finding, deep_check, findings
from rlhf.ppo.memory import PROGRAM, MemoryPlan, machine_memory
from rlhf.ppo.train import make_trainer

WIDTH = 120

SPLITS: tuple[Split, ...] = ("train", "validation")
"""What PPO trains and evaluates on; the test prompts are the comparison's."""


@dataclass
class CheckedEntry:
    """What was found for one `align` entry.

    Attributes:
        name: the entry's.
        findings: in the order in which they are printed.
        skipped: what could not be measured yet, and which command makes what is missing.
    """

    name: str
    findings: list[Finding]
    skipped: list[str] = field(default_factory=list)

    @property
    def fails(self) -> bool:
        """Whether a finding fails."""
        return any(finding.verdict == "fails" for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        found = [finding.to_json() for finding in self.findings]
        return {"entry": self.name, "fails": self.fails, "findings": found, "skipped": self.skipped}


def check_entries(chain: Chain, *, samples: int) -> list[CheckedEntry]:
    """Check every `align` entry with `method: ppo` on the models that the run has.

    Args:
        chain: of a recipe that passed `plumbline.preflight`.
        samples: responses to sample for each entry.

    Raises:
        UserError: no entry is PPO, or the run has no policy yet.
    """
    sections = [section for section in chain.recipe.align if section.method == "ppo"]
    if not sections:
        raise UserError("--deep checks PPO, and no entry of `align` in this recipe has `method: ppo`.")
    if chain.run.manifest("sft") is None:
        raise UserError(
            f"{chain.run.root} has no fine-tuned policy to measure yet: `plumbline run {chain.arguments} --until sft` "
            "makes it; `--until reward` also makes the reward model."
        )
    with trust_remote_code(chain.recipe.trust_remote_code):
        chain.tell_stale_inputs({section.name for section in sections})
        return [_check(chain, section, samples) for section in sections]


def _check(chain: Chain, section: AlignSection, samples: int) -> CheckedEntry:
    domain = chain.domain
    policy = domain.model_of("sft")
    entry = CheckedEntry(section.name, [])
    reward = domain.model_of("reward") if chain.run.manifest("reward") else None
    watch = domain.model_of("watch") if chain.recipe.watches and chain.run.manifest("watch") else None
    if reward is None:
        entry.skipped.append(
            "everything about the reward, and its share of the memory: there is no reward model yet; "
            f"`plumbline run {chain.arguments} --until reward` makes it"
        )
    if chain.recipe.watches and watch is None:
        section = section.model_copy(update={"on_overoptimization": "warn"})  # the others need a model to watch
        entry.skipped.append(
            f"the watched reward model's share of the memory: `plumbline run {chain.arguments} --until watch` makes it"
        )
    too_large = _weights_that_do_not_fit(policy, section, roles=3 if reward is None else 4)
    if too_large:
        entry.findings.append(too_large)
        entry.skipped.append("everything that the models would have to be loaded for")
        return entry
    prompts, held_out = (
        Dataset.from_list([{"prompt": row.prompt} for row in domain.prompts(split)]) for split in SPLITS
    )
    with tempfile.TemporaryDirectory() as scratch:
        try:
            if reward:
                names = {"expected_name": "the SFT model", "found_name": "the reward model"}
                check_fits(identify(policy), identify(reward), **names)
            trainer, dropped = make_trainer(
                policy, reward, prompts, held_out, section, Path(scratch), seed=chain.recipe.seed, watch=watch
            )
        except UserError as error:
            entry.findings.append(findings.refused(str(error)))
            return entry
        except torch.OutOfMemoryError:
            entry.findings.append(findings.out_of_memory(machine_memory(fastest_device())[1], loading=True))
            return entry
        entry.findings = deep_check(
            trainer,
            samples=samples,
            pairs=domain.held_out_pairs("policy") if reward else None,
            demonstrations=_some_demonstrations(chain, samples) if reward else (),
            with_reward=reward is not None,
        )
    left_out = findings.room(dropped["dropped_prompts"], len(prompts), trainer.args.response_length)
    entry.findings.insert(len(entry.findings) - 1, left_out)
    return entry


def _weights_that_do_not_fit(policy: Path, section: AlignSection, *, roles: int) -> Finding | None:
    """A finding where not even the weights fit, so that nothing should be loaded; None where they do."""
    identity = identify(policy)
    available, where = machine_memory(fastest_device())
    weights = identity.parameters * 4
    names = ("policy", "reference", "critic", "reward")[: 1 if section.lora else roles]
    plan = MemoryPlan({"program": PROGRAM, **dict.fromkeys(names, weights)}, {}, {})
    finding = findings.memory(plan, available, where)
    return finding if finding.verdict == "fails" and not section.load_in_4bit else None


def _some_demonstrations(chain: Chain, count: int) -> list[Conversation]:
    """Demonstrations of the training split, from all over the files."""
    data = chain.recipe.data
    rows = [
        messages
        for messages in load_conversations(data.demonstrations)
        if split_of(messages, validation=data.validation, test=data.test) == "train"
        and messages[-1]["role"] == "assistant"
    ]
    return rows[:: max(1, len(rows) // count)][:count]


def print_findings(entries: list[CheckedEntry]) -> None:
    """Print the findings of each entry as a table, and below it what to do, to standard output."""
    out = Console(highlight=False, markup=False, width=WIDTH, soft_wrap=True)
    for entry in entries:
        out.print(f"\nbefore {entry.name}:")
        if entry.findings:
            out.print(_table(entry.findings))
        for finding in entry.findings:
            if finding.detail:
                out.print(f"{finding.what}: {finding.detail}")
        for finding in entry.findings:
            if finding.advice:
                out.print(f"{finding.verdict}: {finding.what}: {finding.advice}")
        for line in entry.skipped:
            out.print(f"skipped: {line}")
        count = {verdict: sum(one.verdict == verdict for one in entry.findings) for verdict in ("warning", "fails")}
        out.print(f"{entry.name}: {count['fails']} of {len(entry.findings)} checks fail, {count['warning']} warn")


def _table(found: list[Finding]) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("measured", "value", "healthy", "verdict"):
        table.add_column(heading, no_wrap=True)
    for finding in found:
        table.add_row(finding.what, finding.value, finding.healthy, finding.verdict)
    return table
