"""How much labelled personal data is found, how often an alarm is false, and how fast.

python -m benchmarks.personal_data ../shared/data
"""

from __future__ import annotations

import gzip
import json
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from plumbline.personal_data import find

WHOLE = {"ssn": 9, "card_number": 13, "account_number": 6, "phone_number": 9, "email_address": 0}
"""Labels whose kind is looked for, and from how many digits on a number is a whole one, not its last four digits."""
TEXTS = ("bitext_support", "medquad", "gsm8k", "pubmedqa", "tatqa", "hh_harmless", "tulu_human_eval", "finegrained_qa")


class Turn(NamedTuple):
    """A text, and its labelled pieces: label, start, end."""

    text: str
    labels: list[tuple[str, int, int]]


@dataclass
class Score:
    """Labelled pieces by label: all, those that were found, and the same of whole numbers; and false alarms."""

    pieces: Counter[str] = field(default_factory=Counter)
    found: Counter[str] = field(default_factory=Counter)
    whole: Counter[str] = field(default_factory=Counter)
    whole_found: Counter[str] = field(default_factory=Counter)
    alarms: int = 0
    wrong: int = 0


def labelled(file: Path) -> Iterator[Turn]:
    """The turns of MultiDoGO that have a label for each word."""
    with gzip.open(file, "rt", encoding="utf-8") as rows:
        for row in map(json.loads, rows):
            words, labels = row["utterance"].split(), (row.get("slot-labels") or "").split()
            if len(words) == len(labels):
                yield Turn(" ".join(words), list(_pieces(words, labels)))


def _pieces(words: list[str], labels: list[str]) -> Iterator[tuple[str, int, int]]:
    at, before = 0, ("O", 0, 0)
    for word, label in [*zip(words, labels, strict=True), ("", "O")]:
        if label != before[0]:
            if before[0] != "O":
                yield before
            before = (label, at, at)
        before = (label, before[1], at + len(word))
        at += len(word) + 1


def score(turns: Iterable[Turn]) -> Score:
    """Hold what is found against the labels; a piece counts as found when any of it is."""
    total = Score()
    for text, labels in turns:
        spans = find(text)
        total.alarms += len(spans)
        total.wrong += sum(not any(start < span.end and span.start < end for _, start, end in labels) for span in spans)
        for label, start, end in labels:
            if label in WHOLE:
                hit = any(start < span.end and span.start < end for span in spans)
                whole = sum(sign.isdigit() for sign in text[start:end]) >= WHOLE[label]
                total.pieces[label] += 1
                total.found[label] += hit
                total.whole[label] += whole
                total.whole_found[label] += whole and hit
    return total


def texts_of(value: Any) -> Iterator[str]:
    """All texts of a row."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            yield from texts_of(one)


def main(folder: Path) -> None:
    """Print both tables."""
    total = score(labelled(folder / "multidogo_pii" / "raw.jsonl.gz"))
    for label, number in total.pieces.most_common():
        of_whole = f"{total.whole_found[label]} of {total.whole[label]} whole ones"
        print(f"{label}: {total.found[label]} of {number} found; {of_whole}")
    print(f"{total.alarms} alarms, {total.wrong} of them where nothing is labelled")
    for name in TEXTS:
        with gzip.open(folder / name / "raw.jsonl.gz", "rt", encoding="utf-8") as rows:
            texts = [text for row in rows for text in texts_of(json.loads(row))]
        began = time.perf_counter()
        kinds = Counter(span.kind for text in texts for span in find(text))
        size = sum(map(len, texts)) / 1e6
        print(f"{name}: {size:.1f} M characters, {size / (time.perf_counter() - began):.1f} M a second: {dict(kinds)}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
