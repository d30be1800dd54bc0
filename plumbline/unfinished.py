"""Erasures that are done in the store and not yet in the run folders.

Once a name is gone from the store, nothing there leads to the files that hold it. So what is to be looked for is noted
in the folder of runs before the store commits, and an erasure that broke off is finished by the next one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import select

from plumbline.preferences.erasure import Erased
from plumbline.preferences.tables import Annotator
from plumbline.runs import write_synced

if TYPE_CHECKING:
    from plumbline.preferences.store import Store

ENDING = ".unfinished"


class Unfinished:
    """The erasures from a store that are to be finished in a folder of runs.

    Attributes:
        erasures: what broke off earlier, and what was added.
        rewrite: whether the snapshots are to be rewritten; it was asked for now, or when one of these broke off.
    """

    def __init__(self, runs: Path, store: Store, *, rewrite: bool) -> None:
        self.runs, self.store, self.rewrite = runs, store, rewrite
        self.erasures: list[Erased] = list(self._broken_off())

    def add(self, erased: Erased) -> None:
        """Note an erasure; to be called before the store commits it."""
        self.erasures.append(erased)
        if self.runs.is_dir():  # elsewhere there is nothing to look through
            facts = {**asdict(erased), "answer_ids": sorted(erased.answer_ids)}
            note = {"store": self.store.place, "rewrite": self.rewrite, "erased": facts}
            write_synced(self._note_of(erased), json.dumps(note))

    def has(self, name: str) -> bool:
        """Whether the erasure of this person is among them."""
        return any(erased.name.casefold() == " ".join(name.split()).casefold() for erased in self.erasures)

    def forget(self) -> None:
        """Remove the notes: all is finished."""
        for erased in self.erasures:
            self._note_of(erased).unlink(missing_ok=True)
        self.erasures.clear()

    def _broken_off(self) -> Iterator[Erased]:
        for path in sorted(self.runs.glob(f".erased-*{ENDING}")):
            note = json.loads(path.read_text(encoding="utf-8"))
            facts = note["erased"]
            lists = {name: tuple(facts[name]) for name in ("decisions", "stranded")}
            erased = Erased(**{**facts, **lists, "answer_ids": frozenset(facts["answer_ids"])})
            if self._is_erased(erased):
                self.rewrite = self.rewrite or note["rewrite"]
                yield erased
            elif note["store"] == self.store.place:  # it did not come to the commit: they are to be erased still
                path.unlink()

    def _is_erased(self, erased: Erased) -> bool:
        with self.store.read() as connection:
            named = select(Annotator.id).where(Annotator.name == erased.pseudonym)
            return connection.execute(named).one_or_none() is not None

    def _note_of(self, erased: Erased) -> Path:
        return self.runs / f".{erased.pseudonym}{ENDING}"
