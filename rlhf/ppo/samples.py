"""Responses to look at: what was asked, what was said, and what it scored."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.distributed import all_gather_object, get_world_size, is_initialized

from rlhf.ppo.config import PPOConfig
from rlhf.ppo.rewards import Episodes

FOLDER = "samples"
"""Below the trainer's `output_dir`; a file for each evaluation."""


def rows_of(episodes: Episodes, scores: Tensor) -> list[dict[str, Any]]:
    """Prompt, response and score `(episodes,)` of each episode."""
    return [
        {"prompt": prompt, "response": response, "score": score}
        for prompt, response, score in zip(episodes.prompts, episodes.responses, scores.tolist(), strict=True)
    ]


def write_first(episodes: Episodes | None, scores: Tensor, args: PPOConfig, name: str) -> None:
    """Write the first `num_eval_samples` of an evaluation; every process calls it, without episodes too."""
    count = args.num_eval_samples
    rows = _of_all_processes([] if episodes is None else rows_of(episodes, scores)[:count])[:count]
    if args.process_index == 0:
        write(rows, args.output_dir, name)


def _of_all_processes(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of all processes, of which each has every so many-th, in the order of the prompts."""
    if not is_initialized():
        return rows
    parts: list[list[dict[str, Any]]] = [[] for _ in range(get_world_size())]
    all_gather_object(parts, rows)
    return [row for turn in zip_longest(*parts) for row in turn if row is not None]


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
