"""All responses as a Parquet file, and the choice of those that the report shows."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from plumbline.compare.replies import Replies
from plumbline.conversations import prompt_key

if TYPE_CHECKING:
    from plumbline.datafiles import PromptRow

SAMPLES = "samples.parquet"


def write_samples(replies: dict[str, Replies], prompts: Sequence[PromptRow], folder: Path) -> None:
    """Write every response with its figures to `folder/samples.parquet`, those to one prompt together."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    message = pa.struct([("role", pa.string()), ("content", pa.string())])
    schema = pa.schema(
        [
            ("prompt", pa.list_(message)),
            ("prompt_key", pa.string()),
            ("policy", pa.string()),
            ("response", pa.string()),
            ("number", pa.int32()),
            ("token_count", pa.int32()),
            ("words", pa.int32()),
            ("finished", pa.bool_()),
            ("kl", pa.float64()),
            ("reward", pa.float64()),
            ("utility", pa.float64()),
            ("meta", pa.string()),
        ]
    )
    pq.write_table(pa.Table.from_pylist(list(_rows(replies, prompts)), schema), folder / SAMPLES)


def _rows(replies: dict[str, Replies], prompts: Sequence[PromptRow]) -> Iterator[dict[str, Any]]:
    for row, prompt in enumerate(prompts):
        for own in replies.values():
            for number, text in enumerate(own.texts[row]):
                yield {
                    "prompt": prompt.prompt,
                    "prompt_key": prompt_key(prompt.prompt),
                    "policy": own.policy,
                    "response": text,
                    "number": number,
                    "token_count": int(own.tokens[row, number]),
                    "words": int(own.words[row, number]),
                    "finished": bool(own.finished[row, number]),
                    "kl": None if own.kl is None else float(own.kl[row, number]),
                    **{judge: float(scores[row, number]) for judge, scores in own.scores.items()},
                    "meta": json.dumps(prompt.meta, sort_keys=True, ensure_ascii=False),
                }


def random_rows(prompts: int, shown: int, seed: int) -> list[int]:
    """Which prompts the report shows, in a random order that the seed decides."""
    return [int(row) for row in np.random.default_rng(seed).permutation(prompts)[:shown]]


class Extremes(NamedTuple):
    """Rows with the largest lead and the largest arrears of a policy over its baseline, the largest first."""

    wins: list[int]
    losses: list[int]


def extremes(policy: Replies, baseline: Replies, judge: str, count: int = 3) -> Extremes:
    """The biggest wins and losses by the first response to each prompt."""
    lead = policy.scores[judge][:, 0] - baseline.scores[judge][:, 0]
    order = np.argsort(-lead, kind="stable")
    wins = [int(row) for row in order[:count] if lead[row] > 0]
    losses = [int(row) for row in order[::-1][:count] if lead[row] < 0]
    return Extremes(wins, losses)
