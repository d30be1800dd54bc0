"""Responses to look at: what was asked, what was said, and what it scored."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from rlhf.ppo.rewards import Episodes

FOLDER = "samples"
"""Below the trainer's `output_dir`; a file for each evaluation."""


def rows_of(episodes: Episodes, scores: Tensor) -> list[dict[str, Any]]:
    """Prompt, response and score `(episodes,)` of each episode."""
    return [
        {"prompt": prompt, "response": response, "score": score}
        for prompt, response, score in zip(episodes.prompts, episodes.responses, scores.tolist(), strict=True)
    ]


def write(rows: Sequence[dict[str, Any]], output: str | Path, name: str) -> None:
    """Write rows as JSON lines to `samples/NAME.jsonl`; what was there is replaced, as a resumed run makes it again."""
    folder = Path(output) / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    place = folder / f"{name.replace('/', '-')}.jsonl"  # a dataset's name may have a slash
    place.write_text("".join(lines), encoding="utf-8")


def show(rows: Sequence[dict[str, Any]]) -> None:
    """Print rows as a table; of a conversation its last message."""
    from rich.console import Console
    from rich.table import Table

    table = Table("prompt", "response", "score", show_lines=True)
    for row in rows:
        text = row["prompt"] if isinstance(row["prompt"], str) else row["prompt"][-1]["content"]
        table.add_row(text, row["response"], f"{row['score']:.3f}")
    Console().print(table)
