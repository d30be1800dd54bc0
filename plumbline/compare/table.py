"""The comparison's result as a table for the terminal."""

from __future__ import annotations

from io import StringIO
from typing import Any

from rich.console import Console
from rich.table import Table

from plumbline.compare.wording import doubt_of_the_judge

WIDTH = 100


def format_table(results: dict[str, Any]) -> str:
    """Two tables of plain text: win rates with 95% intervals, and what is known of each policy by itself.

    Args:
        results: the content of `results.json`.
    """
    out = StringIO()
    console = Console(file=out, width=WIDTH, color_system=None, highlight=False, markup=False)
    console.print(_win_rates(results["comparisons"]))
    console.print(_policies(results["policies"]))
    if doubt := doubt_of_the_judge(results["meta"]):
        console.print(doubt)
    if results["meta"]["simulated"]:
        console.print("Judged by simulated annotators' utility or preferences, not by people.")
    return out.getvalue().rstrip()


def _win_rates(rows: list[dict[str, Any]]) -> Table:
    table = Table(title="Win rates (a tie counts half)", title_justify="left")
    for name in ("policy", "over", "judge"):
        table.add_column(name)
    for name in ("prompts", "win rate", "95% interval", "ties"):
        table.add_column(name, justify="right")
    for row in rows:
        interval = f"{row['low']:.1%} to {row['high']:.1%}"
        figures = (str(row["n"]), f"{row['win_rate']:.1%}", interval, f"{row['ties']:.1%}")
        table.add_row(row["policy"], row["baseline"], row["judge"], *figures)
    return table


def _policies(policies: dict[str, dict[str, Any]]) -> Table:
    table = Table(title="Policies", title_justify="left")
    kl = next((key for metrics in policies.values() for key in metrics if key.startswith("kl_to_")), "kl")
    columns = {
        "utility_mean": ("utility", ".3f"),
        "reward_mean": ("reward", ".3f"),
        kl: (kl.replace("_", " ").replace("kl", "KL"), ".2f"),
        "tokens_mean": ("tokens", ".1f"),
        "words_mean": ("words", ".1f"),
        "distinct_2": ("distinct-2", ".3f"),
        "finished_share": ("ended itself", ".1%"),
    }
    columns = {key: value for key, value in columns.items() if any(key in metrics for metrics in policies.values())}
    table.add_column("policy")
    for title, _ in columns.values():
        table.add_column(title, justify="right")
    for name, metrics in policies.items():
        cells = [format(metrics[key], form) if key in metrics else "–" for key, (_, form) in columns.items()]
        table.add_row(name, *cells)
    return table
