"""Turn the files of two sources into demonstrations for the example recipes.

    python examples/prepare.py bitext Bitext_Sample_Customer_Support_Training_Dataset.csv
    python examples/prepare.py oasst en_100_tree.jsonl

writes `examples/data/bitext_support.jsonl` and `examples/data/oasst_sft.jsonl` (or the file named last).
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Iterator
from pathlib import Path

from plumbline.conversations import Conversation, Message
from plumbline.datafiles import read_rows
from plumbline.preferences.importers import oasst

DATA = Path(__file__).parent / "data"


def bitext(source: Path) -> Iterator[Conversation]:
    """Each instruction with its response."""
    with source.open(encoding="utf-8-sig", newline="") as file:
        for row in csv.DictReader(file):
            yield [_message("user", row["instruction"]), _message("assistant", row["response"])]


def best_replies(source: Path) -> Iterator[Conversation]:
    """Each prompt of the message trees with the reply that people ranked first."""
    for _, tree in read_rows(source):
        for judged in oasst.judgements(tree):
            yield [*judged.prompt, _message("assistant", judged.responses[0].text)]


def _message(role: str, text: str) -> Message:
    return {"role": role, "content": text.strip()}


SOURCES = {"bitext": (bitext, "bitext_support.jsonl"), "oasst": (best_replies, "oasst_sft.jsonl")}


def main() -> None:
    """Write the conversations of one source as rows with `messages`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", choices=SOURCES)
    parser.add_argument("file", type=Path, help="the source's own file")
    parser.add_argument("out", type=Path, nargs="?", help="what to write")
    given = parser.parse_args()
    read, name = SOURCES[given.source]
    out = given.out or DATA / name
    out.parent.mkdir(parents=True, exist_ok=True)
    rows = [{"messages": conversation} for conversation in read(given.file)]
    out.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    print(f"{out}: {len(rows)} conversations")


if __name__ == "__main__":
    main()
