"""What the log of a watched PPO run shows: figures, and a picture of both scores against √KL (arXiv:2210.10760)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

Entry = Mapping[str, float]

SCORES = {"objective/scores": ("optimised", "#c2410c"), "objective/watched_scores": ("watched", "#1d4ed8")}
LINES = ("-", "--", ":", "-.")


def watched_entries(history: Sequence[Entry]) -> list[Entry]:
    """The log entries of rollouts that were watched."""
    return [entry for entry in history if "objective/watched_scores" in entry]


def seen_in(entries: Sequence[Entry]) -> list[Entry]:
    """The log entries of the rollouts in which over-optimisation was seen."""
    return [entry for entry in entries if entry.get("watch/overoptimization")]


def watch_metrics(entries: Sequence[Entry], action: str) -> dict[str, Any]:
    """What a stage tells of a watched run.

    Args:
        entries: as `watched_entries` gives them. Where an entry stands for several rollouts, they count as one.
        action: `on_overoptimization`.

    Returns:
        `overoptimization_tests` (windows compared) and `overoptimization_seen` (how often); where it was seen
        `overoptimization_episode` (the first time, in episodes), `overoptimization_action`, and after `raise_kl`
        `kl_coef_last` (of the last rollout). Nothing where nothing was logged.
    """
    if not entries:
        return {}
    seen = seen_in(entries)
    metrics: dict[str, Any] = {
        "overoptimization_tests": sum("watch/watched_z" in entry for entry in entries),
        "overoptimization_seen": len(seen),
    }
    if seen:
        metrics |= {"overoptimization_episode": int(seen[0]["episode"]), "overoptimization_action": action}
        if action == "raise_kl":
            metrics["kl_coef_last"] = entries[-1]["objective/kl_coef"]
    return metrics


def root_kl(entry: Entry) -> float:
    """The square root of the KL in nats; its estimate may be a little below 0 at the start."""
    return max(0.0, entry["objective/kl"]) ** 0.5


def draw_scores(runs: Mapping[str, Sequence[Entry]], output: Path) -> None:
    """Write a figure of one or several runs, the same bytes for the same numbers.

    Args:
        runs: log entries of the rollouts, by the run's name. Where over-optimisation was first seen in the first of
            them, there is a line.
        output: `.svg`, or another format that matplotlib knows.
    """
    style = {"svg.fonttype": "none", "svg.hashsalt": output.stem, "axes.spines.top": False, "axes.spines.right": False}
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(7.6, 4.2), layout="constrained")
        axes = figure.add_subplot()
        for number, (run, entries) in enumerate(runs.items()):
            for name, (label, colour) in SCORES.items():
                points = [(root_kl(entry), entry[name]) for entry in entries]
                axes.plot(*zip(*points, strict=True), LINES[number % 4], color=colour, label=f"{label}, {run}")
        for entry in seen_in(next(iter(runs.values())))[:1]:
            axes.axvline(root_kl(entry), color="#6b7280", linewidth=1)
            axes.annotate(
                "seen", (root_kl(entry), axes.get_ylim()[1]), (-4, -4), textcoords="offset points", ha="right", va="top"
            )
        axes.set_xlabel("√KL to the start, √nats per response")
        axes.set_ylabel("mean score of a rollout")
        axes.legend(frameon=False, loc="upper left")
        figure.savefig(output, metadata={"Date": None, "Creator": None} if output.suffix == ".svg" else None)
