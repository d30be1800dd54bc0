"""The report's figures, as SVG that takes its colours from the page, so that they follow light and dark.

Every figure is drawn with marker colours, which are then replaced by CSS variables.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from io import StringIO
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from plumbline.compare.replies import Replies
from plumbline.compare.statistics import Floats
from plumbline.compare.wording import label

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, GRID, PAPER = "#010101", "#020202", "#030303"
COLOURS = tuple(f"#0404{number:02x}" for number in range(1, 9))
VARIABLES = {INK: "--ink-soft", GRID: "--line", PAPER: "--paper"} | {
    colour: f"--policy-{number}" for number, colour in enumerate(COLOURS)
}
WHOLE, HALF = 7.6, 5.2
"""Widths in inches of figures that take the page's whole or half width: text is the same size in both."""

STYLE = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": GRID,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": GRID,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.linewidth": 0.7,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
}


def colour_of(policies: Sequence[str], policy: str) -> str:
    """The marker colour of a policy: the same in every figure."""
    return COLOURS[list(policies).index(policy) % len(COLOURS)]


def win_rate_figure(rows: list[dict[str, Any]], policies: Sequence[str]) -> str:
    """Win rates with their intervals, one line each, grouped as in the table."""
    with matplotlib.rc_context(STYLE):
        figure, axes = _figure(WHOLE, 0.8 + 0.36 * len(rows))
        for place, row in enumerate(rows):
            colour = colour_of(policies, row["policy"])
            axes.plot([row["low"] * 100, row["high"] * 100], [place, place], color=colour, linewidth=3)
            axes.plot(row["win_rate"] * 100, place, "o", color=colour, markersize=8)
        axes.axvline(50, color=INK, linewidth=1, linestyle=(0, (4, 3)))
        names = [f"{label(row['policy'])} over {label(row['baseline'])}, {row['judge']}" for row in rows]
        axes.set_yticks(range(len(rows)), names)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlim(0, 100)
        axes.set_xlabel("preferred, % (a tie counts half)")
        axes.grid(axis="y", visible=False)
        return _svg(figure, "win-rates")


def distribution_figure(replies: dict[str, Replies], judge: str) -> str:
    """How the scores of each policy's responses are spread: a smoothed histogram each, one above the other."""
    with matplotlib.rc_context(STYLE):
        figure, axes = _figure(HALF, 0.8 + 0.55 * len(replies))
        everyone = np.concatenate([own.scores[judge].ravel() for own in replies.values()])
        spread = float(np.ptp(everyone)) or 1.0
        grid = np.linspace(everyone.min() - 0.05 * spread, everyone.max() + 0.05 * spread, 200)
        for place, (name, own) in enumerate(replies.items()):
            values = own.scores[judge].ravel()
            height = _density(values, grid, spread)
            base = len(replies) - 1 - place
            colour = colour_of(list(replies), name)
            axes.fill_between(grid, base, base + 0.82 * height, color=colour, alpha=0.35, linewidth=0)
            axes.plot(grid, base + 0.82 * height, color=colour, linewidth=1.4)
            axes.plot([values.mean()] * 2, [base, base + 0.82], color=colour, linewidth=1.6, linestyle=(0, (2, 2)))
        axes.set_yticks(range(len(replies)), [label(name) for name in reversed(list(replies))])
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel(f"{judge} of a response (dashed: mean)")
        axes.grid(axis="y", visible=False)
        return _svg(figure, f"distribution-{judge}")


def _density(values: Floats, grid: Floats, spread: float) -> Floats:
    """Gaussian kernel density with Scott's bandwidth, scaled to a highest value of 1."""
    width = max(float(values.std()) * len(values) ** -0.2, spread / 100)
    density = np.exp(-0.5 * ((grid[:, None] - values) / width) ** 2).sum(axis=1)
    return np.asarray(density / density.max())


def length_figure(replies: dict[str, Replies], judge: str) -> str:
    """Score against length: every response, and the mean in five bins of equal size for each policy."""
    with matplotlib.rc_context(STYLE):
        figure, axes = _figure(HALF, 3.2)
        for name, own in replies.items():
            colour = colour_of(list(replies), name)
            words, scores = own.words.ravel(), own.scores[judge].ravel()
            axes.scatter(words, scores, s=9, color=colour, alpha=0.3, linewidths=0)
            bins = [part for part in np.array_split(np.argsort(words, kind="stable"), 5) if len(part)]
            line = [(words[part].mean(), scores[part].mean()) for part in bins]
            axes.plot(*zip(*line, strict=True), "-o", color=colour, linewidth=2, markersize=4, label=label(name))
        axes.set_xlabel("length of a response, words")
        axes.set_ylabel(judge)
        _legend(axes)
        return _svg(figure, f"length-{judge}")


def kl_figure(policies: dict[str, dict[str, Any]], judge: str, reference: str) -> str:
    """Mean score against the KL to the reference, with the intervals of both."""
    with matplotlib.rc_context(STYLE):
        figure, axes = _figure(HALF, 3.0)
        key = f"kl_to_{reference}"
        for name, metrics in policies.items():
            if key not in metrics:
                continue
            x, y = metrics[key], metrics[f"{judge}_mean"]
            colour = colour_of(list(policies), name)
            axes.plot([metrics["kl_low"], metrics["kl_high"]], [y, y], color=colour, linewidth=2)
            axes.plot([x, x], [metrics[f"{judge}_low"], metrics[f"{judge}_high"]], color=colour, linewidth=2)
            axes.plot(x, y, "o", color=colour, markersize=8, label=label(name))
        axes.margins(x=0.12, y=0.15)
        axes.set_xlabel(f"KL to {label(reference)}, nats per response")
        axes.set_ylabel(f"mean {judge}")
        _legend(axes)
        return _svg(figure, f"kl-{judge}")


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def _legend(axes: Axes) -> None:
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=5, frameon=False)


def _svg(figure: Figure, name: str) -> str:
    """The figure as an `<svg>` element: the same bytes each time, scaling with the page, coloured by CSS variables."""
    out = StringIO()
    with matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = out.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r'id="([^"]+)"', rf'id="{name}-\1"', svg)
    svg = re.sub(r'(url\(#|href="#)', rf"\g<1>{name}-", svg)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    for colour, variable in VARIABLES.items():
        svg = svg.replace(colour, f"var({variable})")
    return svg.replace("<svg ", '<svg aria-hidden="true" ', 1)
