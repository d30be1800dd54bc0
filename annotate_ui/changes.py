"""What a new version of a guideline changes, word by word."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from functools import lru_cache
from itertools import groupby
from typing import Literal, NamedTuple

WORDS = re.compile(r"\s+|\w+|.", re.DOTALL)
WORD_OR_END = re.compile(r"[\w\n]")
CONTEXT = 2  # lines that are shown before and after a change
MOST_WORDS = 20_000  # in a changed passage; a longer one is shown as replaced


class Piece(NamedTuple):
    """A stretch of text; `same` is in both versions, `del` and `ins` in one, and `gap` stands for what is not shown."""

    kind: Literal["same", "del", "ins", "gap"]
    text: str


@lru_cache(maxsize=64)
def changes(before: str, after: str) -> tuple[Piece, ...]:
    """What makes `after` of `before`: without the pieces of a kind, the text of one version; nothing is left out."""
    segments = [
        words
        for lines in _segments(before.splitlines(keepends=True), after.splitlines(keepends=True))
        for words in _by_words(*lines)
    ]
    return tuple(_pieces(segments))


def around(pieces: Sequence[Piece]) -> list[Piece]:
    """The changes with a few lines around each."""
    shown: list[Piece] = []
    for index, piece in enumerate(pieces):
        lines = piece.text.splitlines(keepends=True)
        first = lines[:CONTEXT] if index > 0 else []
        last = lines[-CONTEXT:] if index < len(pieces) - 1 else []
        if piece.kind != "same" or len(first) + len(last) >= len(lines):
            shown.append(piece)
        else:
            cut = (Piece("same", "".join(first)), Piece("gap", ""), Piece("same", "".join(last)))
            shown += [one for one in cut if one.text or one.kind == "gap"]
    return shown


def _segments(before: Sequence[str], after: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Stretches of both, one after the other; those that both have are equal."""
    for _, start, end, fresh_start, fresh_end in SequenceMatcher(None, before, after).get_opcodes():
        yield "".join(before[start:end]), "".join(after[fresh_start:fresh_end])


def _by_words(before: str, after: str) -> Iterator[tuple[str, str]]:
    words, fresh = (WORDS.findall(text) for text in (before, after))
    if before == after or len(words) + len(fresh) > MOST_WORDS:
        return iter([(before, after)])
    return _segments(words, fresh)


def _pieces(segments: Sequence[tuple[str, str]]) -> Iterator[Piece]:
    differs = [False, *(before != after for before, after in segments), False]

    def is_changed(index: int) -> bool:
        """Whether it is a change, or no more than a space or a mark between two of them."""
        has_words = WORD_OR_END.search(segments[index][0])
        return differs[index + 1] or (not has_words and differs[index] and differs[index + 2])

    for changed, indexes in groupby(range(len(segments)), is_changed):
        before, after = ("".join(texts) for texts in zip(*(segments[index] for index in indexes), strict=True))
        if not changed:
            yield Piece("same", before)
        else:
            yield from (piece for piece in (Piece("del", before), Piece("ins", after)) if piece.text)
