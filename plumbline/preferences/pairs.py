"""From rankings to pairs of a chosen and a rejected response, in TRL's conversational preference format."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow

from plumbline.conversations import Conversation, Part, Split, part_of, prompt_key, split_of
from plumbline.errors import UserError
from plumbline.preferences.snapshot import read_snapshot, snapshot_rows

if TYPE_CHECKING:
    from datasets import Dataset

PAIRS_AT_ONCE = 1000

EDIT_MARGIN = 1.0
"""Margin of an improved response over the one it improves: that of neighbouring ranks, since nobody graded it."""


class Pair(NamedTuple):
    """Indexes of a preferred and a less preferred response, and by how much; see `pairs_of`."""

    chosen: int
    rejected: int
    margin: float


def pairs_of(ranks: Sequence[int], strength: float | None = None, gaps: Sequence[int] = ()) -> Iterator[Pair]:
    """All pairs of a ranking, ties left out.

    The margin is the `strength`, where there is one for two responses; the sum of the grades of preference between the
    two ranks, where there are `gaps`; otherwise the gap between the ranks.
    """
    for first, second in combinations(range(len(ranks)), 2):
        if ranks[first] == ranks[second]:
            continue
        chosen, rejected = (first, second) if ranks[first] < ranks[second] else (second, first)
        steps = gaps[ranks[chosen] - 1 : ranks[rejected] - 1] or (ranks[rejected] - ranks[chosen],)
        margin = strength if strength is not None and len(ranks) == 2 else float(sum(steps))
        yield Pair(chosen, rejected, margin)


def load_pairs(
    folder: Path,
    *,
    part: Part | None = None,
    split: Split | None = None,
    judge_share: float = 0.5,
    watch_share: float = 0.0,
    validation: float = 0.1,
    test: float = 0.1,
) -> Dataset:
    """The pairs of a snapshot, as a dataset that is mapped from disk.

    Where an annotator improved the best response, the improved one over the best is among them.

    Args:
        folder: where `write_snapshot` wrote.
        part: the `policy`, the `judge` or the `watch` part of the prompts; None for all.
        split: `train`, `validation` or `test`, decided by the prompt's hash; None for all.
        judge_share, watch_share: shares of prompts in these parts.
        validation, test: shares of these splits.

    Returns:
        Columns `prompt`, `chosen`, `rejected` (messages), `margin`, `judgement_id`, `annotator`, `simulated`,
        `prompt_key`; all pairs of one judgement follow each other.

    Raises:
        UserError: there is no pair: no judgement in this part and split, or only ties.
    """
    import datasets

    snapshot = read_snapshot(Path(folder))
    messages = pyarrow.list_(pyarrow.struct([("role", pyarrow.string()), ("content", pyarrow.string())]))
    schema = pyarrow.schema(
        [(name, messages) for name in ("prompt", "chosen", "rejected")]
        + [("margin", pyarrow.float64())]
        + [("judgement_id", pyarrow.string()), ("annotator", pyarrow.string())]
        + [("simulated", pyarrow.bool_()), ("prompt_key", pyarrow.string())]
    )
    seen = taken = 0
    batch: list[dict[str, Any]] = []
    file = Path(tempfile.mkdtemp(dir=_session_folder())) / "pairs.arrow"
    with pyarrow.OSFile(str(file), "wb") as sink, pyarrow.ipc.new_stream(sink, schema) as writer:
        for row in snapshot_rows(snapshot):
            if part is not None and part_of(row["prompt"], judge=judge_share, watch=watch_share) != part:
                continue
            if split is not None and split_of(row["prompt"], validation=validation, test=test) != split:
                continue
            seen += 1
            pairs = list(_pair_rows(row))
            taken += len(pairs)
            batch += pairs
            if len(batch) >= PAIRS_AT_ONCE:
                writer.write_batch(pyarrow.RecordBatch.from_pylist(batch, schema=schema))
                batch.clear()
        if batch:
            writer.write_batch(pyarrow.RecordBatch.from_pylist(batch, schema=schema))
    if not taken:
        raise UserError(_why_none(snapshot.file, seen, part, split))
    return datasets.Dataset.from_file(str(file))


def preference_rows(
    prompt: Conversation,
    texts: Sequence[str],
    ranks: Sequence[int],
    strength: float | None,
    gaps: Sequence[int] = (),
    edited: str | None = None,
) -> Iterator[dict[str, Any]]:
    """The pairs of one judgement as rows of TRL's conversational preference format, with their margin.

    An `edited` response is preferred to the best one (to each of them where several are tied), by `EDIT_MARGIN`;
    nothing is said of it and the others.
    """
    pairs = [(texts[pair.chosen], texts[pair.rejected], pair.margin) for pair in pairs_of(ranks, strength, gaps)]
    if edited:
        pairs += [(edited, texts[index], EDIT_MARGIN) for index in improved_by(edited, texts, ranks)]
    for chosen, rejected, margin in pairs:
        yield {
            "prompt": prompt,
            "chosen": [{"role": "assistant", "content": chosen}],
            "rejected": [{"role": "assistant", "content": rejected}],
            "margin": margin,
        }


def improved_by(edited: str, texts: Sequence[str], ranks: Sequence[int]) -> list[int]:
    """Indexes of the best responses, over which an edited one is preferred; not of those that it merely repeats."""
    return [
        index
        for index, (text, rank) in enumerate(zip(texts, ranks, strict=True))
        if rank == 1 and text.strip() != edited.strip()
    ]


def edited_demonstrations(
    folder: Path, *, split: Split | None = None, validation: float = 0.1, test: float = 0.1
) -> Iterator[dict[str, Any]]:
    """The responses of a snapshot that annotators improved, as demonstrations for supervised fine-tuning.

    Args:
        folder, split, validation, test: as for `load_pairs`.

    Yields:
        `{messages, judgement_id, annotator, simulated}`; the messages end with the improved response. In the order of
        the snapshot.
    """
    for row in snapshot_rows(read_snapshot(Path(folder))):
        if not row["edited"]:
            continue
        if split is None or split_of(row["prompt"], validation=validation, test=test) == split:
            about = {name: row[name] for name in ("judgement_id", "annotator", "simulated")}
            yield {"messages": [*row["prompt"], {"role": "assistant", "content": row["edited"]}]} | about


def _pair_rows(row: dict[str, Any]) -> Iterator[dict[str, Any]]:
    about = {name: row[name] for name in ("judgement_id", "annotator", "simulated")}
    about["prompt_key"] = prompt_key(row["prompt"])
    texts = [response["text"] for response in row["responses"]]
    said = (row["ranks"], row["strength"], row.get("gaps") or (), row["edited"])
    for pair in preference_rows(row["prompt"], texts, *said):
        yield pair | about


def _why_none(file: Path, seen: int, part: str | None, split: str | None) -> str:
    what = " ".join(word for word in (split, f"of the {part} part" if part else None) if word) or "all"
    if seen:
        return f"{file}: all {seen} judgements ({what}) are ties, so nothing is preferred to anything: collect more."
    return f"{file}: no judgement belongs to this part of the data ({what}): collect or import more preferences."


@lru_cache(maxsize=1)
def _session_folder() -> str:
    """A folder for mapped datasets (and what `datasets` caches beside them), removed when the process ends."""
    folder = tempfile.mkdtemp(prefix="plumbline-pairs-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
