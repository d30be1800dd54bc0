"""Lineage: from any stage folder back to every judgement, data file and base model that it was made from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from plumbline.errors import UserError
from plumbline.measured import watch_note
from plumbline.model_files import hub_name
from plumbline.recipe import Recipe
from plumbline.runs import InputRef, Manifest, Run


@dataclass(frozen=True)
class Node:
    """One thing in a lineage: a stage's output, a model, a data file or the judgements of a store."""

    kind: str
    name: str
    hash: str
    facts: dict[str, Any] = field(default_factory=dict)
    made_from: list[Node] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """The tree as plain values."""
        return asdict(self)

    def walk(self) -> Iterator[Node]:
        """This node and everything below it."""
        yield self
        for node in self.made_from:
            yield from node.walk()


def lineage_of(folder: Path) -> Node:
    """The lineage of a finished stage folder, such as `runs/x/dpo`.

    Raises:
        UserError: the folder has no manifest.
    """
    folder = folder.resolve() if folder.name in ("", "..") else folder
    manifest = Manifest.read(folder)
    if manifest is None:
        raise UserError(f"{folder} has no manifest.json: name a finished stage folder, such as runs/NAME/dpo.")
    return _node(folder, manifest)


def lineage_of_manifest(manifest: Manifest, run: Run) -> Node:
    """The lineage of a stage whose folder is not in place yet."""
    return _node(run.folder(manifest.stage), manifest)


def _node(folder: Path, manifest: Manifest) -> Node:
    facts: dict[str, Any] = {"folder": str(folder), "created": manifest.created, "metrics": manifest.metrics}
    if manifest.model:
        facts["model"] = _with_places_of_now(manifest.model, folder.parent, manifest.run_folder)
    if "snapshot" in manifest.metrics:
        facts["snapshot"] = str(folder / f"{manifest.metrics['snapshot']}.parquet")
    children = [_child(folder.parent, reference, manifest.run_folder) for reference in manifest.inputs.values()]
    return Node("stage", manifest.stage, manifest.output_hash, facts, children)


def _child(run_folder: Path, reference: InputRef, recorded: list[str]) -> Node:
    if reference.kind == "judgements":
        source = _place_of_now(reference.source, run_folder, recorded)
        return Node(reference.kind, source, reference.hash, reference.facts)
    if reference.kind != "stage":
        return Node(reference.kind, reference.source, reference.hash, reference.facts)
    folder = run_folder / reference.source
    manifest = Manifest.read(folder)
    if manifest is None:
        return Node("stage", reference.source, reference.hash, {"note": "no longer there"})
    node = _node(folder, manifest)
    if manifest.output_hash != reference.hash:
        return Node(
            "stage", reference.source, reference.hash, {**node.facts, "note": "was redone since"}, node.made_from
        )
    return node


def _with_places_of_now(value: Any, run_folder: Path, recorded: list[str]) -> Any:
    """A model's identity with the places in the run folder as they are now."""
    if isinstance(value, dict):
        return {key: _with_places_of_now(part, run_folder, recorded) for key, part in value.items()}
    return _place_of_now(value, run_folder, recorded) if isinstance(value, str) else value


def _place_of_now(place: str, run_folder: Path, recorded: list[str]) -> str:
    """A place that was in the run folder when it was recorded, in the run folder as it is now called.

    `recorded` has the names of that run folder: a place elsewhere whose folder has the same last name is not in it.
    """
    now = run_folder / Path(place).name
    return str(now) if str(Path(place).parent) in recorded and now.exists() else place


def as_lines(node: Node, prefix: str = "", tail: str = "", *, places: bool = True) -> list[str]:
    """The tree as lines of text, with box-drawing branches; without `places`, files and models by their names alone."""
    lines = [f"{prefix}{tail}{_line(node, places)}"]
    below = prefix + {"": "", "├── ": "│   ", "└── ": "    "}[tail]
    for child in node.made_from:
        last = child is node.made_from[-1]
        lines += as_lines(child, below, "└── " if last else "├── ", places=places)
    return lines


def model_name(node: Node) -> str:
    """A base model's name as others may read it: its name on the hub, or that of its folder."""
    hub = hub_name(Path(node.facts["source"]))
    return hub[0] if hub else Path(node.name).name


def _line(node: Node, places: bool) -> str:
    facts = node.facts
    note = f"  ({facts['note']})" if facts.get("note") else ""
    short = node.hash[:12]
    if node.kind == "judgements":
        people = facts.get("judgements", 0) - facts.get("simulated", 0)
        annotators = ", ".join(f"{name} {count}" for name, count in sorted(facts.get("by_annotator", {}).items()))
        return (
            f"judgements {short}: {people} by people, {facts.get('simulated', 0)} simulated "
            f"({annotators or 'nobody yet'}){f'  {node.name}' if places else ''}"
        )
    if node.kind == "model":
        return f"base model {short} (weights {facts['base_hash'][:12]}): {node.name if places else model_name(node)}"
    if node.kind == "file":
        return f"file {short}: {node.name if places else Path(node.name).name}"
    described = f"{node.name} {short}"
    if "snapshot" in facts:
        snapshot = Path(facts["snapshot"])
        described += f": every judgement is in {snapshot if places else snapshot.relative_to(snapshot.parents[1])}"
    return described + note


def simulated_share(node: Node) -> float | None:
    """Share of the judgements below a node that simulated annotators gave; None where there are no judgements."""
    counts = {
        n.hash: (n.facts.get("judgements", 0), n.facts.get("simulated", 0))
        for n in node.walk()
        if n.kind == "judgements"
    }
    total = sum(judgements for judgements, _ in counts.values())
    return sum(simulated for _, simulated in counts.values()) / total if total else None


def describe_model(folder: Path, place: Path) -> dict[str, Any]:
    """The identity of a model in `folder`, as it will be when the folder is in its `place`, for its manifest."""
    from plumbline.models import identify

    identity = identify(folder).to_json()
    return {key: str(place) if value == str(folder) else value for key, value in identity.items()}


def facts_for_report(run: Run, recipe: Recipe) -> dict[str, Any]:
    """What a comparison's report says about the run: its name, where its judgements are from, its lineage."""
    trees = [lineage_of(run.folder(name)) for name in (*recipe.align_names, "preferences") if run.manifest(name)]
    judge, reward, watch = (run.manifest(name) for name in ("judge", "reward", "watch"))
    watched = {name: watch_note(made.metrics) for name in recipe.align_names if (made := run.manifest(name))}
    shares = [share for tree in trees if (share := simulated_share(tree)) is not None]
    return {
        "run": run.name,
        "domain": recipe.name,
        "base_model": recipe.model.name,
        "simulated_share": max(shares, default=None),
        "judge_hash": judge.output_hash if judge else None,
        "reward_hash": reward.output_hash if reward else None,
        "judge_metrics": judge.metrics if judge else {},
        "lineage": [line for tree in trees[: len(recipe.align_names)] for line in as_lines(tree, places=False)],
        "watch_metrics": watch.metrics if watch else {},
        "watched": {name: note for name, note in watched.items() if note},
        "methods": {section.name: section.method for section in recipe.align},
    }
