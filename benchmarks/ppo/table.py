"""From records of runs to tables, by the standard library alone."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

RunRecord = dict[str, Any]
"""`workload.Record` as it was written: lists with an entry for each rollout."""

WARM_UP = 1
"""Rollouts at the start of a run that no figure counts: the first one warms up caches and kernels."""


def _seconds(record: RunRecord, phase: str) -> float:
    """Mean seconds of a rollout, or of one of its phases."""
    whole, generation, scoring = (record[name][WARM_UP:] for name in ("seconds", "generation", "scoring"))
    total = {"rollout": sum(whole), "generation": sum(generation), "scoring": sum(scoring)}
    total["update"] = total["rollout"] - total["generation"] - total["scoring"]
    return total[phase] / len(whole)


def _tokens(record: RunRecord) -> float:
    """Mean response tokens of a rollout."""
    return statistics.mean(record["tokens"][WARM_UP:])


MEASURES: dict[str, Callable[[RunRecord, int], float]] = {
    "episodes/s": lambda record, batch: batch / _seconds(record, "rollout"),
    "response tokens/s": lambda record, batch: _tokens(record) / _seconds(record, "rollout"),
    "response tokens/s, generation": lambda record, batch: _tokens(record) / _seconds(record, "generation"),
    "response tokens/s, scoring": lambda record, batch: _tokens(record) / _seconds(record, "scoring"),
    "response tokens/s, update": lambda record, batch: _tokens(record) / _seconds(record, "update"),
    "rollout and its updates, s": lambda record, batch: _seconds(record, "rollout"),
    "… generation, s": lambda record, batch: _seconds(record, "generation"),
    "… scoring, s": lambda record, batch: _seconds(record, "scoring"),
    "… update, s": lambda record, batch: _seconds(record, "update"),
    "peak memory, MiB": lambda record, batch: record["peak_memory"],
    "… above the imports, MiB": lambda record, batch: record["peak_memory"] - record["base_memory"],
    "response tokens of an episode": lambda record, batch: _tokens(record) / batch,
}
"""What a run gives: (record, episodes of a rollout) to a figure. In the update each token is seen once an epoch but
counted once."""


def utilisation(record: RunRecord, batch: int, phase: str, peak: float) -> float:
    """Model FLOP/s utilisation of a phase in percent of the peak, which is in TFLOP/s."""
    return 100 * record["flops"][phase] * batch / _seconds(record, phase) / (peak * 1e12)


def spread(values: Sequence[float], center: Callable[[Sequence[float]], float] = statistics.median) -> str:
    """The centre of some values, and the lowest and highest of them."""
    return f"{_figure(center(values))} ({_figure(min(values))} to {_figure(max(values))})"


def _figure(value: float) -> str:
    digits = 3 if abs(value) < 1 else 2 if abs(value) < 10 else 1 if abs(value) < 100 else 0
    return f"{value:,.{digits}f}"


def speed_table(pairs: Sequence[tuple[RunRecord, RunRecord]], batch_size: int, peak_tflops: float | None = None) -> str:
    """Each measure of both sides and their ratio, as median (lowest to highest) over pairs of runs.

    Args:
        pairs: records (TRL's, plumbline's) of runs that followed each other; a ratio is one pair's.
        batch_size: episodes of a rollout.
        peak_tflops: of the processor; None leaves its utilisation out.
    """
    rows = []
    measures = dict(MEASURES)
    if peak_tflops is not None:
        measures |= {
            f"{phase}, % of {peak_tflops:g} TFLOP/s": partial(utilisation, phase=phase, peak=peak_tflops)
            for phase in ("generation", "scoring", "update")
        }
    for name, measure in measures.items():
        trl, ours = ([measure(pair[side], batch_size) for pair in pairs] for side in (0, 1))
        ratios = [mine / theirs for theirs, mine in zip(trl, ours, strict=True)]
        rows.append((name, spread(trl), spread(ours), spread(ratios)))
    return _table(("", "TRL 1.12.0", "plumbline", "plumbline / TRL"), rows)


def learning_table(runs: Sequence[tuple[RunRecord, RunRecord]], batch_size: int, points: int) -> str:
    """Reward against episodes: the mean over seeds (lowest to highest), and plumbline's minus TRL's of the same seed.

    Args:
        runs: records (TRL's, plumbline's) of one seed each; all have as many rollouts.
        batch_size: episodes of a rollout.
        points: rows of the table; a figure is the mean over the rollouts since the row before.
    """
    rollouts = len(runs[0][0]["scores"])
    edges = [round(point * rollouts / points) for point in range(points + 1)]
    rows, at_least, below = [], 0, 0
    for start, end in pairwise(edges):
        trl, ours = ([statistics.mean(run[side]["scores"][start:end]) for run in runs] for side in (0, 1))
        gains = [mine - theirs for theirs, mine in zip(trl, ours, strict=True)]
        at_least += statistics.mean(gains) >= 0
        below += statistics.mean(gains) < -2 * _standard_error(gains)
        columns = (spread(values, statistics.mean) for values in (trl, ours, gains))
        rows.append((f"{start * batch_size + 1:,} to {end * batch_size:,}", *columns))
    table = _table(("episodes", "TRL 1.12.0", "plumbline", "plumbline − TRL"), rows)
    return (
        f"{table}\n\nplumbline's mean is at least TRL's at {at_least} of {points} points; at {below} it is below by "
        "more than two standard errors of the differences."
    )


def _standard_error(values: Sequence[float]) -> float:
    """Of the mean."""
    return statistics.stdev(values) / len(values) ** 0.5


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose columns line up."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in (header, *rows)]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
